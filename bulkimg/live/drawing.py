"""Draw a run for its page again and again, at a cost that does not grow with how often anybody looks."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from markupsafe import Markup

from bulkimg.errors import BulkimgError
from bulkimg.ledger import Ledger, RunDirectory, insight, plans, stats
from bulkimg.ledger.store import storage_errors
from bulkimg.live.served import refuse_links
from bulkimg.model import PlanCounts
from bulkimg.report import render, run_page
from bulkimg.words import count

ROWS_EVERY, ROWS_SHARE = 10.0, 50  # seconds between two readings of rows, and at least so many times what one took
MOVING_SHARE = 20  # what is cheap is drawn again after so many times what it took
FINAL = ("done", "refused")  # nothing of such a run changes any more
_DAMAGE = (ValueError, LookupError, TypeError, ArithmeticError, sqlite3.Error)  # what a damaged record leads to

Signs = tuple[object, ...]


def signs(directory: RunDirectory) -> Signs:
    """Return a value that differs when the run's ledger was written to, or when it is held or let go."""
    found: list[object] = []
    with suppress(OSError):
        found.append(directory.is_held())
    for path in (directory.ledger, Path(f"{directory.ledger}-wal")):
        with suppress(OSError):
            if (seen := path.stat()).st_size:  # a reader leaves an empty one
                found += (path.name, seen.st_ino, seen.st_size, seen.st_mtime_ns)
    return tuple(found)


def why_not(directory: RunDirectory, error: Exception) -> str:
    """Return in one sentence why a run cannot be shown."""
    if not directory.path.is_dir():
        return f"Run {directory.run_id} is gone: its directory was removed."
    if isinstance(error, BulkimgError | OSError):
        return str(error)
    return f"{directory.ledger}: is damaged: {error}; bulkimg resume {directory.words} would refuse it"


CANNOT_SHOW = (BulkimgError, OSError, *_DAMAGE)


class Drawing:
    """The body of a run's page. `draw` reads only what has changed, and rows only now and then while the run lives."""

    def __init__(self, directory: RunDirectory, clock: Callable[[], float] = time.monotonic) -> None:
        self.html = Markup()
        self.is_final = False
        self._directory = directory
        self._clock = clock
        self._signs: Signs = ("never drawn",)
        self._due = 0.0  # when it may be drawn again
        self._report: run_page.Report | None = None
        self._rows_due = 0.0
        self._is_stale = False  # rows may have changed since they were read
        self._planned: tuple[str, PlanCounts] | None = None

    def draw(self) -> Markup:
        """Return the page's body as it is now. If it has not changed, it is the same object."""
        now, seen = self._clock(), signs(self._directory)
        is_due = self._is_stale and now >= self._rows_due
        if seen == self._signs and not is_due:
            return self.html
        if now < self._due and seen[:1] == self._signs[:1]:
            return self.html
        self._signs = seen
        self.html = self._drawn()
        if (
            self._is_stale and self._report is not None
        ):  # only what is cheap was read: a long reading of rows is no reason to show old counts
            self._due = self._clock() + MOVING_SHARE * (self._clock() - now)
        return self.html

    def _drawn(self) -> Markup:
        try:
            refuse_links(self._directory)
            held = self._directory.is_held()
            ledger = Ledger.open(self._directory.ledger, read_only=True)
            try:
                with storage_errors(self._directory.ledger):
                    return self._of(ledger, held=held)
            finally:
                ledger.close()
        except CANNOT_SHOW as error:
            self._report, self.is_final = None, False
            self._is_stale = True
            self._rows_due = self._clock() + ROWS_EVERY
            return sentence(self._directory.run_id, why_not(self._directory, error))

    def _of(self, ledger: Ledger, *, held: bool) -> Markup:
        state = insight.state(ledger, held=held)
        self.is_final = not held and state in FINAL
        if state in ("reading", "abandoned"):
            self._report, self._is_stale = None, False
            rows = count(stats.rows_in_all(ledger), "row")
            how = "is reading its manifest" if held else "ended while it read its manifest"
            return sentence(self._directory.run_id, f"The run {how}: {rows} so far; nothing was sent.")
        begun = self._clock()
        self._is_stale = held and self._report is not None and begun < self._rows_due
        if self._is_stale and self._report is not None:
            self._report = run_page.refreshed(self._report, ledger, self._directory, held=held)
        else:
            planned = self._plan(ledger)
            self._report = run_page.report(ledger, self._directory, held=held, planned=planned)
            self._rows_due = begun + max(ROWS_EVERY, ROWS_SHARE * (self._clock() - begun))
        return render.fragment("report_body.html", **run_page.values(self._report))

    def _plan(self, ledger: Ledger) -> PlanCounts | None:
        """Return the plan's counts. A plan that was made does not change."""
        digest = ledger.meta("plan_digest", "")
        if not (digest and plans.is_made(ledger)):
            return None
        if self._planned is None or self._planned[0] != digest:
            self._planned = (digest, plans.counts(ledger))
        return self._planned[1]


def sentence(run_id: str, text: str) -> Markup:
    """Return the body of a page that has only something to say."""
    return render.fragment("live_sentence.html", run_id=run_id, text=text)
