"""`bulkimg watch`: a run's counts, pace, events and causes, live, until it ends. It only reads."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

from bulkimg.cli import screen
from bulkimg.cli.execute import cause_line
from bulkimg.cli.options import SPEECH, Flags, with_options
from bulkimg.cli.resume import find
from bulkimg.cli.status import Run, show
from bulkimg.errors import Exit, UsageError
from bulkimg.live.terminal import frame, plain
from bulkimg.live.watching import Look, Watching
from bulkimg.process import give_way
from bulkimg.values import parse_duration

Interval = Annotated[str, typer.Option("--interval", metavar="TIME", help="Time between two looks.")]


@with_options("runs_dir", *SPEECH)
def command(flags: Flags, run: Run = "last", interval: Interval = "1s") -> None:
    """Reads only; never in the way of the run. Ctrl-C ends the watching (exit 130), and the run continues."""
    seconds = _seconds(interval)
    watching = Watching(find(run, flags))
    give_way()
    signal.signal(signal.SIGTERM, _leave)  # the terminal gets its cursor back
    try:
        if screen.wants_document():
            _until_the_end(watching, seconds)
        elif sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            _on_a_terminal(watching, seconds)
        else:
            _in_lines(watching, seconds)
    except KeyboardInterrupt:
        screen.note("no longer watching; the run continues")
        raise typer.Exit(Exit.INTERRUPTED) from None


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--interval {text!r} {error}") from None


def _leave(*_: Any) -> NoReturn:
    raise SystemExit(Exit.TERMINATED)


def _looks(watching: Watching, seconds: float) -> Iterator[Look]:
    """Yield the run at each interval; the last one is of a run that no process executes."""
    while True:
        look = watching.look()
        yield look
        if not look.status["running"]:
            return
        time.sleep(seconds)


def _until_the_end(watching: Watching, seconds: float) -> None:
    for look in _looks(watching, seconds):
        if not look.status["running"]:
            screen.out_json(look.status)


def _in_lines(watching: Watching, seconds: float) -> None:
    """Print a line whenever something has changed, and the status at the end."""
    last = ""
    for look in _looks(watching, seconds):
        if not look.status["running"]:
            show(look.status)
        elif (line := plain(look)) != last:
            last = line
            screen.out(line)
        if not screen.has_reader():
            return


def _on_a_terminal(watching: Watching, seconds: float) -> None:
    """Redraw the same lines. The last ones stay."""
    from rich.console import Console, Group  # imported only now: lines and documents need no rich display
    from rich.live import Live

    console = Console(highlight=False)
    ascii_only = not console.encoding.lower().startswith("utf")
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as display, _quiet_keys():
        for look in _looks(watching, seconds):
            display.update(Group(*frame(look, console.width, cause_line, ascii_only=ascii_only)), refresh=True)


@contextmanager
def _quiet_keys() -> Iterator[None]:
    """Keep what is typed from moving the picture."""
    import termios

    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)
    silent = termios.tcgetattr(0)
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSANOW, before)
