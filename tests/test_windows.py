"""What the tests of rates count with."""

import pytest

from tests.windows import most_within, reached


def test_the_fullest_window_is_found() -> None:
    assert most_within(1.0, [0.0, 0.5, 0.9, 1.0, 3.0]) == 3
    assert most_within(1.0, [0.0]) == 1


@pytest.mark.parametrize(
    ("distance", "share"), [(0.01, 1.0), (0.0102, 0.98), (0.0125, 0.8), (0.02, 0.5), (0.03, 0.5), (1.0, 0.5)]
)
def test_senders_that_wait_for_nothing_do_not_reach_the_rate(distance: float, share: float) -> None:
    assert reached(100, [number * distance for number in range(200)]) == pytest.approx(share, abs=0.01)


def test_a_machine_that_stood_still_does_not_count() -> None:
    before = [number * 0.01 for number in range(100)]
    after = [3.0, 3.0002, *(3.0 + number * 0.01 for number in range(1, 100))]
    assert reached(100, before + after) == pytest.approx(1.0, abs=0.01)
