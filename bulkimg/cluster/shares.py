"""Divide one rate among workers so that no second, counted over all of them, is above it. Pure.

A share is a whole number k of requests a second, for which a worker's limiter lets at most k go in any second. A share
counts until a second after its lease has ended. So whatever second is looked at, the shares that could be used in it sum
up to the rate at most. No common clock is needed: a worker's lease ends earlier on its own clock than on the desk's.
"""

import math
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

REST = 1.0  # seconds


@dataclass(slots=True)
class _Lease:
    number: int
    share: float  # requests a second
    ends: float  # seconds of the desk's clock


class Shares:
    """The shares of one rate. Times are seconds of the desk's clock."""

    def __init__(self) -> None:
        self._leases: defaultdict[Hashable, list[_Lease]] = defaultdict(list)

    def grant(
        self, worker: Hashable, cap: float, wanted: float, holding: int, ends: float, now: float
    ) -> tuple[int, float]:
        """Give a worker a lease until `ends`. Returns its number, from 1, and its share: at most `wanted` of the `cap`.

        `holding` is the number of the lease that the worker has read last; 0 for none. It uses no earlier one any more.
        """
        leases = self._leases[worker]
        for lease in leases:
            if lease.number < holding:
                lease.ends = min(lease.ends, now)
        free = cap if math.isinf(cap) else cap - sum(self._reserved(one, now) for one in self._leases if one != worker)
        share = max(0.0, min(wanted, free))
        if share < wanted and not math.isinf(share):
            share = float(math.floor(share))
        leases[:] = [lease for lease in leases if lease.ends + REST > now]
        number = max([holding, *(lease.number for lease in leases)]) + 1
        leases.append(_Lease(number, share, ends))
        return number, share

    def end(self, worker: Hashable, now: float) -> None:
        """End the leases of a worker that begins nothing more."""
        for lease in self._leases[worker]:
            lease.ends = min(lease.ends, now)

    def in_use(self, now: float) -> float:
        """Return the requests a second that can have been used in the second before now."""
        return sum(self._reserved(worker, now) for worker in self._leases)

    def _reserved(self, worker: Hashable, now: float) -> float:
        return max((lease.share for lease in self._leases[worker] if lease.ends + REST > now), default=0.0)


MARGIN = 0.01  # part of the rate: requests of several processes arrive less evenly than those of one
FEW = 10  # requests a second, below which it would be too much


def usable(cap: float) -> float:
    """Return what is divided of a rate: a little less."""
    return cap if math.isinf(cap) or cap < FEW else math.floor(cap * (1 - MARGIN))


def wanted(cap: float, index: int, workers: int) -> float:
    """Return what worker `index` (from 0) of so many should get: whole requests a second, as equal as possible.

    What is left of a rate that is no whole number goes to the first. A rate below one goes to it as a whole.
    """
    if math.isinf(cap):
        return cap
    whole = math.floor(cap)
    part = whole // workers + (index < whole % workers)
    return part + (cap - whole if index == 0 else 0.0)
