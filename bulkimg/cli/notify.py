"""`bulkimg notify`: send a test message to every address of a job."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, user_path, with_options
from bulkimg.engine.create import attendants_of
from bulkimg.errors import Exit, UsageError
from bulkimg.process import leave_no_core

Job = Annotated[str, typer.Argument(metavar="JOB", help="A job file (.toml).")]
Test = Annotated[bool, typer.Option("--test", help="Send a test message to every address.")]


@with_options("profile", *SPEECH)
def command(job: Job, flags: Flags, test: Test = False) -> None:
    """One line for each address: sent, or why not. Runs nothing and changes nothing."""
    if not job.lower().endswith(".toml"):
        raise UsageError(f"{job}: is not a job file, whose name ends in .toml")
    asked = CommandContext(flags, job=Path(user_path(job)))
    if not asked.settings.notify:
        raise UsageError(f"{job}: has no [[notify]], and neither has its profile; see bulkimg help notifications")
    if not test:
        raise UsageError(f"bulkimg notify only sends tests; add --test: bulkimg notify --test {job}")
    leave_no_core()
    attendants = attendants_of(asked.settings.model_copy(update={"hooks": ()}))
    ended = asyncio.run(attendants.test())
    exit_code = Exit.SOME_ROWS_NOT if any(why for _, why in ended) else Exit.OK
    if asked.settings.json_summary:
        addresses = [{"name": name, "sent": not why, "message": why} for name, why in ended]
        screen.out_json({"schema": 1, "exit_code": int(exit_code), "addresses": addresses})
    else:
        for name, why in ended:
            screen.out(screen.one_line(f"{name}: {f'not sent: {why}' if why else 'sent'}"))
    raise typer.Exit(exit_code)
