"""Create campaigns: load a manifest once, and give each target's run its rows."""

import shutil
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from bulkimg.campaign import directory
from bulkimg.campaign.directory import Campaign, Member
from bulkimg.engine.create import (
    Parts,
    Tell,
    about_source,
    begin_run,
    check_results_size,
    check_source,
    check_start,
    opened,
    removing_if_refused,
    work_on,
)
from bulkimg.engine.overlap import entering
from bulkimg.engine.plugins import load_plugins
from bulkimg.engine.run import OpenRun
from bulkimg.engine.together import check_together, lock_order, own_results
from bulkimg.errors import RunRefused, UsageError
from bulkimg.ledger import Ledger, RunDirectory
from bulkimg.ledger.rundir import make_runs_dir, new_id
from bulkimg.ledger.store import NotBegun
from bulkimg.manifest import Manifest
from bulkimg.model import Row, iso_utc
from bulkimg.notify import Attendants
from bulkimg.planner import load_split
from bulkimg.settings import Settings
from bulkimg.values import LONGEST_RUN_ID, nearest, parse_run_id


def create_campaign(
    source: str,
    asked: Settings,
    targets: Mapping[str, Settings],
    job: str,
    now: Callable[[], float] = time.time,
    *,
    plan_only: bool = False,
    tell: Tell = lambda sentence: None,
) -> tuple[Campaign, dict[str, OpenRun]]:
    """Load the manifest into a new run for each target. Nothing is sent yet.

    `asked` are the settings of the job as a whole, `targets` those of each target that was chosen. Raises what
    `create_run` raises, before anything is made wherever it can be known.
    """
    check_together(targets)
    plugins = load_plugins(asked.plugins)
    manifest = Manifest(source, asked, alter=plugins.alter)
    path = str(Path(source).absolute()) if source != "-" else ""
    check_source(source)
    own = {name: own_settings(name, settings, job) for name, settings in targets.items()}
    attendants = {name: check_start(source, each, plan_only=plan_only) for name, each in own.items()}
    with opened(manifest):
        at = now()
        place = begin_campaign(asked, at, own)
        about = about_source(manifest, path)
        made: dict[str, OpenRun] = {}
        try:
            with removing_if_refused(made.values()):
                for name in lock_order(own):
                    named = own[name].model_copy(update={"run_id": member_id(place.path, name)})
                    work = None if plan_only else work_on(named, path)
                    parts = Parts(attendants[name], plugins)
                    made[name] = begin_run(named, parts, lambda: at, work, tell, **about, plan_only=plan_only)
                runs = {name: made[name] for name in own}
                _load(runs, manifest, asked)
            return tie(place.path, runs, at, kind="run", job=job, manifest=source), runs
        except (UsageError, RunRefused):  # its runs are removed already
            drop(place)
            raise
        except BaseException:
            discard(place, made.values())
            raise


def load_offline(source: str, asked: Settings, names: Collection[str]) -> list[OpenRun]:
    """Load the manifest into a run for each target, to be checked in a temporary place. Nothing can be sent."""
    plugins = load_plugins(asked.plugins)
    manifest = Manifest(source, asked, alter=plugins.alter)
    check_source(source)
    with opened(manifest):
        parts = Parts(Attendants(), plugins)
        runs = {
            name: begin_run(asked.model_copy(update={"run_id": name}), parts, time.time, None, plan_only=True)
            for name in names
        }
        with removing_if_refused(runs.values()):
            _load(runs, manifest, asked)
    return list(runs.values())


def chosen(settings: Settings) -> tuple[str, ...]:
    """Return the targets that --targets selects, in the order of the job file. Raises UsageError for an unknown one."""
    for name in settings.targets:
        if name not in settings.target_names:
            raise UsageError(f"--targets {name}: the job has no such target{nearest(name, settings.target_names)}")
    return tuple(name for name in settings.target_names if not settings.targets or name in settings.targets)


def _load(runs: Mapping[str, OpenRun], manifest: Manifest, asked: Settings) -> None:
    """Give each run its rows. Raises UsageError if an option turns out to be wrong."""
    load_split([run.ledger for run in runs.values()], manifest, _homes(asked, list(runs)))
    for run in runs.values():
        check_results_size(run.ledger, run.settings)
    for run in runs.values():
        run.ledger.set_meta(state="ready")


