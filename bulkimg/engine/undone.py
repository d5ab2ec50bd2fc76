"""Which run `undo last` means, and whether it has been taken back already."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bulkimg.errors import BulkimgError, UsageError
from bulkimg.ledger import Ledger, RunDirectory, list_runs, tally
from bulkimg.model import iso_utc

_BEGUN = frozenset({"running", "stopped", "done"})  # states of a run that may have changed something


@dataclass(frozen=True, slots=True)
class _Known:
    """What has to be known of a run to choose among them."""

    directory: RunDirectory
    state: str
    undo_of: str  # "" for a run that is no undo
    is_partial: bool  # an undo of some rows
    changed: int  # rows whose image it changed, or may have changed
    fine: int


def last_to_undo(runs_dir: Path) -> RunDirectory:
    """The newest run that is neither an undo nor a plan that was never applied. UsageError where there is none."""
    for run in _newest_first(runs_dir):
        if run.state in _BEGUN and not run.undo_of:
            return run.directory
    raise UsageError(f"there is no run in {runs_dir} that undo could take back; --runs-dir names another place")


def already_undone(runs_dir: Path, directory: RunDirectory) -> str:
    """Which run has taken this one back and when, in one sentence; "" where none has."""
    for run in _newest_first(runs_dir):
        if run.undo_of != directory.run_id or run.is_partial or run.state not in _BEGUN:
            continue
        when = iso_utc(run.directory.begun_at)[:16].replace("T", " ")
        if run.state != "done":
            again = f"bulkimg resume {run.directory.run_id}"
            return f"run {directory.run_id} is being undone by run {run.directory.run_id} since {when} UTC; {again} ends that"
        if run.fine:
            return f"run {directory.run_id} has been undone by run {run.directory.run_id} at {when} UTC; nothing was planned"
    return ""


def last_that_changed(runs_dir: Path) -> RunDirectory | None:
    """The newest run, no undo, that changed an image."""
    found = (run.directory for run in _newest_first(runs_dir) if run.changed and not run.undo_of)
    return next(found, None)


def _newest_first(runs_dir: Path) -> Iterator[_Known]:
    for directory in reversed(list_runs(runs_dir)):
        try:
            ledger = Ledger.open(directory.ledger, read_only=True)
        except BulkimgError:  # `bulkimg runs` names it
            continue
        try:
            counts = tally.counts(ledger)
            yield _Known(
                directory,
                ledger.meta("state", "reading"),
                ledger.meta("undo_of") or "",
                bool(ledger.meta("is_partial")),
                sum(counts[status] for status in ("updated", "drifted", "unknown")),
                counts["updated"] + counts["unchanged"],
            )
        finally:
            ledger.close()
