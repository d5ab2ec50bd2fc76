"""Choose the old runs that may be removed, and remove them: `[job] keep` after each run, and `bulkimg runs --prune`."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bulkimg.engine.overlap import work_of
from bulkimg.engine.run import OpenRun
from bulkimg.errors import BulkimgError, Exit
from bulkimg.ledger import Ledger, RunDirectory, insight, list_runs, stats
from bulkimg.ledger.rundir import CAMPAIGN, clear_remains
from bulkimg.model import Observer, ReportFailed
from bulkimg.values import Keep

FINISHED = frozenset({"done", "refused", "abandoned"})  # nothing of these can be resumed
_DAY = 86400.0


class Known(NamedTuple):
    """What is needed of a run to decide whether it may be removed."""

    directory: RunDirectory
    job: tuple[str, str]  # name and target; the name is "" for a run of a manifest
    state: str
    is_held: bool
    is_success: bool
    needs: frozenset[str]  # the runs that it undoes or retries

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED and not self.is_held


def removable(runs: Sequence[Known], chosen: Collection[str], keep: Keep, now: float) -> list[RunDirectory]:
    """Return the chosen runs (by id) that may be removed, newest first. `runs` are all runs, newest first.

    Those stay that can be resumed, are held, are the last success of their job, or are named by an unfinished run that
    undoes or retries them.
    """
    needed = frozenset[str]().union(*(run.needs for run in runs if not run.is_finished))
    successes: dict[tuple[str, str], str] = {}
    for run in runs:
        if run.is_success and run.job[0]:
            successes.setdefault(run.job, run.directory.run_id)
    needed |= frozenset(successes.values())
    finished = [run for run in runs if run.directory.run_id in chosen and run.state in FINISHED]
    return [
        run.directory
        for run in finished[keep.last :]
        if not run.is_held and run.directory.run_id not in needed and run.directory.begun_at <= now - keep.days * _DAY
    ]


def old_runs(runs_dir: Path, chosen: Callable[[Known], bool], keep: Keep, now: float) -> list[RunDirectory]:
    """Return the chosen runs of a runs directory that may be removed: `removable`, without those with unknown rows."""
    runs = list(known_runs(runs_dir))
    ids = {run.directory.run_id for run in runs if chosen(run)}
    return [directory for directory in removable(runs, ids, keep, now) if not _has_unknown(directory)]


def _has_unknown(directory: RunDirectory) -> bool:
    """Return whether the fate of a row is unknown. Counting reads every row, so only few runs are counted."""
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        return stats.counts(ledger)["unknown"] > 0
    finally:
        ledger.close()


def known_runs(runs_dir: Path) -> Iterator[Known]:
    """Yield every readable run, newest first. A link is no run of this directory."""
    for directory in reversed(list_runs(runs_dir)):
        if not directory.path.is_symlink() and (found := _known(directory)):
            yield found


def _known(directory: RunDirectory, *, is_ours: bool = False) -> Known | None:
    """Describe a run. `is_ours`: this process holds it in order to remove it."""
    try:
        is_held = directory.is_held() and not is_ours
        ledger = Ledger.open(directory.ledger, read_only=True)
    except (BulkimgError, OSError):
        return None
    try:
        meta = ledger.meta
        work = work_of(ledger)
        is_run = not (meta("undo_of") or meta("plan_only"))
        state = insight.state(ledger, held=is_held)
        return Known(
            directory,
            (work.job, work.target),
            state,
            is_held,
            is_run and state == "done" and meta("exit_code") == Exit.OK,
            frozenset(name for name in (meta("undo_of"), meta("retry_of")) if name),
        )
    except sqlite3.Error:  # damaged: `bulkimg runs` names it
        return None
    finally:
        ledger.close()


def remove(directory: RunDirectory) -> str:
    """Remove a run that no process holds. Returns "" or why it was left."""
    try:
        if directory.path.is_symlink():
            return f"{directory.path}: is a link; remove it yourself"
        directory.hold()
    except BulkimgError as error:
        return str(error)
    except OSError as error:
        return f"{directory.path}: cannot be removed: {error.strerror}"
    try:
        found = _known(directory, is_ours=True)
        if found is None or not found.is_finished:  # resumed since it was chosen
            return f"{directory.path}: is not finished any more, so it was left"
        directory.remove()
        _drop_empty_campaign(directory)
        return ""
    except OSError as error:
        return f"{directory.path}: cannot be removed: {error.strerror}"
    finally:
        directory.release()


def _drop_empty_campaign(removed: RunDirectory) -> None:
    """Remove the directory of a campaign when the last of its runs was removed. Raises OSError."""
    name, dot, _ = removed.run_id.rpartition(".")
    runs_dir = removed.path.parent
    place = runs_dir / name
    if not dot or place.is_symlink() or not (place / CAMPAIGN).is_file():
        return
    if not any(run.run_id.rpartition(".")[0] == name for run in list_runs(runs_dir)):
        shutil.rmtree(place)


def keep_few(run: OpenRun, observe: Observer, now: float | None = None) -> None:
    """Remove the old runs of this run's job, as `[job] keep` says. What fails is said and changes nothing else."""
    keep, job = run.settings.keep, run.settings.job_name
    if keep is None or not job:
        return
    runs_dir = run.directory.path.parent
    try:
        clear_remains(runs_dir)
        ours = (job, work_of(run.ledger).target)
        for directory in old_runs(runs_dir, lambda one: one.job == ours, keep, time.time() if now is None else now):
            if why := remove(directory):
                observe(ReportFailed("keep", why))
    except OSError as error:
        observe(ReportFailed("keep", f"{error.filename or runs_dir}: {error.strerror}"))
    except BulkimgError as error:
        observe(ReportFailed("keep", str(error)))
