"""Ending a run from outside: keep the reason, and cancel the step under way."""

import asyncio
from collections.abc import Awaitable

from bulkimg.applier import Ending
from bulkimg.errors import TargetError


class Interrupt:
    """`stop`: why the run must end, once it must. `at_once`: do not wait for rows in flight either."""

    def __init__(self) -> None:
        self.stop: Ending | None = None
        self.at_once = False
        self.error: TargetError | None = None  # why the server could not be worked with
        self._step: asyncio.Future[None] | None = None  # login, survey, question or logout under way

    def break_off(self) -> None:
        """End the step under way: a login that hangs, a survey that is long."""
        if self._step:
            self._step.cancel()

    async def until_stopped(self, step: Awaitable[None]) -> Ending | None:
        """One step that may be broken off; why the run must stop, or None."""
        if self.stop:
            return self.stop
        self._step = asyncio.ensure_future(step)
        try:
            await self._step
        except TargetError as error:
            self.error = error
            return Ending(error.exit_code, str(error))
        except asyncio.CancelledError:
            if self.stop is None:
                raise
        finally:
            self._step = None
        return self.stop

    async def whatever_comes_of_it(self, step: Awaitable[None]) -> None:
        """One step of a run that is over: taken though it was stopped, and broken off like any other."""
        self._step = asyncio.ensure_future(step)
        await asyncio.gather(self._step, return_exceptions=True)
