"""`bulkimg ui`: a web page of all runs on 127.0.0.1, live. It only reads."""

import asyncio
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from bulkimg.cli import complete, screen
from bulkimg.cli.options import Flags, with_options
from bulkimg.cli.resume import find, runs_dir
from bulkimg.errors import UsageError
from bulkimg.process import give_way
from bulkimg.values import parse_duration

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]", help="The run to open; all runs otherwise.", autocompletion=complete.runs, show_default=False
    ),
]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port on 127.0.0.1; 0 takes a free one.")
]
Open = Annotated[bool, typer.Option("--open", help="Open it in the browser.")]
Idle = Annotated[
    str, typer.Option("--idle", metavar="TIME", help="End after this long without a request and without an open page.")
]


@with_options("runs_dir", "log_format", "quiet")
def command(flags: Flags, run: Run = None, port: Port = 0, open_it: Open = False, idle: Idle = "1h") -> None:
    """Reads only; never in the way of a run, and outlives it. Ctrl-C ends it."""
    from bulkimg.live import private, served, web  # imported only now: `bulkimg --help` needs no server

    directory = find(run, flags) if run is not None else None
    if directory:
        served.refuse_unserved(directory)
    place = directory.path.parent if directory else runs_dir(flags)
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place}: is not a directory; name another with --runs-dir")
    options = web.Options(place, port, _seconds(idle), directory.run_id if directory else "")
    files: list[Path] = []

    def ready(url: str, port: int) -> None:
        _greet(url, port)
        if open_it:
            try:
                files.append(private.redirect(url))
            except OSError as error:
                screen.warning(f"--open: {error}; open the address above yourself")
            else:  # in a thread, because some browsers keep their caller waiting
                threading.Thread(target=_open, args=(files[0],), daemon=True).start()

    give_way()
    try:
        if asyncio.run(web.serve(options, ready)):
            screen.note(f"ended: no request for {idle}")
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--idle {text!r} {error}") from None


def _greet(url: str, port: int) -> None:
    screen.out(f"live page: {url}")
    screen.out(f"from another machine: ssh -L {port}:127.0.0.1:{port} {socket.gethostname()}")
    screen.out("Ctrl-C ends the page; runs continue")


def _open(path: Path) -> None:
    if not webbrowser.open(path.as_uri()):
        screen.warning("no browser was found; open the address above yourself")
