"""The entry point of the program. Commands are imported when they are called, so that `bulkimg --help` is quick."""

import functools
import gc
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

# Command → (module in bulkimg.cli, what it does), in the order in which a newcomer needs them.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Check a manifest, send its changes, write one outcome for every row."),
    "check": ("check", "List every problem of a manifest with its fix; sends nothing."),
    "plan": ("plan", "Show what a manifest would change, field by field; sends nothing."),
    "apply": ("apply", "Send a planned run."),
    "resume": ("resume", "Resume an interrupted run."),
    "retry": ("retry", "Send the rows again that are failed, unknown or unprocessed, as a new run."),
    "undo": ("undo", "Put the old values back where they have not changed since, as a new run."),
    "merge": ("merge", "Put the runs of all shards together into one run."),
    "verify": ("verify", "Read the images again and list what has drifted since a run."),
    "ctl": ("ctl", "Change a running run: rate=5/s, concurrency=8, pause, go, stop, status."),
    "status": ("status", "Show a run's counts, pace and errors by cause, running or not."),
    "runs": ("runs", "List the runs."),
    "report": ("report", "Draw a run as one page to look at, running or not."),
    "results": ("results", "Write a run's results as CSV, JSONL, an Excel workbook or Parquet."),
    "watch": ("watch", "Show a run's counts, pace and events live, until it ends."),
    "ui": ("ui", "Serve a read-only web page of all runs on 127.0.0.1, live."),
    "show": ("show", "Show one image, and what the runs here did to it."),
    "export": ("export", "Write the images as a manifest to edit."),
    "try": ("try_out", "Show one change as curl; with --send, send it and show the answer."),
    "doctor": ("doctor", "Check the set-up and the server; changes nothing."),
    "notify": ("notify", "Send a test message to every address of a job."),
    "schedule": ("schedule", "Write the files that start a job by itself: systemd, cron or Kubernetes."),
    "init": ("init", "Write a commented job file."),
    "schema": ("schema", "Print the JSON Schema of a document."),
    "sandbox": ("sandbox", "Start a local server that speaks the API, for practice and tests."),
    "help": ("help", "Show a page of the manual."),
}


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return command_called(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from bulkimg.cli.helpful import refuse_command

            refuse_command(args[0], list(COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@functools.cache
def command_called(name: str) -> Any:
    """Return a command with its options. It is made once: the tests fork processes that have it already."""
    module = _imported(f"bulkimg.cli.{COMMANDS[name][0]}")
    from bulkimg.cli.helpful import HelpfulCommand  # imported with the command: `bulkimg --help` does not need it

    one = typer.Typer(add_completion=False, rich_markup_mode=None)
    one.command(name, help=COMMANDS[name][1], cls=HelpfulCommand)(module.command)
    return typer.main.get_command(one)


def _imported(name: str) -> Any:
    """Import a module without garbage collection: its objects live as long as the process."""
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


# The parser's error. Its module is private in Typer.
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
        import platform
        import sqlite3

        from bulkimg.build import commit

        known = f", commit {found}" if (found := commit()) else ""
        screen.out(
            f"bulkimg {__version__} (zstack-bulkimg{known}), Python {platform.python_version()}, "
            f"SQLite {sqlite3.sqlite_version}"
        )
        raise typer.Exit


@app.callback()
def bulkimg(
    version: bool = typer.Option(
        False, "--version", "-V", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Bulk updates of cloud images: a manifest in, throttled concurrent PUTs, one honest outcome for every row.

    Start with: bulkimg doctor, then bulkimg check FILE, then bulkimg plan FILE. Options can also be set in the environment
    (BULKIMG_<OPTION>), a job file or a profile: bulkimg help jobs.
    """


def main() -> NoReturn:
    """Run the command line. An error is printed as one sentence with its exit code, never as a traceback."""
    screen.set_up(sys.argv[1:], os.environ)
    signal.signal(
        signal.SIGUSR1, signal.SIG_IGN
    )  # asks for the status of a sending run (cli/execute.py), and must not end another command
    try:
        code = app(prog_name="bulkimg", standalone_mode=False) or Exit.OK
    except KeyboardInterrupt:  # while a run is sending, execute.py handles the signals
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
    """Print what went wrong and return the exit code. Returns None for a bug of bulkimg."""
    sqlite3 = sys.modules.get("sqlite3")  # imported already if a ledger was opened; `--help` does not need it
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
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the flush at exit has a target
    return Exit.STORAGE


def _say_misuse(error: Any) -> None:
    """Print Typer's own message through `screen`: a file's name may hold characters that a terminal obeys."""
    if type(error).__name__ == "NoArgsIsHelpError":
        screen.note(error.format_message())
        return
    if error.ctx:
        screen.note(error.ctx.get_usage())
    from bulkimg.layers import REMOVED  # imported only now: `bulkimg --help` does not need the models

    removed = REMOVED.get(str(getattr(error, "option_name", "")).removeprefix("--"))
    screen.error(screen.one_line(f"{error.option_name} {removed}" if removed else error.format_message()))
    if error.ctx:
        screen.note(f"Try '{error.ctx.command_path} --help' for help.")
