"""Adapt the number of rows in flight: as many as the server works on at a time, and a few that queue.

A ZStack server does not say that it is overloaded: it queues, then resets (docs/dev/protocol.md §2.4). Latency shows
it: a row that takes longer than rows took with few in flight has waited in a queue. The rule is a gradient on a latency
baseline that is measured again from time to time, as in Envoy's adaptive concurrency filter and Netflix's
concurrency-limits (Gradient2): `limit × (baseline / latency) + room`. `room` lets the limit grow while the server has
capacity left. Errors shrink the limit. The latency of an error is ignored, so fast errors never speed a run up.

This module only decides. Time is an argument, and nothing waits here.
"""

from enum import Enum, auto
from statistics import fmean
from typing import NamedTuple

FEW = 4  # rows in flight at the start and while the baseline is measured: fewer than any server has workers
SAMPLES = 32  # most latencies of a baseline; a window needs at least a quarter as many
TOLERANCE = 0.15  # share of the baseline, or TOLERANCE_S seconds: a smaller rise is noise and not a queue
TOLERANCE_S = 0.003
ROOM = 0.4  # times √limit rows may queue at the server
SHRINK = 0.5  # smallest share of the limit that one window leaves
CUT = 0.7  # share of the limit that an error leaves
REMEASURE = 30.0  # seconds between two measurements; longer if measuring takes more than a hundredth of it
TOO_LONG = 5.0  # seconds of measuring after which the present values must do, because the server is slow


class LoadSignal(Enum):
    """What a row in flight says about the server's load."""

    WELL = auto()  # the server did the work
    SICK = auto()  # no answer, or the answer of a failing server
    ELSE = auto()  # a refusal, or work that says nothing about the server's load


class InFlight(NamedTuple):
    """A row in flight: its start (seconds of the clock), and the number of rows in flight then, this one included."""

    since: float
    together: int


class AdaptiveConcurrency:
    """Compute `value`, the number of rows that may be in flight now.

    Call `sent` when a row starts, and `landed` exactly once when it ends. Without `adapts`, `value` is always `most`.
    """

    def __init__(self, most: int, *, adapts: bool = True) -> None:
        self.adapts = adapts
        self._most = most
        self._limit = float(min(FEW, most))
        self._in_flight = 0
        self._baseline: float | None = None
        self._quiet: list[float] = []  # seconds of each row that was sent with few in flight
        self._window: list[float] = []  # seconds of each row that was sent since `_changed`
        self._busiest = 0  # most rows in flight in this window
        self._changed = 0.0
        self._step = 1.0  # rows that one window adds while nothing queues
        self._measuring_since: float | None = None
        self._measure_at = 0.0  # measure with the first row
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
        """Return the seconds of a row with few in flight, or None before the first measurement."""
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
        """End the measurement. The next one is so far away that measuring takes at most a hundredth of the time."""
        if self._quiet:
            self._baseline = fmean(self._quiet)
        took = now - self._measuring_since if self._measuring_since is not None else 0.0
        self._quiet.clear()
        self._measuring_since = None
        self._measure_at = now + max(REMEASURE, 100 * took)
        self._begin_window(now)

    def _decide(self, baseline: float, latency: float, now: float) -> None:
        if latency < baseline:  # slowly: the fastest of many noisy windows is not the true latency
            self._baseline = baseline + 0.2 * (latency - baseline)
        unnoticed = baseline + max(TOLERANCE * baseline, TOLERANCE_S)
        if latency > unnoticed:
            self._step = 1.0
            self._limit = max(SHRINK, unnoticed / latency) * self._limit + ROOM * self._limit**0.5
        elif self._busiest >= 0.8 * self._limit:  # otherwise nothing shows that more rows would be sent
            self._limit += min(self._limit, max(self._step, ROOM * self._limit**0.5))
            self._step *= 2
        self._limit = max(1.0, min(self._limit, float(self._most)))
        self._begin_window(now)

    def _cut(self, flight: InFlight, now: float) -> None:
        """Shrink the limit, once for all rows that were in flight together."""
        if flight.since >= self._changed:
            self._limit = max(1.0, self._limit * CUT)
            self._step = 1.0
            self._begin_window(now)

    def _begin_window(self, now: float) -> None:
        self._window.clear()
        self._busiest = self._in_flight
        self._changed = now
