"""Record what goes on in every second of a run, and what happens to it, in the ledger.

It needs no timer: the first request of a new second ends the second before it. A second without requests has no record.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping

from bulkimg.ledger import Ledger, Writer, timeline
from bulkimg.meter import Meter
from bulkimg.model import (
    Event,
    NoControl,
    NotifyFailed,
    PluginWarning,
    Retrying,
    RunEvent,
    Sample,
    Settled,
    Started,
    Surveyed,
)
from bulkimg.pace import Pace
from bulkimg.report import Narrator
from bulkimg.runtime import Runtime

_NOT_KEPT = (Settled, Retrying, Surveyed, NoControl, NotifyFailed, PluginWarning)


class Recorder:
    """Cut a run into seconds. `outcomes` returns the rows settled so far in this process, by status."""

    def __init__(self, ledger: Ledger, pace: Pace, runtime: Runtime, outcomes: Callable[[], Mapping[str, int]]) -> None:
        self.meter = Meter()
        self.meter.due, self.meter.on_due = 0.0, self._cut
        self.writer: Writer | None = None  # while rows are sent, it owns the ledger
        self._ledger = ledger
        self._pace = pace
        self._clock, self._now = runtime.clock, runtime.now
        self._outcomes = outcomes
        self._narrator = Narrator(runtime.clock)
        self._second = math.floor(self._now())
        self._requests: Counter[str] = Counter()  # as they were when this second began
        self._latency: Counter[int] = Counter()
        self._settled: Counter[str] = Counter()
        self._pending = 0  # rows without an outcome when sending began
        self._samples: list[Sample] = []
        self._events: list[RunEvent] = []

    def begin(self, writer: Writer) -> None:
        """Write what happened so far, and all that follows, with the groups of this writer."""
        self.writer = writer
        self._write()

    def watch(self, event: Event) -> None:
        """Take note of an event. The engine passes every event."""
        clock = self._clock()
        if clock >= self.meter.due:
            self._cut(clock)
        if isinstance(event, Started):
            self._pending = event.pending
            self._settled.clear()
        if not isinstance(event, _NOT_KEPT) and (text := self._narrator.sentence(event)):
            self.note(type(event).__name__.lower(), text)

    def note(self, kind: str, text: str) -> None:
        """Record that something happened now."""
        self._events.append(RunEvent(self._now(), kind, text))
        self._write()

    def finish(self) -> None:
        """Record what is left. Call it when rows are no longer sent, and not after the disk has failed."""
        self._cut(self._clock())
        if self._samples or self._events:
            timeline.add(self._ledger, *self._taken())

    def _cut(self, clock: float) -> None:
        """End the present second."""
        requests, latency = self.meter.by_kind(), Counter(self.meter.latency)
        settled = Counter(self._outcomes())
        sample = Sample(
            float(self._second),
            1,
            requests - self._requests,
            settled - self._settled,
            latency - self._latency,
            self._pace.limit.in_flight,
            self._pace.limit.value,
            None if math.isinf(self._pace.rate.per_second) else self._pace.rate.per_second,
            max(0, self._pending - settled.total()),
        )
        self._requests, self._latency, self._settled = requests, latency, settled
        now = self._now()
        self._second = math.floor(now)
        self.meter.due = clock + 1 - now % 1
        if sample.requests or sample.outcomes:
            self._samples.append(sample)
            self._write()

    def _write(self) -> None:
        """Write what is waiting with the next group. Before and after sending it waits."""
        if self.writer is not None:
            samples, events = self._taken()
            self.writer.note(lambda ledger: timeline.add(ledger, samples, events))

    def _taken(self) -> tuple[list[Sample], list[RunEvent]]:
        taken = (self._samples, self._events)
        self._samples, self._events = [], []
        return taken
