"""This file counts what came together: the hard part of every promise about a rate."""

from collections.abc import Sequence


def most_within(seconds: float, moments: Sequence[float]) -> int:
    """The most moments, which are in order, that any window of so many seconds holds."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
