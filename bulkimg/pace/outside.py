"""Name what comes from outside a program (time, sleep, chance), so that it can be an argument."""

import random
from collections.abc import Awaitable, Callable
from typing import Protocol


class Outside(Protocol):
    """`clock` is monotonic seconds, `now` seconds since the epoch."""

    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def now(self) -> Callable[[], float]: ...
    @property
    def sleep(self) -> Callable[[float], Awaitable[None]]: ...
    @property
    def rng(self) -> random.Random: ...
