"""`bulkimg apply`: carry a planned run out."""

import re
from typing import Annotated

import typer

from bulkimg.cli.carry import carry
from bulkimg.cli.options import GUARD, PACE, REPORT, Asked, Flags, takes
from bulkimg.cli.resume import Run, find
from bulkimg.engine import reopen, stored_settings
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


@takes("profile", "ca_file", "action_key", *PACE, *GUARD, "note", *REPORT, "yes")
def command(run: Run, flags: Flags, checksum: Checksum = None) -> None:
    """Every image is looked at once more just before it is changed; one that has changed since the plan is a conflict."""
    if checksum is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", checksum):
        raise UsageError(
            f"--checksum {checksum!r}: not a checksum; give the first 8 to 64 digits that bulkimg plan shows"
        )
    directory = find(run, flags)
    asked = Asked(flags, stored=stored_settings(directory))
    asked.refuse_dry_run("apply")
    credentials = asked.credentials()
    opened = reopen(directory, asked.settings.model_copy(update={"runs_dir": directory.path.parent}), planned=True)
    carry(opened, credentials, ask=checksum is None, checksum=checksum)
