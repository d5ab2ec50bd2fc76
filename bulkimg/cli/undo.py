"""This file is `bulkimg undo`: a new run that puts back what an earlier one changed."""

from typing import Annotated

import typer

from bulkimg.cli import screen
from bulkimg.cli.carry import carry, carry_out
from bulkimg.cli.options import PACE, REPORT, Asked, Flags, takes
from bulkimg.cli.plan import show_plan
from bulkimg.cli.resume import Run, find
from bulkimg.engine import NothingToDo, begin_undo, rows_left, stored_settings

Where = Annotated[
    list[str],
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="Only these rows: a column of the manifest, uuid, line or status. Repeatable.",
    ),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", envvar="BULKIMG_PLAN", help="Stop at the plan; `bulkimg apply last` sends it.")
]
_OF_THE_RUN = ("profile", "ca_file", "action_key", *PACE, "max_changes", "canary", "note", *REPORT, "yes")
_NOT_TAKEN_OVER = ("results", "max_changes", "canary", "note", "where", "skip_rows", "max_rows")


@takes(*_OF_THE_RUN)
def command(run: Run, flags: Flags, where: Where = [], plan: PlanOnly = False) -> None:  # noqa: B006 - Typer never changes it
    """Only where the present value is still what the run wrote; anything else is a conflict and stays as it is."""
    directory = find(run, flags)
    stored = {key: value for key, value in stored_settings(directory).items() if key not in _NOT_TAKEN_OVER}
    asked = Asked(flags, stored=stored)
    asked.refuse_dry_run("undo")
    credentials = asked.credentials()
    if left := rows_left(directory):
        screen.note(
            f"run {directory.run_id} has not ended, {left:,} of its rows are open: what it may have sent is decided by "
            "reading, and `bulkimg resume` would still send the rest"
        )
    try:
        opened = begin_undo(directory, asked.settings.model_copy(update={"runs_dir": directory.path.parent}), where)
    except NothingToDo as nothing:
        screen.note(str(nothing))
        return
    if not plan:
        carry(opened, credentials)
    summary = carry_out(opened, credentials, plan_only=True)
    show_plan(summary, opened)
    raise typer.Exit(summary.exit_code)
