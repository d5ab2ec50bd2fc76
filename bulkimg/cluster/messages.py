"""The messages between desk and workers: JSON objects, whose times are seconds and whose shapes are here.

join   worker → desk  version, host, pid, origin, account, token                   → worker, or refused
renew  worker → desk  what it did since the last time                              → a lease
claim  worker → desk  how many rows                                                → rows, whose attempts are durable
write  worker → desk  outcomes and ends of attempts                                → once they are durable
leave  worker → desk  why
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from pydantic_core import from_json, to_json

from bulkimg.model import Claim, Outcome, Status

LEASE = 2.0  # seconds from the request of a lease to its end
RENEW = 0.5  # seconds between two leases
GRACE = 0.5  # seconds after its end until the rows of a silent worker are taken back
Message = Mapping[str, Any]


class LinkLost(Exception):
    """The other side cannot be reached at the moment."""


class Link(Protocol):
    """A worker's way to the desk. Raises LinkLost; the call may then have arrived or not."""

    async def call(self, op: str, message: Message) -> dict[str, Any]: ...
    async def close(self) -> None: ...


class Lease(NamedTuple):
    """What a worker may do, until `seconds` after it has asked. `rate` None is unlimited, 0 nothing at all."""

    number: int
    seconds: float
    rate: float | None
    concurrency: int
    paused: bool  # no new row is begun
    shut: bool  # the server is in trouble: failures that have no cause yet are the outage's
    retries: int  # so many more may be sent
    stopping: bool  # rows in flight finish; nothing else is begun


def packed(message: Message) -> bytes:
    """Return a message as bytes."""
    return to_json(message, inf_nan_mode="null")


def unpacked(data: bytes) -> dict[str, Any]:
    """Return the message of these bytes. Raises ValueError."""
    found = from_json(data)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def claim_of(values: list[Any]) -> Claim:
    """Return the claim whose values these are, in the order of its fields."""
    return Claim(*values)


def outcome_of(values: list[Any]) -> Outcome:
    """Return the outcome whose values these are, in the order of its fields."""
    found = Outcome(*values)
    return found._replace(status=Status(found.status), changed=tuple(found.changed))
