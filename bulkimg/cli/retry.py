"""This file is `bulkimg retry`: a new run of the rows that an earlier one left failed, unknown or unprocessed."""

import typer

from bulkimg.cli import screen
from bulkimg.cli.carry import carry
from bulkimg.cli.options import PACE, REPORT, Asked, Flags, takes
from bulkimg.cli.resume import Run, find
from bulkimg.engine import begin_retry, stored_settings
from bulkimg.errors import Exit
from bulkimg.ledger import tally


@takes("profile", "ca_file", *PACE, *REPORT)
def command(run: Run, flags: Flags) -> None:
    """Its results hold these rows only, under their old line numbers."""
    directory = find(run, flags)
    stored = {key: value for key, value in stored_settings(directory).items() if key != "results"}
    asked = Asked(flags, stored=stored)
    credentials = asked.credentials()
    opened = begin_retry(directory, asked.settings.model_copy(update={"runs_dir": directory.path.parent}))
    if not tally.rows_to_do(opened.ledger):
        opened.close()
        screen.note(f"run {directory.run_id} left no row to try again")
        raise typer.Exit(Exit.OK)
    carry(opened, credentials)
