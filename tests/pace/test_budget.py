"""Retries are a tenth of the requests. When only retries are left, they are sent slowly instead of never."""

import random

from bulkimg.pace.budget import BANK, RetryBudget


def test_over_any_thousand_requests_retries_are_a_tenth_and_ten() -> None:
    now, rng = 0.0, random.Random(1)
    requests = 0
    budget = RetryBudget(lambda: now, lambda: 100.0, lambda: requests)
    kinds: list[bool] = []
    for _ in range(20_000):
        retry = rng.random() < 0.5 and budget.take(nothing_else=False)
        requests += 1
        kinds.append(retry)
        now += 0.01
    sums = [sum(kinds[at : at + 1000]) for at in range(0, len(kinds) - 1000, 7)]
    assert max(sums) <= 110
    assert sum(kinds) >= 0.09 * len(kinds)


def test_the_last_rows_are_tried_again_at_a_tenth_of_the_rate() -> None:
    now = 0.0
    budget = RetryBudget(lambda: now, lambda: 20.0, lambda: 0)
    for _ in range(int(BANK)):
        assert budget.take(nothing_else=True)
    times = []
    while now < 10:
        if budget.take(nothing_else=True):
            times.append(now)
        now += 0.05
    assert not budget.take(nothing_else=False)
    assert 17 <= len(times) <= 20
