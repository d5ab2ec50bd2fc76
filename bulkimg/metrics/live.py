"""Describe a running run as metrics."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product

from bulkimg import __version__
from bulkimg.meter import BOUNDS, FAILED, OK, RATE_LIMITED, Meter
from bulkimg.metrics.exposition import Family, Sample, histogram
from bulkimg.model import Event, Settled, Status
from bulkimg.pace import Pace

_KINDS = ("put", "poll", "read", "tag", "session")
_OUTCOMES = tuple(status for status in Status if status is not Status.UNPROCESSED)
# Bounds that Prometheus histograms usually have, and some for slower servers. Each is one of the meter's.
_SHOWN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0)


class Figures:
    """The rows of a run by status, in all its processes, and what it does now."""

    def __init__(self, pace: Pace, meter: Meter) -> None:
        self.pace, self.meter = pace, meter
        self._settled: Counter[str] = Counter()
        self._in_all = 0

    def count(self, settled: Mapping[str, int], in_all: int) -> None:
        """Set the rows with an outcome by status, and all rows, as the ledger has them."""
        self._settled, self._in_all = Counter(settled), in_all

    def watch(self, event: Event) -> None:
        """Add the outcomes of an event."""
        if isinstance(event, Settled):
            self._settled.update(outcome.status.value for outcome in event.outcomes)

    def settled(self, status: Status) -> int:
        """Return the rows with this status."""
        return self._settled[status.value]

    @property
    def remaining(self) -> int:
        """Return the rows without an outcome."""
        return max(0, self._in_all - self._settled.total())


def families(figures: Figures) -> Iterator[Family]:
    """Yield the metrics of the run as it is now."""
    meter, pace = figures.meter, figures.pace
    rows = [Sample({"status": status.value}, figures.settled(status)) for status in _OUTCOMES]
    yield Family("bulkimg_rows_total", "counter", "Rows of this run that have an outcome, by status.", rows)
    requests = [
        Sample({"kind": kind, "result": result}, meter.requests.get((kind, result), 0))
        for kind, result in product(_KINDS, (OK, RATE_LIMITED, FAILED))
    ]
    yield Family("bulkimg_requests_total", "counter", "Requests of this process that have ended.", requests)
    yield histogram(
        "bulkimg_request_duration_seconds",
        "Time from sending a PUT to its answer. Only answered PUTs count.",
        _cumulative(meter.latency),
        sum(meter.latency.values()),
        meter.latency_sum,
    )
    yield from _gauges(figures, pace)


def _gauges(figures: Figures, pace: Pace) -> Iterator[Family]:
    for name, help_, value in (
        ("bulkimg_rows_in_flight", "Rows that are being sent now.", pace.limit.in_flight),
        ("bulkimg_rate_cap_requests_per_second", "Most requests a second.", pace.rate.per_second),
        ("bulkimg_gate_closed", "1 while requests are held back because of the server, else 0.", pace.breaker.is_open),
        ("bulkimg_rows_remaining", "Rows of this run without an outcome.", figures.remaining),
    ):
        yield Family(name, "gauge", help_, [Sample({}, value)])
    build = [Sample({"version": __version__}, 1)]
    yield Family("bulkimg_build_info", "gauge", "Version of bulkimg, as a label; always 1.", build)


def _cumulative(latency: Mapping[int, int]) -> dict[float, int]:
    """Return the PUTs that were answered within each bound that is shown."""
    counts, seen = {}, 0
    for bucket, bound in enumerate(BOUNDS):
        seen += latency.get(bucket, 0)
        if bound in _SHOWN:
            counts[bound] = seen
    return counts
