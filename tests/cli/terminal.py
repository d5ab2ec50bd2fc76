"""Run a command at a pseudo-terminal, with its outputs redirected if a test asks for it."""

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Callable

from tests.conftest import Cli, Server

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
QUESTIONS = (b": ", b"] ")


def on_a_terminal(
    cli: Cli,
    server: Server,
    answer: str,
    *words: str,
    ahead: bool = True,
    redirected: str = "",
    cold: bool = False,
    **environment: str,
) -> tuple[int, str, str]:
    """Run at a terminal and type `answer`: (exit code, what the terminal showed, what went elsewhere).

    `ahead`: all at once; otherwise a line after each question, as what is typed ahead of a password is thrown away.
    `redirected`: "" for no output, or those that go into a file: "err", "out" or "both".
    """
    given = {"TERM": "xterm", "COLUMNS": "120", **environment}
    here = Cli(cli.place, {**cli.at(server).environment, **given})
    lines = [answer] if ahead else answer.splitlines(keepends=True)

    def typed(shown: bytes) -> bytes:
        return lines.pop(0).encode() if lines and (ahead or shown.endswith(QUESTIONS)) else b""

    return _at_terminal(here, words, typed, redirected=redirected, cold=cold)


def at_width(cli: Cli, columns: int, *words: str) -> tuple[int, list[str]]:
    """Run at a terminal so wide: (exit code, the lines that it was sent, without what moves the cursor)."""
    here = Cli(cli.place, {**cli.environment, "TERM": "xterm"})
    code, shown, _ = _at_terminal(here, words, lambda _: b"", columns)
    return code, [line for line in re.split(r"[\r\n]+", CONTROL.sub("", shown)) if line.strip()]


def _at_terminal(
    cli: Cli,
    words: tuple[str, ...],
    typed: Callable[[bytes], bytes],
    columns: int = 0,
    *,
    redirected: str = "",
    cold: bool = False,
) -> tuple[int, str, str]:
    """`typed` is asked at the start and after each piece that is shown: what the person types then."""
    ours, theirs = pty.openpty()
    if columns:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    elsewhere = cli.place / "elsewhere"
    with elsewhere.open("w") as file:
        out = file.fileno() if redirected in ("out", "both") else theirs
        err = file.fileno() if redirected in ("err", "both") else theirs
        process = cli.start(*words, stdin=theirs, stdout=out, stderr=err, session=True, cold=cold)
    os.close(theirs)
    os.write(ours, typed(b""))
    shown = b""
    while piece := _read(ours):
        shown += piece
        os.write(ours, typed(piece))
    os.close(ours)
    return process.wait(30), shown.decode(), elsewhere.read_text()


def _read(terminal: int) -> bytes:
    """The next piece, or nothing: the terminal is gone, as the process has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
