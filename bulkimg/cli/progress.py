"""Show a run's progress: a bar, plain lines, JSON lines or nothing. All observe the same events."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from bulkimg.cli import screen
from bulkimg.engine.execute import Live
from bulkimg.model import (
    GOOD,
    CanaryPassed,
    Event,
    Held,
    PlanMade,
    Reopened,
    Retrying,
    Settled,
    Started,
    Status,
    Stopping,
)
from bulkimg.report import Narrator, level
from bulkimg.settings import Settings
from bulkimg.words import clock_text, count, rate_text

PLAIN_EVERY = 5.0  # seconds between two lines
_BAD = tuple(status for status in Status if status not in GOOD and status is not Status.UNPROCESSED)
_IDLE = Live(0, float("inf"), 0, 0)


class Tally:
    """Count events, and compute rates from them. `clock` is monotonic seconds; `live` returns the engine's figures."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self._ended: float | None = None  # when the last row was settled; messages may follow
        self.live: Callable[[], Live] = lambda: _IDLE
        self._requests_before = 0
        self.pending = 0
        self.counts: Counter[Status] = Counter()
        self._waiting: dict[int, float] = {}
        self._held: Held | None = None
        self._held_until = 0.0

    def see(self, event: Event) -> None:
        if isinstance(event, Started):
            self._begun, self.pending, self._ended = self._clock(), event.pending, None
            self._requests_before = self.live().requests
        elif isinstance(event, Settled):
            self.counts.update(outcome.status for outcome in event.outcomes)
            if self.done >= self.pending:
                self._ended = self._clock()
            for outcome in event.outcomes:
                self._waiting.pop(outcome.ordinal, None)
        elif isinstance(event, Retrying):
            self._waiting[event.ordinal] = event.after
        elif isinstance(event, Held):
            self._held, self._held_until = event, self._clock() + event.seconds
        elif isinstance(event, Reopened):
            self._held = None

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def _seconds(self) -> float:
        return max((self._ended or self._clock()) - self._begun, 1e-3)

    @property
    def rows_per_s(self) -> float:
        """Rows a second since the start."""
        return self.done / self._seconds

    @property
    def requests_per_s(self) -> float:
        """Requests of every kind a second, since the first row was sent."""
        return max(0, self.live().requests - self._requests_before) / self._seconds

    @property
    def retrying(self) -> int:
        return len(self._waiting)

    @property
    def place(self) -> str:
        """Return `272/2,000 rows, 0:18 left`."""
        left = ""
        if 0 < self.done < self.pending:
            left = f", {clock_text((self.pending - self.done) / self.rows_per_s)} left"
        return f"{self.done:,}/{count(self.pending, 'row')}{left}"

    @property
    def pace(self) -> str:
        """Return `94 rows/s, 198 requests/s (cap 200/s), 8 in flight`."""
        live = self.live()
        cap = "" if live.rate == float("inf") else f" (cap {rate_text(live.rate)})"
        return f"{self.rows_per_s:.1f} rows/s, {self.requests_per_s:.0f} requests/s{cap}, {live.in_flight:,} in flight"

    @property
    def troubles(self) -> str:
        """Return the numbers of rows that did not succeed and what the run waits for, or ""."""
        said = [f"{self.counts[status]:,} {status}" for status in _BAD if self.counts[status]]
        said += [f"{self.retrying:,} waiting for a retry"] if self.retrying else []
        if self._held and (seconds := self._held_until - self._clock()) > 0:
            said.append(f"waiting {seconds:.0f} s: {self._held.why}")
        return ", ".join(said)

    @property
    def line(self) -> str:
        return "; ".join(part for part in (self.place, self.pace, self.troubles) if part)


class Progress(Protocol):
    """Watch events until it is closed."""

    def see(self, event: Event) -> None: ...
    def close(self) -> None: ...


