"""`bulkimg resume`: continue a run from its ledger. The manifest is not needed."""

from pathlib import Path
from typing import Annotated

import typer

from bulkimg.campaign import Campaign, campaign_of, find_campaign
from bulkimg.cli import complete, screen
from bulkimg.cli.execute import execute_and_exit
from bulkimg.cli.options import (
    CLUSTER,
    GUARD,
    METRICS,
    PACE,
    REPORT,
    SPEECH,
    CommandContext,
    Flags,
    user_path,
    with_options,
)
from bulkimg.engine.reopen import edited_manifest, resume_run, stored_settings
from bulkimg.errors import UsageError
from bulkimg.ledger import RunDirectory, find_run

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's id, the beginning of one, its directory, or last.", autocompletion=complete.runs
    ),
]


def find(name: str, flags: Flags) -> RunDirectory:
    """Return the run that RUN names, in the runs directory of flags and environment.

    Raises UsageError if that is a campaign of several runs.
    """
    if name != "last" and (known := find_campaign(runs_dir(flags), _expanded(name))):
        runs = ", ".join(run.run_id for run in known.runs().values())
        raise UsageError(f"{known.campaign_id} is a campaign of several runs; name the one that you mean: {runs}")
    found = find_run(runs_dir(flags), _expanded(name))
    if name == "last" and (several := campaign_of(found)):
        runs = ", ".join(member.run_id for member in several.members)
        raise UsageError(f"the last run is one of campaign {several.campaign_id}; name the one that you mean: {runs}")
    return found


def find_any(name: str, flags: Flags) -> RunDirectory | Campaign:
    """Return the run or the campaign that RUN names."""
    return find_campaign(runs_dir(flags), _expanded(name)) or find(name, flags)


def _expanded(name: str) -> str:
    return str(user_path(name)) if name.startswith("~") else name


def runs_dir(flags: Flags) -> Path:
    """Return the runs directory of flags and environment."""
    return CommandContext({key: flags[key] for key in ("runs_dir", *SPEECH) if key in flags}).settings.runs_dir


@with_options("profile", "ca_file", "action_key", *PACE, *GUARD, *CLUSTER, "note", *REPORT, *METRICS, "plugins", "yes")
def command(run: Run, flags: Flags) -> None:
    """Rows of unknown fate are asked about first; at most they are sent once more."""
    found = find_any(run, flags)
    if isinstance(found, Campaign):
        from bulkimg.cli.campaign import executing, opening  # imported only now: most runs have one target

        screen.note(f"resuming campaign {found.campaign_id}")
        executing.execute_and_exit(opening.again(found, flags))
    directory = found
    asked = CommandContext(flags, stored=stored_settings(directory))
    asked.refuse_dry_run("resume")
    credentials = asked.credentials()
    with screen.prints_of_plugins(asked.settings.plugins):
        opened = resume_run(directory, asked.settings.model_copy(update={"runs_dir": directory.path.parent}))
    is_done = opened.ledger.meta("state") == "done"
    done = f"run {directory.run_id} is finished: nothing to resume"
    screen.note(done if is_done else f"resuming run {directory.run_id}")
    if edited := edited_manifest(directory):
        screen.note(
            screen.one_line(f"{edited} has changed since the run started; resuming with the run's own copy of the rows")
        )
    execute_and_exit(opened, credentials)
