"""Count the events that fall into one window of time, for the tests of rates."""

from collections.abc import Sequence


def most_within(seconds: float, moments: Sequence[float]) -> int:
    """Return the most of these sorted moments that fall into any window of so many seconds."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
