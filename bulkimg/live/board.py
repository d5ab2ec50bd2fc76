"""List the runs of a runs directory for the live page: what each is and did. Runs that have not changed are not read."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from bulkimg.errors import BulkimgError
from bulkimg.ledger import Ledger, RunDirectory, insight, list_runs, stats
from bulkimg.ledger.store import storage_errors
from bulkimg.live.drawing import CANNOT_SHOW, MOVING_SHARE, Signs, signs, why_not
from bulkimg.live.served import is_served, refuse_links
from bulkimg.model import GOOD, Status
from bulkimg.report import render
from bulkimg.words import count

MOST = 200  # runs in the list, the newest
_OPEN = (Status.UNPROCESSED, Status.UNKNOWN)
PATIENCE = 0.5  # seconds of reading for one drawing; the next one continues


class RunLine(NamedTuple):
    """A run in the list. `problem` is why it cannot be read, or ""."""

    run_id: str
    begun_at: float  # 0 if nothing tells it
    kind: str = ""
    state: str = ""
    running: bool = False
    target: str = ""
    rows: int = 0
    counts: tuple[tuple[str, int], ...] = ()
    manifest: str = ""
    note: str = ""
    problem: str = ""

    @property
    def settled(self) -> int:
        """Return the number of rows with an outcome, as far as it was read."""
        return sum(number for status, number in self.counts if self.running or status not in _OPEN)

    @property
    def not_fine(self) -> int:
        """Return the number of rows that are neither updated nor unchanged, as `bulkimg runs` counts them."""
        return sum(number for status, number in self.counts if status not in GOOD)

    @property
    def tone(self) -> str:
        """Return how the run looks: bad, good or open."""
        if self.not_fine:
            return "bad"
        return "good" if self.state == "done" else "open"

    @property
    def progress(self) -> str:
        """Return what the bar shows, in words."""
        bad = f", {self.not_fine:,} not fine" if self.not_fine else ""
        return f"{self.settled:,} of {count(self.rows, 'row')} with an outcome{bad}"


class _Known(NamedTuple):
    signs: Signs
    line: RunLine
    due: float  # when it may be read again


class Board:
    """The list of all runs, newest first."""

    is_final = False

    def __init__(self, runs_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.html = Markup()
        self._runs_dir = runs_dir
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def draw(self) -> Markup:
        """Return the body of the page as it is now. A run that was not read yet has no figures."""
        begun = self._clock()
        try:
            listed = list_runs(self._runs_dir)
            found = [run for run in reversed(listed) if is_served(run)]
        except (BulkimgError, OSError) as error:
            return self._rendered((), 0, 0, str(error))
        shown = found[:MOST]
        self._known = {run.run_id: known for run in shown if (known := self._known.get(run.run_id))}
        lines = [self._line(run, may_read=self._clock() - begun < PATIENCE) for run in shown]
        self.html = self._rendered(lines, len(found) - len(shown), len(listed) - len(found))
        return self.html

    def _rendered(self, lines: Sequence[RunLine], more: int, others: int, problem: str = "") -> Markup:
        """Return the body. `more` runs are older, and `others` have no page."""
        place = str(self._runs_dir)
        return render.fragment("live_runs.html", lines=lines, more=more, others=others, problem=problem, place=place)

    def _line(self, directory: RunDirectory, *, may_read: bool) -> RunLine:
        known, now, seen = self._known.get(directory.run_id), self._clock(), signs(directory)
        if known and (known.signs == seen or (now < known.due and known.signs[:1] == seen[:1])):
            return known.line
        if not may_read:
            return known.line if known else RunLine(directory.run_id, directory.begun_at)
        line = read(directory)
        due = self._clock() + MOVING_SHARE * (self._clock() - now)
        self._known[directory.run_id] = _Known(seen, line, due)
        return line


def read(directory: RunDirectory) -> RunLine:
    """Read a run's line."""
    empty = RunLine(directory.run_id, directory.begun_at)
    try:
        refuse_links(directory)
        held = directory.is_held()
        ledger = Ledger.open(directory.ledger, read_only=True)
        try:
            with storage_errors(directory.ledger):
                return _read(empty, ledger, held=held)
        finally:
            ledger.close()
    except CANNOT_SHOW as error:
        return empty._replace(state="unreadable", problem=why_not(directory, error))


def _read(empty: RunLine, ledger: Ledger, *, held: bool) -> RunLine:
    state, settings = insight.state(ledger, held=held), ledger.meta("settings", {})
    settled_only = held or state == "planned"
    counts = stats.settled_counts(ledger) if settled_only else stats.counts(ledger)
    return empty._replace(
        begun_at=empty.begun_at or ledger.meta("started_at") or ledger.meta("created_at") or 0.0,
        kind=insight.kind(ledger),
        state=state,
        running=held,
        target=str(settings.get("endpoint", "")),
        rows=stats.rows_in_all(ledger),
        counts=tuple((status, number) for status, number in counts.items() if number),
        manifest=Path(ledger.meta("manifest") or "").name,
        note=ledger.meta("note") or "",
    )
