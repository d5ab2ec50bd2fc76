"""The workers as the desk knows them, and the rows that each holds."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bulkimg.model import Claim


@dataclass(slots=True)
class Member:
    """One worker, from joining to its end. Times are seconds of the desk's clock; `joined_at` is since the epoch."""

    name: str
    host: str
    pid: int
    joined_at: float
    ends: float = -math.inf  # of its newest lease
    held: dict[int, Claim] = field(default_factory=dict)  # by ordinal
    given_back: set[int] = field(
        default_factory=set
    )  # those of which nothing was sent and whose attempts are taken back
    answered: dict[str, tuple[int, Any]] = field(default_factory=dict)  # number and reply of its last message, by kind
    state: str = "working"  # then left or lost
    why: str = ""
    rows: int = 0  # that it has settled
    requests: int = 0
    in_flight: int = 0
    limit: int = 0
    concurrency: int = 0  # of its newest lease
    rate: float = 0.0

    @property
    def is_here(self) -> bool:
        return self.state == "working"

    def as_document(self, *, over: bool = False) -> dict[str, Any]:
        """Return what people see of it. `over`: there are no more rows, so it leaves."""
        works = self.is_here and not over
        return {
            "name": self.name,
            "host": self.host,
            "pid": self.pid,
            "state": "left" if over and self.is_here else self.state,
            "why": self.why,
            "joined_at": self.joined_at,
            "rows": self.rows,
            "requests": self.requests,
            "in_flight": self.in_flight if works else 0,
            "rate": None if math.isinf(self.rate) else self.rate,
        }


class Crew:
    """All workers of a run. As the limit of the desk's pace it says how many rows they have in flight together."""

    adapts = False

    def __init__(self, most: int) -> None:
        self._members: dict[str, Member] = {}
        self.most = most
        self.baseline: float | None = None

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def add(self, member: Member) -> str:
        """Add a worker. Returns its id."""
        key = f"w{len(self._members) + 1}"
        self._members[key] = member
        return key

    def get(self, key: str) -> Member | None:
        """Return the worker of this id if it is still here."""
        member = self._members.get(key)
        return member if member and member.is_here else None

    def items(self) -> list[tuple[str, Member]]:
        return list(self._members.items())

    @property
    def here(self) -> list[Member]:
        return [member for member in self._members.values() if member.is_here]

    def part_of(self, member: Member) -> int:
        """Return how many rows a worker may have in flight: its part, and no more than the others leave. At least one."""
        here = self.here
        used = sum(max(one.concurrency, one.in_flight) for one in here if one is not member)
        return max(1, min(self.most // len(here), self.most - used))

    @property
    def in_flight(self) -> int:
        return sum(member.in_flight for member in self.here)

    @property
    def value(self) -> int:
        """Return how many rows may be in flight now."""
        return sum(member.limit for member in self.here) or self.most
