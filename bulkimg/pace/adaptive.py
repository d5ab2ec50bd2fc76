"""Adapt the number of rows in flight: as many as the server works on at a time, and a few that queue.

A ZStack server says nothing when it is overloaded: it queues, then resets (docs/dev/protocol.md §2.4). Time shows it: a row that
takes longer than rows took when hardly any others were in flight has waited in a queue. The rule is a gradient on a latency
baseline that is measured anew, as in Envoy's adaptive concurrency filter and Netflix's concurrency-limits (Gradient2):
`limit × (baseline / latency) + room`, where `room` lets it find out that there is more to be had. Errors shrink the limit; how
long an error took is ignored, so that fast ones never speed a run up.

Decisions only: time is an argument, and nothing waits here.
"""

from enum import Enum, auto
from statistics import fmean
from typing import NamedTuple

FEW = 4  # rows in flight at the beginning, and while the baseline is measured: fewer than the workers of any server
SAMPLES = 32  # of the baseline, at most; and of a window, at least a quarter as many
TOLERANCE = 0.15  # of the baseline, or so many seconds: less is no queue but noise
TOLERANCE_S = 0.003
ROOM = 0.4  # × √limit rows may wait at the server
SHRINK = 0.5  # a window makes the limit no smaller than this share of it
CUT = 0.7  # what an error leaves of it
REMEASURE = 30.0  # seconds; longer where measuring takes more than a hundredth of it
TOO_LONG = 5.0  # seconds of measuring: the server is too slow to stand by


class LoadSignal(Enum):
    """What came of a row that was in flight."""

    WELL = auto()  # the server did it
    SICK = auto()  # no answer, or one of a server in trouble
    ELSE = auto()  # refused, or done in a way that says nothing about the server's load


class InFlight(NamedTuple):
    """One row in flight: since when, and how many were in flight with it, itself counted."""

    since: float
    together: int


class AdaptiveConcurrency:
    """`value` is how many rows may be in flight now. `sent` when one is, `landed` exactly once when it is not any more.

    Without `adapts` it is `most`, always.
    """

    def __init__(self, most: int, *, adapts: bool = True) -> None:
        self.adapts = adapts
        self._most = most
        self._limit = float(min(FEW, most))
        self._in_flight = 0
        self._baseline: float | None = None
        self._quiet: list[float] = []  # seconds that rows took when few were in flight
        self._window: list[float] = []  # seconds of rows that were sent since `_changed`
        self._busiest = 0  # the most in flight in this window
        self._changed = 0.0
        self._step = 1.0  # how fast it grows while nothing queues
        self._measuring_since: float | None = None
        self._measure_at = 0.0  # with the first row
        self.value = 0
        self._update()

    @property
    def most(self) -> int:
        return self._most

    @most.setter
    def most(self, most: int) -> None:
        self._most = most
        self._limit = min(self._limit, float(most))
        self._update()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def baseline(self) -> float | None:
        """Seconds that a row takes when few are in flight; None before it has been measured."""
        return self._baseline

    def sent(self, now: float) -> InFlight:
        self._in_flight += 1
        self._busiest = max(self._busiest, self._in_flight)
        if self.adapts and self._measuring_since is None and now >= self._measure_at:
            self._measuring_since = now
            self._quiet.clear()
            self._update()
        return InFlight(now, self._in_flight)

    def landed(self, flight: InFlight, now: float, signal: LoadSignal) -> None:
        self._in_flight -= 1
        if not self.adapts:
            return
        if signal is LoadSignal.SICK:
            self._cut(flight, now)
        elif signal is LoadSignal.WELL:
            self._took(flight, now)
        if self._measuring_since is not None and now - self._measuring_since > TOO_LONG:
            self._measured(now)
        self._update()

    def _update(self) -> None:
        measured = FEW if self._measuring_since is not None else int(self._limit)
        self.value = max(1, min(self._most, measured)) if self.adapts else self._most

    # -- decisions ------------------------------------------------------------------------------------------------------

    def _took(self, flight: InFlight, now: float) -> None:
        seconds = now - flight.since
        if flight.together <= FEW:
            self._quiet.append(seconds)
            if len(self._quiet) >= (SAMPLES if self._baseline is not None else SAMPLES // 2):
                self._measured(now)
        if self._measuring_since is None and flight.since >= self._changed:
            self._window.append(seconds)
            if len(self._window) >= max(SAMPLES // 4, self._limit) and self._baseline is not None:
                self._decide(self._baseline, fmean(self._window), now)

    def _measured(self, now: float) -> None:
        """Go on as before, with what has been measured; the next time is far enough that measuring costs a hundredth."""
        if self._quiet:
            self._baseline = fmean(self._quiet)
        took = now - self._measuring_since if self._measuring_since is not None else 0.0
        self._quiet.clear()
        self._measuring_since = None
        self._measure_at = now + max(REMEASURE, 100 * took)
        self._begin_window(now)

    def _decide(self, baseline: float, latency: float, now: float) -> None:
        if latency < baseline:  # slowly: the smallest of many noisy windows is not what a row takes
            self._baseline = baseline + 0.2 * (latency - baseline)
        unnoticed = baseline + max(TOLERANCE * baseline, TOLERANCE_S)
        if latency > unnoticed:
            self._step = 1.0
            self._limit = max(SHRINK, unnoticed / latency) * self._limit + ROOM * self._limit**0.5
        elif self._busiest >= 0.8 * self._limit:  # else nothing says that more would be used
            self._limit += min(self._limit, max(self._step, ROOM * self._limit**0.5))
            self._step *= 2
        self._limit = max(1.0, min(self._limit, float(self._most)))
        self._begin_window(now)

    def _cut(self, flight: InFlight, now: float) -> None:
        """Once for all that were in flight together."""
        if flight.since >= self._changed:
            self._limit = max(1.0, self._limit * CUT)
            self._step = 1.0
            self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._window.clear()
        self._busiest = self._in_flight
        self._changed = now
