"""`bulkimg retry`: a new run of the rows that an earlier one left failed, unknown or unprocessed."""

from bulkimg.cli.carry import carry, nothing_to_do
from bulkimg.cli.options import PACE, PLAN, REPORT, Asked, Flags, takes
from bulkimg.cli.resume import Run, find
from bulkimg.engine import NothingToDo, begin_retry, named_run, reopen, stored_settings


@takes("profile", "ca_file", "action_key", *PACE, *PLAN, *REPORT, "yes")
def command(run: Run, flags: Flags) -> None:
    """Its results hold these rows only, under their old line numbers."""
    directory = find(run, flags)
    stored = {key: value for key, value in stored_settings(directory).items() if key != "results"}
    asked = Asked(flags, stored=stored)
    asked.refuse_dry_run("retry")
    credentials = asked.credentials()
    try:
        settings = asked.settings.model_copy(update={"runs_dir": directory.path.parent})
        named = named_run(settings, retry_of=directory.run_id)
        opened = reopen(named, settings) if named else begin_retry(directory, settings)
    except NothingToDo as nothing:
        nothing_to_do(nothing)
        return
    carry(opened, credentials)
