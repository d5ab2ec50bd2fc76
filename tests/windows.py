"""Count the events that fall into one window of time, for the tests of rates."""

from collections.abc import Sequence
from itertools import pairwise


def most_within(seconds: float, moments: Sequence[float]) -> int:
    """Return the most of these sorted moments that fall into any window of so many seconds."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def reached(per_second: float, moments: Sequence[float]) -> float:
    """Return the share of a rate that these sorted moments reach, without the time in which no sender ran.

    A busy machine stops all senders now and then. Of a gap between two requests, only twice their distance counts: what
    was missed within that is sent at once afterwards. Senders that wait for more than they have to do so for every
    request, and reach half of the rate.
    """
    seconds = sum(min(later - earlier, 2 / per_second) for earlier, later in pairwise(moments))
    return (len(moments) - 1) / seconds / per_second
