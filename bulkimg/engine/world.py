"""Everything that comes from outside a run: time, sleep, chance, the network, the ledger's thread, other processes that
share its rate, and the orders of `bulkimg ctl`.

A simulation hands in its own, and the rest of the program is the one that users run.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bulkimg.engine.control import Handler, listening
from bulkimg.ledger import Lane, ThreadLane
from bulkimg.pace.slots import Slots, shared_slots
from bulkimg.settings import Settings
from bulkimg.zstack import Client, HttpClient, read_authority


def _http_client(settings: Settings, now: Callable[[], float]) -> Client:
    authority = read_authority(settings.ca_file)
    return HttpClient(settings.target, timeout=settings.timeout, authority=authority, now=now)


@dataclass(frozen=True, slots=True)
class World:
    """`clock` is monotonic seconds, `now` seconds since the epoch; `rng` spreads waits and names jobs, it keeps no secret."""

    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)
    connect: Callable[[Settings, Callable[[], float]], Client] = _http_client
    lane: Callable[[], Lane] = ThreadLane
    slots: Callable[[str], Slots] = shared_slots
    listen: Callable[[Path, Handler], AbstractAsyncContextManager[str]] = listening
