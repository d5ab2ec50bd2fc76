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
    server: Server | None,
    answer: str,
    *words: str,
    ahead: bool = True,
    redirected: str = "",
    cold: bool = False,
    **environment: str,
) -> tuple[int, str, str]:
    """Run at a terminal and type `answer`. Returns (exit code, the terminal's text, the redirected text).

    `ahead`: type all at once, otherwise a line after each question, because the program drops what is typed ahead of a
    password. `redirected` names the outputs that go into a file: "err", "out", "both", or "" for none.
    """
    given = {"TERM": "xterm", "COLUMNS": "120", **environment}
    here = Cli(cli.place, {**(cli.at(server) if server else cli).environment, **given})
    lines = [answer] if ahead else answer.splitlines(keepends=True)

    def typed(shown: bytes) -> bytes:
        return lines.pop(0).encode() if lines and (ahead or shown.endswith(QUESTIONS)) else b""

    return _at_terminal(here, words, typed, redirected=redirected, cold=cold)


def at_width(cli: Cli, columns: int, *words: str) -> tuple[int, list[str]]:
    """Run at a terminal of this width. Returns (exit code, the lines it got, without cursor movements)."""
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
    """Run at a terminal.

    `typed` is called at the start and after each piece that is shown; it returns what to type then.
    """
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
    """Return the next piece, or nothing if the terminal is closed because the process has ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