def begin_campaign(settings: Settings, now: float, names: Collection[str]) -> RunDirectory:
    """Make and lock the directory of a campaign, named by --run-id or by the time. `tie` completes it once its runs exist.

    `names` are its targets. Raises UsageError if the id leaves no room for their names, RunRefused if another process is
    making or executing a campaign of that name.
    """
    path = settings.runs_dir / (settings.run_id or new_id(now))
    for name in names:
        try:
            parse_run_id(member_id(path, name))
        except ValueError:
            room = LONGEST_RUN_ID - max(map(len, names)) - 1
            raise UsageError(
                f"--run-id {path.name}: is too long to add the name of a target; use up to {room} characters"
            ) from None
    make_runs_dir(settings.runs_dir)
    with entering(settings.runs_dir):
        _free_name(path, names)
        return directory.hold(directory.make_directory(settings.runs_dir, path.name))


def resumable(settings: Settings, names: Collection[str]) -> Campaign | None:
    """Return the campaign that --run-id names, or None if a new one may have the name. `names` are the new one's targets.

    A campaign of which nothing was planned or sent loses its name to the new one. Raises RunRefused if a process is
    making or executing it.
    """
    if not settings.run_id or not (settings.runs_dir / settings.run_id).is_dir():
        return None
    with entering(settings.runs_dir):
        _free_name(settings.runs_dir / settings.run_id, names)
    return directory.named_campaign(settings.runs_dir, settings.run_id)


def _free_name(path: Path, names: Collection[str]) -> None:
    """Remove a campaign of which nothing was planned or sent, so that a new one may have its name.

    Its process was killed while it was being made, its manifest was refused, or no server was reached. Raises RunRefused
    if a process holds it or one of its runs. A campaign whose runs may have sent something stays.
    """
    if not path.is_dir():
        return
    known = directory.named_campaign(path.parent, path.name)
    if not known and any(path.iterdir()):
        return  # something else; make_directory refuses the name
    ids = [member.run_id for member in known.members] if known else [member_id(path, name) for name in names]
    found = [RunDirectory(path.parent / run_id) for run_id in ids if (path.parent / run_id).is_dir()]
    lock = directory.hold(path)
    try:
        if all(map(_sent_nothing, found)):
            for run in found:
                run.hold()
                try:
                    run.remove()
                finally:
                    run.release()
            shutil.rmtree(path)
    finally:
        lock.release()


def _sent_nothing(run: RunDirectory) -> bool:
    """Return whether nothing was planned or sent of a run. Raises RunRefused if a process holds it."""
    run.hold()
    try:
        if run.is_begun_only:
            return True
        try:
            ledger = Ledger.open(run.ledger, read_only=True)
        except NotBegun:
            return True
        try:
            return ledger.meta("state", "reading") in {"reading", "refused", "ready"}
        finally:
            ledger.close()
    finally:
        run.release()


def member_id(path: Path, target: str) -> str:
    """Return the id of a target's run."""
    return f"{path.name}.{target}"


def tie(path: Path, runs: Mapping[str, OpenRun], now: float, **facts: str | None) -> Campaign:
    """Write campaign.json: from now on the runs are one campaign. Nothing was sent before."""
    for name, run in runs.items():
        run.ledger.set_meta(campaign=path.name, target_name=name)
    members = [Member(name, run.directory.run_id) for name, run in runs.items()]
    campaign = Campaign(path, members, {"of": None, **facts, "created_at": iso_utc(now)})
    directory.write(campaign)
    return campaign


def discard(place: RunDirectory, runs: Collection[OpenRun]) -> None:
    """Remove new runs, and the directory of the campaign that they were made for. Nothing of them was planned or sent."""
    for run in runs:
        with suppress(OSError):
            run.ledger.close()
            run.directory.remove()
        run.directory.release()
    drop(place)


def drop(place: RunDirectory) -> None:
    """Remove the directory of a campaign that got no runs."""
    with suppress(OSError):
        place.path.rmdir()
    place.release()


def own_settings(name: str, settings: Settings, job: str) -> Settings:
    """Return the settings of one target's run: a job name and a result file of its own.

    A job without a name is called like its file, so that runs of another job are not taken for its own.
    """
    own: dict[str, object] = {"job_name": f"{settings.job_name or Path(job).stem}.{name}"}
    if settings.results:
        own["results"] = own_results(name, settings.results)
    return settings.model_copy(update=own)


def _homes(asked: Settings, names: list[str]) -> Callable[[Row], Collection[int]]:
    """Return which runs a row is for. A row with a problem and no target is in the first run's results as invalid."""
    everywhere = range(len(names))
    places = {name: (at,) for at, name in enumerate(names)}
    if asked.every_target:
        return lambda row: everywhere
    return lambda row: places.get(row.target, ()) if row.target else (0,)
