"""Create a campaign from an earlier one: an undo or a retry of each of its runs."""

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import typer

from bulkimg.campaign import Campaign, create
from bulkimg.campaign.totals import worst
from bulkimg.cli import screen
from bulkimg.cli.campaign.opening import Opened, again, named, placed, stored
from bulkimg.cli.campaign.targets import credentials_of
from bulkimg.cli.execute import nothing_to_do
from bulkimg.cli.options import CommandContext, Flags
from bulkimg.engine.anew import NothingToDo
from bulkimg.engine.run import OpenRun
from bulkimg.engine.together import lock_order
from bulkimg.errors import Exit, StorageError
from bulkimg.ledger import RunDirectory
from bulkimg.settings import Settings

Create = Callable[[RunDirectory, Settings], OpenRun]


def anew(known: Campaign, flags: Flags, kind: str, make: Create, not_taken_over: Collection[str]) -> Opened | None:
    """Create a campaign from the runs of an earlier one, or reopen the one that --run-id names.

    Returns None after a message if no run left anything to do.
    """
    asked, now = CommandContext(flags).settings, time.time()
    place = asked.model_copy(update={"runs_dir": known.path.parent})
    if earlier := named(place, known.runs(), kind, known.campaign_id):
        screen.note(f"resuming campaign {earlier.campaign_id}")
        return again(earlier, flags)
    contexts, errors = stored(known, flags, kind, not_taken_over)
    opened = Opened(known, asked, {}, credentials_of(contexts), errors)
    lock = create.begin_campaign(place, now, known.runs())
    runs: dict[str, OpenRun] = {}
    try:
        said = _make(
            known, lock.path, {name: context.settings for name, context in contexts.items()}, make, opened, runs
        )
        if not runs and errors:
            raise next(iter(errors.values()))
        if not runs:
            create.drop(lock)
            _say_nothing_to_do(known, said)
            return None
        opened.runs |= {name: runs[name] for name in contexts if name in runs}
        facts = {"job": known.facts.get("job"), "manifest": known.facts.get("manifest")}
        opened.campaign = create.tie(lock.path, opened.runs, now, kind=kind, of=known.campaign_id, **facts)
    except BaseException:
        create.discard(lock, runs.values())
        raise
    for name, nothing in said.items():
        screen.note(screen.one_line(f"{name}: {nothing}"))
    return opened


def _make(
    known: Campaign,
    path: Path,
    settings: Mapping[str, Settings],
    make: Create,
    opened: Opened,
    runs: dict[str, OpenRun],
) -> dict[str, NothingToDo]:
    """Make a run from each run of a campaign. Returns those that left nothing to do, by target."""
    directories, said = known.runs(), {}
    for name in lock_order(settings):
        own = create.own_settings(name, placed(settings[name], directories[name]), "").model_copy(
            update={"run_id": create.member_id(path, name), "job_name": settings[name].job_name}
        )
        try:
            runs[name] = make(directories[name], own)
        except NothingToDo as nothing:
            said[name] = nothing
        except StorageError as error:
            opened.errors[name] = error
    return said


def _say_nothing_to_do(known: Campaign, said: Mapping[str, NothingToDo]) -> None:
    """Say why there is no new campaign. Exits with the worst exit code if rows were left before."""
    code = Exit(worst(nothing.exit_code for nothing in said.values()))
    texts = [str(said[member.target]) for member in known.members if member.target in said]
    nothing_to_do("; ".join(texts) or f"campaign {known.campaign_id} has no runs any more", code)
    if code:
        raise typer.Exit(code)
