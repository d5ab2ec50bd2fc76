"""Count requests by kind and result, and the latency of PUTs in buckets. It is cheap enough for every request."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

# Upper bounds of the buckets in seconds, ten for each power of ten (the R10 series of ISO 3): a percentile is at most a
# quarter too high. They hold every bound that Prometheus histograms usually have, such as 0.005 and 2.5.
_STEPS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
BOUNDS = tuple(round(step * 10.0**power, 7) for power in range(-4, 2) for step in _STEPS)  # 0.1 ms to 80 s

OK, RATE_LIMITED, FAILED = "ok", "rate_limited", "failed"  # results of a request


class Meter:
    """What a connection did since it was opened. `due` is when `on_due` wants to be called with the clock's time."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str], int] = {}  # by (kind, result)
        self.latency: dict[int, int] = {}  # answered PUTs by bucket: the index in BOUNDS, or its length
        self.latency_sum = 0.0  # seconds of these PUTs
        self.due = float("inf")
        self.on_due: Callable[[float], None] = lambda clock: None

    @property
    def total(self) -> int:
        """Return the number of requests that have ended."""
        return sum(self.requests.values())

    def add(self, kind: str, failure_id: int, seconds: float, clock: float) -> None:
        """Count one request of a kind (put, poll, read, tag, session) that ended at `clock` after `seconds`.

        `failure_id` is what the circuit breaker made of its answer.
        """
        if clock >= self.due:
            self.on_due(clock)
        key = (kind, OK if not failure_id else FAILED if failure_id > 0 else RATE_LIMITED)
        self.requests[key] = self.requests.get(key, 0) + 1
        if kind == "put" and not failure_id:
            bucket = bisect_left(BOUNDS, seconds)
            self.latency[bucket] = self.latency.get(bucket, 0) + 1
            self.latency_sum += seconds

    def take_in(
        self,
        requests: Iterable[tuple[str, str, int]],
        latency: Iterable[tuple[int, int]],
        seconds: float,
        clock: float,
    ) -> None:
        """Add what another process counted since the last time: (kind, result, number), and (bucket, number)."""
        if clock >= self.due:
            self.on_due(clock)
        for kind, result, number in requests:
            self.requests[kind, result] = self.requests.get((kind, result), 0) + number
        for bucket, number in latency:
            self.latency[bucket] = self.latency.get(bucket, 0) + number
        self.latency_sum += seconds

    def by_kind(self) -> Counter[str]:
        """Return the number of requests by kind."""
        found: Counter[str] = Counter()
        for (kind, _), number in self.requests.items():
            found[kind] += number
        return found


def percentile(latency: Mapping[int, int], share: float) -> float | None:
    """Return the seconds within which a share (0 to 1) of the requests were answered, or None without a request.

    Within a bucket, requests are taken as evenly spread.
    """
    rank, seen = share * sum(latency.values()), 0
    for bucket in sorted(latency):
        number = latency[bucket]
        if seen + number >= rank and number:
            low = BOUNDS[bucket - 1] if bucket else 0.0
            high = BOUNDS[min(bucket, len(BOUNDS) - 1)]
            return low + (high - low) * max(0.0, rank - seen) / number
        seen += number
    return None
