"""The program's door. Commands are imported when they are called, so that `bulkimg --help` answers at once."""

import importlib
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from bulkimg import __version__
from bulkimg.cli import screen
from bulkimg.errors import BulkimgError, Exit, out_of_resources

# Command → (module in bulkimg.cli, what it does), in the order of a newcomer's need.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Check a manifest, send its changes, write one outcome for every row."),
    "check": ("check", "List every problem of a manifest with its fix; sends nothing."),
    "plan": ("plan", "Show the difference that a manifest would make, field by field; sends nothing."),
    "apply": ("apply", "Carry a planned run out."),
    "resume": ("resume", "Go on with a run that was interrupted."),
    "retry": ("retry", "A new run of the rows that are failed, unknown or unprocessed."),
    "undo": ("undo", "A new run that puts the old values back, where nobody has changed them since."),
    "verify": ("verify", "Read the images again and tell what has drifted since a run."),
    "ctl": ("ctl", "Change a running run: rate=5/s, concurrency=8, pause, go, stop, status."),
    "status": ("status", "Counts, pace and errors by cause of a run, living or dead."),
    "runs": ("runs", "List the runs."),
    "export": ("export", "The images as a manifest to edit."),
    "try": ("try_out", "Show one change as curl; with --send, send it and show the answer."),
    "sandbox": ("sandbox", "A local server that speaks the API, to practise on and to test against."),
}


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"bulkimg.cli.{COMMANDS[cmd_name][0]}")
        one = typer.Typer(add_completion=False, rich_markup_mode=None)
        one.command(cmd_name, help=COMMANDS[cmd_name][1])(module.command)
        return typer.main.get_command(one)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


# The parser's error, whose module is Typer's private affair.
_Misused: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError")

app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        screen.out(f"bulkimg {__version__}")
        raise typer.Exit


@app.callback()
def bulkimg(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Bulk updates of cloud images: a manifest in, throttled concurrent PUTs, one honest outcome for every row.

    Begin with: bulkimg check FILE, then bulkimg run FILE. Every option is also BULKIMG_<OPTION> in the environment.
    """


def main() -> NoReturn:
    """Run the command line; errors of ours are one sentence and their exit code, never a traceback."""
    screen.set_up(sys.argv[1:], os.environ)
    signal.signal(
        signal.SIGUSR1, signal.SIG_IGN
    )  # asks for the status of what is sending (carry.py), and ends nothing else
    try:
        code = app(prog_name="bulkimg", standalone_mode=False) or Exit.OK
    except KeyboardInterrupt:  # while a run is sending, signals are its own business (carry.py)
        screen.error("interrupted; nothing was being sent")
        code = Exit.INTERRUPTED
    except Exception as error:
        if (known := _end(error)) is None:
            screen.bug(traceback.format_exc())
            known = Exit.SOME_ROWS_NOT
        code = known
    screen.finish(int(code))
    sys.exit(code)


def _end(error: Exception) -> Exit | None:
    """Say what went wrong, and the exit code that goes with it; None for a bug of ours."""
    sqlite3 = sys.modules.get("sqlite3")  # imported by whoever opened a ledger; `--help` does without
    if isinstance(error, BulkimgError):
        screen.error(str(error))
        return error.exit_code
    if isinstance(error, _Misused):
        _say_misuse(error)
        return Exit.USAGE
    if isinstance(error, typer.Abort):
        return Exit.INTERRUPTED
    if why := out_of_resources(error):
        screen.error(f"{why}; raise the limits (ulimit -n, -v, -u), then resume the run")
        return Exit.STORAGE
    if isinstance(error, OSError):
        return _end_of_output(error)
    if sqlite3 is not None and isinstance(error, sqlite3.Error):
        screen.error(f"the ledger failed: {error}; free space or fix the disk, then resume the run")
        return Exit.STORAGE
    return None


def _end_of_output(error: OSError) -> Exit:
    screen.error(f"{error.filename or 'standard output'}: {error.strerror}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the exit's flush has somewhere to go
    return Exit.STORAGE


def _say_misuse(error: Any) -> None:
    """Typer's own words, through the one place that prints: a file's name may hold what a terminal obeys."""
    if type(error).__name__ == "NoArgsIsHelpError":
        screen.note(error.format_message())
        return
    if error.ctx:
        screen.note(error.ctx.get_usage())
    screen.error(screen.one_line(error.format_message()))
    if error.ctx:
        screen.note(f"Try '{error.ctx.command_path} --help' for help.")
