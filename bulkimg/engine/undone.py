"""Find the run that `undo last` means, and whether it was undone already."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bulkimg.errors import BulkimgError, Exit, RunRefused, UsageError
from bulkimg.ledger import Ledger, RunDirectory, list_runs, stats
from bulkimg.model import iso_utc
from bulkimg.words import count

_BEGUN = frozenset({"running", "stopped", "done"})  # states of a run that may have changed something


@dataclass(frozen=True, slots=True)
class _Known:
    """What is needed of a run to choose among them."""

    directory: RunDirectory
    state: str
    undo_of: str  # "" for a run that is no undo
    is_partial: bool  # an undo of some rows only
    changed: int  # rows whose image it changed or may have changed
    fine: int
    rows: int


def last_to_undo(runs_dir: Path) -> RunDirectory:
    """Return the newest run that is neither an undo nor a plan without an apply. Raises UsageError if there is none."""
    for run in _newest_first(runs_dir):
        if run.state in _BEGUN and not run.undo_of:
            return run.directory
    raise UsageError(f"no run in {runs_dir} can be undone; name the run, or give another --runs-dir")


def already_undone(runs_dir: Path, directory: RunDirectory) -> tuple[str, Exit] | None:
    """Return the message and exit code if a run has undone this one already, else None.

    An undo that was itself undone does not count, nor does an undo of some rows. Raises RunRefused if an undo has not
    ended.
    """
    runs = list(_newest_first(runs_dir))
    for run in runs:
        if run.undo_of != directory.run_id or run.is_partial or run.state not in _BEGUN:
            continue
        when = iso_utc(run.directory.begun_at)[:16].replace("T", " ")
        if run.state != "done":
            raise RunRefused(
                f"run {run.directory.run_id}, started {when} UTC, is already undoing run {directory.run_id} and has not ended; "
                f"finish it with bulkimg resume {run.directory.words}"
            )
        if run.fine and not _is_undone(run, runs):
            rest = f", except {count(run.rows - run.fine, 'row')}" if run.rows > run.fine else ""
            by = f"run {directory.run_id} was already undone by run {run.directory.run_id} at {when} UTC{rest}"
            return f"{by}; nothing to do", Exit.SOME_ROWS_NOT if rest else Exit.OK
    return None


def _is_undone(run: _Known, runs: list[_Known]) -> bool:
    """Return whether a later run has undone this one and was not undone itself."""
    undoing = [other for other in runs if other.undo_of == run.directory.run_id and not other.is_partial]
    return any(other.state == "done" and other.fine and not _is_undone(other, runs) for other in undoing)


def last_that_changed(runs_dir: Path) -> RunDirectory | None:
    """Return the newest run that changed an image and is no undo."""
    found = (run.directory for run in _newest_first(runs_dir) if run.changed and not run.undo_of)
    return next(found, None)


def _newest_first(runs_dir: Path) -> Iterator[_Known]:
    for directory in reversed(list_runs(runs_dir)):
        try:
            ledger = Ledger.open(directory.ledger, read_only=True)
        except BulkimgError:  # `bulkimg runs` names it
            continue
        try:
            counts = stats.counts(ledger)
            yield _Known(
                directory,
                ledger.meta("state", "reading"),
                ledger.meta("undo_of") or "",
                bool(ledger.meta("is_partial")),
                sum(counts[status] for status in ("updated", "drifted", "unknown")),
                counts["updated"] + counts["unchanged"],
                sum(counts.values()),
            )
        finally:
            ledger.close()
