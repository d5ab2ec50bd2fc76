"""`bulkimg apply`: execute a planned run."""

import re
from typing import Annotated

import typer

from bulkimg.campaign import Campaign
from bulkimg.cli import screen
from bulkimg.cli.execute import execute_and_exit
from bulkimg.cli.options import CLUSTER, GUARD, METRICS, PACE, REPORT, CommandContext, Flags, with_options
from bulkimg.cli.resume import Run, find_any
from bulkimg.engine.reopen import resume_run, stored_settings
from bulkimg.errors import UsageError

Checksum = Annotated[
    str | None,
    typer.Option(
        "--checksum",
        envvar="BULKIMG_CHECKSUM",
        metavar="HASH",
        help="Apply only if the plan's checksum starts with this.",
    ),
]


@with_options("profile", "ca_file", "action_key", *PACE, *GUARD, *CLUSTER, "note", *REPORT, *METRICS, "plugins", "yes")
def command(run: Run, flags: Flags, checksum: Checksum = None) -> None:
    """Every image is looked at once more just before it is changed; one that has changed since the plan is a conflict."""
    if checksum is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", checksum):
        raise UsageError(
            f"--checksum {checksum!r}: not a checksum; give the first 8 to 64 digits that bulkimg plan shows"
        )
    directory = find_any(run, flags)
    if isinstance(directory, Campaign):
        if checksum is not None:
            raise UsageError("--checksum is for one plan, and a campaign has several; apply its runs one by one")
        from bulkimg.cli.campaign import executing, opening  # imported only now: most runs have one target

        executing.execute_and_exit(opening.again(directory, flags, planned=True))
    asked = CommandContext(flags, stored=stored_settings(directory))
    asked.refuse_dry_run("apply")
    credentials = asked.credentials()
    with screen.prints_of_plugins(asked.settings.plugins):
        opened = resume_run(
            directory, asked.settings.model_copy(update={"runs_dir": directory.path.parent}), planned=True
        )
    execute_and_exit(opened, credentials, ask=checksum is None, checksum=checksum)
