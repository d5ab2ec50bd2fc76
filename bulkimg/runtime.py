"""Name what comes from outside a program (time, sleep, chance), so that it is an argument."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Runtime:
    """`clock` is monotonic seconds, `now` seconds since the epoch; `rng` spreads waits and names jobs, it keeps no secret.

    A simulation hands in its own, and the rest of the program is the one that users run.
    """

    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    rng: random.Random = field(default_factory=random.Random)
