"""Look at a run again and again for the terminal, at a cost that is a small part of the time."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bulkimg.errors import BulkimgError, RunRefused, StorageError
from bulkimg.ledger import Ledger, RunDirectory, timeline
from bulkimg.ledger.store import storage_errors
from bulkimg.live.drawing import CANNOT_SHOW, MOVING_SHARE, ROWS_EVERY, ROWS_SHARE, why_not
from bulkimg.live.status import status_of
from bulkimg.model import RunEvent, Sample

SECONDS = 240  # newest samples, as many as a wide terminal shows
EVENTS = 6
A_MOMENT = 3.0  # seconds


class Look(NamedTuple):
    """A run at one moment. `samples` and `events` are the newest, in order."""

    status: Mapping[str, Any]
    samples: Sequence[Sample]
    events: Sequence[RunEvent]

    @property
    def settled(self) -> int:
        """Return the rows with an outcome. The newest second may know more than the counts."""
        rows, settled = int(self.status["rows"]), int(self.status["settled"])
        newer = rows - self.samples[-1].waiting if self.samples and self.status["running"] else 0
        return max(settled, newer)


class Watching:
    """One run that is looked at. Its status is read when that is due, its causes more rarely, samples every time."""

    def __init__(self, directory: RunDirectory, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._status: dict[str, Any] = {}
        self._due = self._rows_due = 0.0

    def look(self) -> Look:
        """Return the run as it is now. Raises RunRefused or StorageError if it cannot be read."""
        try:
            self._read_status()
            return Look(self._status, *self._newest())
        except CANNOT_SHOW as error:
            if not self._directory.path.is_dir():
                raise RunRefused(f"run {self._directory.run_id} is gone: its directory was removed") from None
            if isinstance(error, BulkimgError):
                raise
            raise StorageError(why_not(self._directory, error)) from None

    def _read_status(self) -> None:
        now = self._clock()
        if now < self._due and self._directory.is_held():
            return
        reads_rows = now >= self._rows_due or not self._status
        self._status = self._begun() if not self._status else status_of(self._directory, self._causes(reads_rows))
        took = self._clock() - now
        if reads_rows:  # no reason to show old counts
            self._rows_due = now + max(ROWS_EVERY, ROWS_SHARE * took)
        else:
            self._due = now + MOVING_SHARE * took

    def _causes(self, reads_rows: bool) -> Sequence[Mapping[str, Any]] | None:
        return None if reads_rows else self._status["causes"]

    def _begun(self) -> dict[str, Any]:
        """Return the first status. A run that has just begun has a ledger without a header for a moment."""
        until = self._clock() + A_MOMENT
        while True:
            try:
                return status_of(self._directory)
            except RunRefused:
                if self._clock() > until or not self._directory.is_held():
                    raise
            time.sleep(0.05)

    def _newest(self) -> tuple[list[Sample], list[RunEvent]]:
        ledger = Ledger.open(self._directory.ledger, read_only=True)
        try:
            with storage_errors(self._directory.ledger):
                return timeline.newest(ledger, SECONDS), timeline.newest_events(ledger, EVENTS)
        finally:
            ledger.close()
