"""Find how the job's last finished run ended, to tell whether this one is a recovery."""

from pathlib import Path
from typing import NamedTuple

from bulkimg.errors import BulkimgError, Exit
from bulkimg.ledger import Ledger, RunDirectory, list_runs


class End(NamedTuple):
    """An end of a run: seconds since the epoch, and the exit code."""

    at: float
    exit_code: int


def own_end(ledger: Ledger) -> End | None:
    """Return how an earlier process ended this ledger's run, or None."""
    code = Exit.MANIFEST if ledger.meta("state") == "refused" else ledger.meta("exit_code")
    if code is None or ledger.meta("plan_only") or ledger.meta("undo_of"):
        return None
    return End(ledger.meta("ended_at") or ledger.meta("created_at") or 0.0, int(code))


def last_end(ledger: Ledger, runs_dir: Path, run_id: str, own: End | None) -> int | None:
    """Return the exit code of the last finished run of the same job, or None if there is none.

    `own` is an earlier end of this run. Plans, undos and living runs do not count. Runs without a job's name are told by
    their manifest.
    """
    job = _job_of(ledger)
    for other in reversed(list_runs(runs_dir)):
        if other.run_id != run_id and (found := _end_of(other, job)):
            return max(found, own or found).exit_code
    return own.exit_code if own else None


def _end_of(directory: RunDirectory, job: tuple[str, str]) -> End | None:
    try:
        if directory.is_held():
            return None
        ledger = Ledger.open(directory.ledger, read_only=True)
    except (BulkimgError, OSError):
        return None
    try:
        return own_end(ledger) if _job_of(ledger) == job else None
    finally:
        ledger.close()


def _job_of(ledger: Ledger) -> tuple[str, str]:
    name = ledger.meta("settings", {}).get("job_name", "")
    return (name, "") if name else ("", ledger.meta("manifest_path") or "")