class _Plain:
    """Print a line every few seconds, for a log."""

    def __init__(self, stats: Tally, before: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._tally, self._before, self._clock, self._last = stats, before, clock, clock()

    def see(self, event: Event) -> None:
        if isinstance(event, Settled) and self._clock() - self._last >= PLAIN_EVERY:
            self._last = self._clock()
            screen.note(f"{self._before}{self._tally.line}", "progress")

    def close(self) -> None:
        if self._tally.pending:
            screen.note(f"{self._before}{self._tally.line}", "progress")


class _Json:
    """Print a JSON line a second, and one at the end."""

    def __init__(self, stats: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally, self._clock, self._last = stats, clock, clock()

    def see(self, event: Event) -> None:
        if isinstance(event, Settled) and self._clock() - self._last >= 1:
            self._last = self._clock()
            self._show()

    def _show(self) -> None:
        from bulkimg.report.documents import ProgressEvent

        stats = self._tally
        line = ProgressEvent(
            at=time.time(),
            done=stats.done,
            pending=stats.pending,
            counts={status.value: number for status, number in stats.counts.items() if number},
            rows_per_s=round(stats.rows_per_s, 1),
            requests_per_s=round(stats.requests_per_s, 1),
            in_flight=stats.live().in_flight,
            retrying=stats.retrying,
        )
        screen.note_json(line.as_json())

    def close(self) -> None:
        self._show()


BAR_WIDTH = 40  # at most; a narrow terminal gets what its text leaves


class Bars:
    """A bar on a terminal for each run, with its pace and its failures. Rich redraws them ten times a second."""

    def __init__(self) -> None:
        from rich.console import Console  # the other kinds do not need rich

        self._tallies: list[tuple[str, Tally]] = []
        self._console = Console(file=sys.stderr, highlight=False)
        self._display: Any = None  # while it is shown

    def add(self, tally: Tally, name: str = "") -> "Bars":
        """Draw this run too. `name` tells it from others."""
        self._tallies.append((name, tally))
        return self

    def _drawn(self) -> Any:
        from rich.console import Group

        return Group(*(line for name, tally in self._tallies if tally.pending for line in self._lines(name, tally)))

    def _lines(self, name: str, tally: Tally) -> list[Any]:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        said = f"{100 * tally.done // max(tally.pending, 1)} %  {tally.place}"
        named = max((len(other) for other, _ in self._tallies), default=0)
        width = max(5, min(BAR_WIDTH, self._console.width - len(said) - 2 - (named + 1 if named else 0)))
        total, green = max(tally.pending, 1), {"complete_style": "green", "finished_style": "green"}
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=total, completed=tally.done, width=width, **green)  # type: ignore[arg-type]
        head.add_row(*([name.ljust(named)] if named else []), bar, said)
        lines: list[Any] = [head, Text(tally.pace, style="dim")]
        if troubles := tally.troubles:
            lines.append(Text(troubles, style="yellow"))
        return lines

    def see(self, event: Event) -> None:
        if isinstance(event, PlanMade | CanaryPassed):
            self.close()  # a question may follow
        elif (
            isinstance(event, Started | Settled) and self._display is None and any(t.pending for _, t in self._tallies)
        ):
            from rich.live import Live as Display

            self._display = Display(get_renderable=self._drawn, console=self._console, refresh_per_second=10)
            self._display.start()

    def close(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None


class _Nothing:
    def see(self, event: Event) -> None:
        pass

    def close(self) -> None:
        pass


def kind_of(settings: Settings) -> str:
    """Return the kind of progress that the settings and the terminal mean: bar, plain, json or none."""
    as_json, kind = settings.log_format == "json", settings.progress
    if kind == "auto":
        kind = "bar" if sys.stderr.isatty() else "plain"
    if kind == "bar" and (as_json or settings.quiet):
        kind = "json" if as_json else "none"
    return kind


class Watcher:
    """The observer of a command: it prints sentences and the kind of progress that was asked for.

    `name` tells its run from others that are executed at the same time. They share their `bars`.
    """

    def __init__(
        self, settings: Settings, *, tells_plan: bool = True, name: str = "", bars: Bars | None = None
    ) -> None:
        self._tells_plan = tells_plan
        self._least = logging.DEBUG if settings.verbose else logging.INFO
        self._tally = Tally()
        self._narrator = Narrator()
        self._before = f"{name}: " if name else ""
        kinds: dict[str, Callable[[], Progress]] = {
            "bar": lambda: (bars or Bars()).add(self._tally, name),
            "plain": lambda: _Plain(self._tally, self._before),
            "json": lambda: _Json(self._tally),
            "none": _Nothing,
        }
        self._progress = kinds[kind_of(settings)]()

    def follow(self, live: Callable[[], Live]) -> None:
        """Read requests and rows in flight from here."""
        self._tally.live = live

    @property
    def has_begun(self) -> bool:
        """Return whether rows were sent or could have been sent."""
        return self._tally.pending > 0

    def __call__(self, event: Event) -> None:
        self._tally.see(event)
        self._progress.see(event)
        if isinstance(event, PlanMade) and not self._tells_plan:
            return
        if level(event) >= self._least and (said := self._narrator.sentence(event)):
            said += "; Ctrl-C again leaves them for resume to check" if isinstance(event, Stopping) else ""
            screen.note(screen.one_line(f"{self._before}{said}"), type(event).__name__.lower())

    def close(self) -> None:
        self._progress.close()
