"""Define the clock, sleep and random generator that a program uses, so that they are arguments."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Runtime:
    """The clocks, sleep and random generator of a program.

    `clock` is monotonic seconds, `now` seconds since the epoch. `rng` spreads waits and makes job ids; it makes no
    secrets. A simulation passes its own, and all other code is the same as in production.
    """

    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)
