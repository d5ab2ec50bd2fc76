"""`bulkimg retry`: a new run of the rows that an earlier one left failed, unknown or unprocessed."""

from bulkimg.campaign import Campaign
from bulkimg.cli import screen
from bulkimg.cli.execute import execute_and_exit, nothing_to_do
from bulkimg.cli.options import CLUSTER, METRICS, PACE, PLAN, REPORT, CommandContext, Flags, with_options
from bulkimg.cli.resume import Run, find_any
from bulkimg.engine.anew import NothingToDo, create_retry
from bulkimg.engine.reopen import named_run, resume_run, stored_settings


@with_options("profile", "ca_file", "action_key", *PACE, *PLAN, *CLUSTER, *REPORT, *METRICS, "plugins", "yes")
def command(run: Run, flags: Flags) -> None:
    """Its results hold these rows only, under their old line numbers."""
    directory = find_any(run, flags)
    if isinstance(directory, Campaign):
        from bulkimg.cli.campaign import anew, executing  # imported only now: most runs have one target

        if several := anew.anew(directory, flags, "retry", create_retry, ("results",)):
            executing.execute_and_exit(several)
        return
    stored = {key: value for key, value in stored_settings(directory).items() if key not in ("results", "shard")}
    asked = CommandContext(flags, stored=stored)
    asked.refuse_dry_run("retry")
    credentials = asked.credentials()
    try:
        settings = asked.settings.model_copy(update={"runs_dir": directory.path.parent})
        named = named_run(settings, retry_of=directory.run_id)
        if named:
            own = CommandContext(flags, stored=stored_settings(named)).settings
            settings = own.model_copy(update={"runs_dir": directory.path.parent})
        with screen.prints_of_plugins(settings.plugins):
            opened = resume_run(named, settings) if named else create_retry(directory, settings)
    except NothingToDo as nothing:
        nothing_to_do(nothing)
        return
    execute_and_exit(opened, credentials)
