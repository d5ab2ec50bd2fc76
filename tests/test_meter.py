"""Requests counted by kind and result, and percentiles of latency from buckets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkimg.meter import BOUNDS, FAILED, OK, RATE_LIMITED, Meter, percentile


def test_requests_are_counted_by_kind_and_result() -> None:
    meter = Meter()
    for kind, failure in (("put", 0), ("put", 7), ("put", -1), ("poll", 0), ("put", 0)):
        meter.add(kind, failure, 0.01, 1.0)
    assert meter.requests == {("put", OK): 2, ("put", FAILED): 1, ("put", RATE_LIMITED): 1, ("poll", OK): 1}
    assert meter.total == 5
    assert meter.by_kind() == {"put": 4, "poll": 1}
    assert sum(meter.latency.values()) == 2, "only answered PUTs"
    assert meter.latency_sum == pytest.approx(0.02)


def test_a_new_second_is_announced_before_its_first_request_is_counted() -> None:
    meter = Meter()
    seen = []

    def due(clock: float) -> None:
        seen.append((clock, meter.total))
        meter.due = clock + 1

    meter.due, meter.on_due = 10.0, due
    for clock in (9.5, 10.2, 10.9, 11.3, 20.0):
        meter.add("put", 0, 0.1, clock)
    assert seen == [(10.2, 1), (11.3, 3), (20.0, 4)]


def test_the_usual_bounds_of_prometheus_are_among_the_bounds() -> None:
    assert {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0} <= set(BOUNDS)
    assert list(BOUNDS) == sorted(set(BOUNDS))


@given(st.lists(st.floats(1.01e-4, 79), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_within_its_bucket(seconds: list[float], share: float) -> None:
    meter = Meter()
    for one in seconds:
        meter.add("put", 0, one, 0.0)
    found = percentile(meter.latency, share)
    exact = sorted(seconds)[max(0, min(len(seconds) - 1, int(-(-share * len(seconds) // 1)) - 1))]
    assert found is not None
    assert exact / 1.27 <= found <= exact * 1.27


def test_a_percentile_of_nothing_is_none() -> None:
    assert percentile({}, 0.5) is None


def test_what_takes_longer_than_every_bound_counts_too() -> None:
    meter = Meter()
    meter.add("put", 0, 500.0, 0.0)
    assert percentile(meter.latency, 0.99) == BOUNDS[-1]
