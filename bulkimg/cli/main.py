"""This file is the program's door. Commands are imported when they are called, so that `bulkimg --help` answers at once."""

import importlib
import os
import sqlite3
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from bulkimg import __version__
from bulkimg.cli import screen
from bulkimg.errors import BulkimgError, Exit

# Command → (module in bulkimg.cli, what it does), in the order of a newcomer's need.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Check a manifest, send its changes, write one outcome for every row."),
    "check": ("check", "List every problem of a manifest with its fix; sends nothing."),
    "resume": ("resume", "Go on with a run that was interrupted."),
    "retry": ("retry", "A new run of the rows that are failed, unknown or unprocessed."),
    "status": ("status", "Counts, pace and errors by cause of a run, living or dead."),
    "runs": ("runs", "List the runs."),
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
    screen.set_up()
    try:
        app(prog_name="bulkimg")
    except BulkimgError as error:
        screen.error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # while a run is sending, signals are its own business (carry.py)
        screen.error("interrupted; nothing was being sent")
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit's flush has somewhere to go
        sys.exit(Exit.SOME_ROWS_NOT)
    except (sqlite3.Error, MemoryError) as error:
        what = "out of memory" if isinstance(error, MemoryError) else f"the ledger failed: {error}"
        screen.error(f"{what}; nothing more is sent, and bulkimg resume last goes on when it is mended")
        sys.exit(Exit.STORAGE)
    except OSError as error:
        screen.error(f"{error.filename or 'standard output'}: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.STORAGE)
    sys.exit(Exit.OK)
