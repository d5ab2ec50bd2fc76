"""This file holds the whole run when the server asks for it (Retry-After, 429): one gate, not one wait per row."""

import asyncio
from collections.abc import Awaitable, Callable


class Gate:
    """Open unless held. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._until = 0.0

    def hold(self, seconds: float) -> None:
        """Let nobody through for `seconds` from now, or until a later hold's end."""
        self._until = max(self._until, self._clock() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds until the gate opens; 0 when it is open."""
        return max(0.0, self._until - self._clock())

    @property
    def held(self) -> bool:
        """Whether somebody has to wait at `passed`; costs no look at the clock while nothing holds the run."""
        return self._until > 0

    async def passed(self) -> None:
        """Return when the gate is open."""
        while (seconds := self.remaining) > 0:
            await self._sleep(seconds)
        self._until = 0.0
