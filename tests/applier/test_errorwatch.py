"""Waits and stop rules, without sleeping."""

import random

import pytest

from bulkimg.applier.errorwatch import ErrorWatch
from bulkimg.pace import full_jitter
from bulkimg.values import Limit, parse_limit


def test_waits_are_spread_from_zero_to_a_bound_that_doubles_up_to_its_most() -> None:
    rng = random.Random(1)
    for tries, bound in ((1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (50, 30.0)):
        waits = [full_jitter(tries, rng) for _ in range(500)]
        assert 0 <= min(waits) < bound * 0.1
        assert bound * 0.9 < max(waits) <= bound


@pytest.mark.parametrize(
    ("limit", "errors", "fine", "stops"),
    [
        ("3", 3, 10, False),
        ("3", 4, 10, True),
        ("0", 1, 0, True),
        ("5%", 5, 95, False),
        ("5%", 6, 94, True),
        ("5%", 50, 0, False),  # too few for a share
        ("none", 5000, 0, False),
    ],
)
def test_the_error_limit(limit: str, errors: int, fine: int, stops: bool) -> None:
    watch = ErrorWatch(parse_limit(limit))
    said = [watch.note(error=error) for error in [True] * errors + [False] * fine]
    assert bool(said[-1]) is stops


def test_a_share_is_of_the_last_thousand() -> None:
    watch = ErrorWatch(Limit(share=0.5, sample=1000))
    for _ in range(5000):
        watch.note(error=False)
    for number in range(500):
        assert not watch.note(error=True), number
    assert watch.note(error=True)
