"""Turn the seconds and events of a run into what its pictures show: bars on an axis of work, waits, marks, numbers."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from bulkimg.meter import percentile
from bulkimg.model import RunEvent, Sample, Status
from bulkimg.report.charts import FEW, Bin, Frame, Mark
from bulkimg.words import clock_text

MOST_BINS = 240  # bars of a picture
GAP = 120.0  # seconds without a request that are cut out of the axis; a run in an outage asks more often
SHORT = 2.0  # seconds of the axis that stand for what is cut out
MOST_MARKS = 30
KINDS = ("put", "poll", "read", "tag", "session")
STATUSES = tuple(status.value for status in Status)
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_WIDTHS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_SHOWN_AS_WAITS = ("held", "reopened")
_NO_MARK = (*_SHOWN_AS_WAITS, "planmade", "unreadable")


class Line(NamedTuple):
    """One event for the list: its number in the pictures or None, its time, its words."""

    number: int | None
    at: float
    text: str
    kind: str


class Timeline(NamedTuple):
    """A run in time. `bins` hold every series; `seconds` is how long it worked."""

    frame: Frame
    bins: Sequence[Bin]
    width: int
    total: Sample
    seconds: float
    waited: float
    lines: Sequence[Line]  # what happened, without the waits for the server
    waits: Sequence[Line]


def timeline(samples: Iterable[Sample], events: Sequence[RunEvent]) -> Timeline | None:
    """Return the run in time, or None if it never made a request. Memory does not grow with the run's rows."""
    found = list(samples)
    if not found:
        return None
    axis = _Axis(found)
    width = next((width for width in _WIDTHS if axis.length / width <= MOST_BINS), _WIDTHS[-1])
    width = max(width, *(sample.seconds for sample in found))
    waits = list(_waits(events, found[-1].at + found[-1].seconds))
    marks, lines = _marked(events, axis)
    frame = Frame(
        axis.length,
        [(axis.place(begin), axis.place(end)) for begin, end in waits],
        marks,
        axis.breaks,
    )
    return Timeline(
        frame,
        list(_bins(found, axis, width)),
        width,
        _total(found),
        axis.length,
        sum(e - b for b, e in waits),
        [line for line in lines if line.kind not in _SHOWN_AS_WAITS],
        [line for line in lines if line.kind in _SHOWN_AS_WAITS],
    )


class _Axis:
    """Place times on an axis that leaves out long times without a request."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._starts = [samples[0].at]  # of each stretch of work, in seconds since the epoch
        self._places = [0.0]
        self._ends: list[float] = []
        self.breaks: list[tuple[float, str]] = []
        for before, sample in pairwise(samples):
            end = before.at + before.seconds
            if sample.at - end > GAP:
                self._ends.append(end)
                place = self._places[-1] + end - self._starts[-1]
                self.breaks.append((place + SHORT / 2, f"{clock_text(sample.at - end)} without a request"))
                self._starts.append(sample.at)
                self._places.append(place + SHORT)
        self._ends.append(samples[-1].at + samples[-1].seconds)
        self.length = self._places[-1] + self._ends[-1] - self._starts[-1]

    def place(self, at: float) -> float:
        index = max(0, bisect_right(self._starts, at) - 1)
        return self._places[index] + max(0.0, min(at, self._ends[index]) - self._starts[index])


def _bins(samples: Sequence[Sample], axis: _Axis, width: int) -> Iterator[Bin]:
    """Yield a bar for every width of the axis, also where nothing happened."""
    parts: dict[int, list[Sample]] = {}
    for sample in samples:
        parts.setdefault(int(axis.place(sample.at) // width), []).append(sample)
    rate: float | None = samples[0].rate
    limit = samples[0].concurrency
    for index in range(int(-(-axis.length // width))):
        own = parts.get(index, [])
        if own:
            rate, limit = own[-1].rate, max(sample.concurrency for sample in own)
        yield _bin(own, index * width, min(float(width), axis.length - index * width), rate, limit)


def _bin(own: Sequence[Sample], at: float, seconds: float, rate: float | None, limit: int) -> Bin:
    total = _total(own)
    seconds = max(seconds, 1.0)
    values: dict[str, float | None] = {kind: total.requests.get(kind, 0) / seconds for kind in KINDS}
    values |= {status: total.outcomes.get(status, 0) / seconds for status in STATUSES}
    values |= {name: percentile(total.latency, share) for name, share in PERCENTILES.items()}
    values |= {"cap": rate, "in flight": float(total.in_flight), "limit": float(limit)}
    return Bin(at, seconds, values, few=sum(total.latency.values()) < FEW)


def _total(samples: Sequence[Sample]) -> Sample:
    requests: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    latency: Counter[int] = Counter()
    for sample in samples:
        requests.update(sample.requests)
        outcomes.update(sample.outcomes)
        latency.update(sample.latency)
    flying = max((sample.in_flight for sample in samples), default=0)
    return Sample(0.0, 0, requests, outcomes, latency, flying, 0, None, 0)


def _waits(events: Sequence[RunEvent], end: float) -> Iterator[tuple[float, float]]:
    """Yield when the whole run waited: for the server, or paused."""
    begun: float | None = None
    for event in events:
        if event.kind == "held" or (event.kind == "paused" and event.text.startswith("paused")):
            begun = event.at if begun is None else begun
        elif begun is not None and event.kind in ("reopened", "paused", "started", "lost"):
            yield begun, event.at
            begun = None
    if begun is not None and end > begun:
        yield begun, end


def _marked(events: Sequence[RunEvent], axis: _Axis) -> tuple[list[Mark], list[Line]]:
    """Number the events that are marks in the pictures. The first start is none."""
    marks: list[Mark] = []
    lines: list[Line] = []
    started = False
    for event in events:
        text = event.text
        is_mark = event.kind not in _NO_MARK and len(marks) < MOST_MARKS
        if event.kind == "started":
            is_mark = is_mark and started
            text = f"resumed: {text}" if started else text
            started = True
        if is_mark:
            marks.append(Mark(axis.place(event.at), len(marks) + 1, text))
        lines.append(Line(len(marks) if is_mark else None, event.at, text, event.kind))
    return marks, lines
