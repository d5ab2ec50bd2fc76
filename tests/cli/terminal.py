"""Run a command at a pseudo-terminal, with its outputs redirected if a test asks for it."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.conftest import Cli, Server


def on_a_terminal(
    cli: Cli, server: Server, answer: str, *arguments: str, redirected: str = "", **environment: str
) -> tuple[int, str, str]:
    """Run at a terminal and type `answer` ahead. Returns (exit code, the terminal's text, the redirected text).

    `redirected` names the outputs that go into a file: "err", "out", "both", or "" for none.
    """
    ours, theirs = pty.openpty()
    elsewhere = Path(cli.place / "elsewhere")
    with elsewhere.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bulkimg", *arguments],
            stdin=theirs,
            stdout=file if redirected in ("out", "both") else theirs,
            stderr=file if redirected in ("err", "both") else theirs,
            cwd=cli.place,
            env={**cli.at(server).env(**environment), "TERM": "xterm", "COLUMNS": "120"},
            start_new_session=True,
        )
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the terminal is closed: the process has ended
            break
        shown += piece
    os.close(ours)
    return process.wait(30), shown.decode(), elsewhere.read_text()
