"""Refuse a second living run of the same manifest or job against one target: it would send the same changes twice."""

from pathlib import Path
from typing import NamedTuple

from bulkimg.errors import BulkimgError, RunRefused
from bulkimg.ledger import Ledger, RunDirectory, list_runs
from bulkimg.model import iso_utc

_UNDER_WAY = frozenset({"planned", "running", "stopped"})  # states in which a living run has passed this check


class Work(NamedTuple):
    """What a run works on. "" stands for a part that it does not have or does not know yet."""

    target: str
    manifest: str  # absolute path
    job: str
    sha256: str

    def is_like(self, other: "Work") -> bool:
        """Return whether both would change the same images."""
        same = zip(self[1:], other[1:], strict=True)
        return self.target == other.target and any(mine and mine == theirs for mine, theirs in same)


def work_of(ledger: Ledger) -> Work:
    """Return the work of this ledger's run."""
    settings = ledger.meta("settings", {})
    target = f"{settings.get('endpoint')}{settings.get('base_path')}"
    return Work(target, ledger.meta("manifest_path") or "", settings.get("job_name", ""), ledger.meta("sha256") or "")


def refuse_overlap(runs_dir: Path, work: Work, own: RunDirectory | None = None) -> None:
    """Raise RunRefused if a living run in the same runs directory does the same work.

    `own` is the run that asks, if it exists already. Of two runs that begin at the same time, the older one continues.
    """
    for other in list_runs(runs_dir):
        if (own and other.path.name == own.path.name) or not other.is_held():
            continue
        if (found := _described(other, work, own)) is not None:
            raise RunRefused(
                f"run {other.run_id} of the same manifest or job is under way against {work.target} (since {found}); wait "
                f"until it ends: bulkimg status {other.words}"
            )


def _described(other: RunDirectory, work: Work, own: RunDirectory | None) -> str | None:
    """Return when the other run began if it does the same work, else None."""
    try:
        ledger = Ledger.open(other.ledger, read_only=True)
    except BulkimgError:  # just created or damaged, so it does not send
        return None
    try:
        if ledger.meta("plan_only") or not work.is_like(work_of(ledger)):
            return None
        older = own is None or (other.begun_at, other.run_id) < (own.begun_at, own.run_id)
        return iso_utc(other.begun_at) if older or ledger.meta("state") in _UNDER_WAY else None
    finally:
        ledger.close()
