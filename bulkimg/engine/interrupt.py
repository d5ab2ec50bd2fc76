"""Stop a run from outside: keep the reason, and cancel the present step."""

import asyncio
from collections.abc import Awaitable

from bulkimg.applier import Ending
from bulkimg.errors import TargetError


class Interrupt:
    """The request to stop a run. `stop` is the reason, or None. `at_once`: do not wait for rows in flight either."""

    def __init__(self) -> None:
        self.stop: Ending | None = None
        self.at_once = False
        self.error: TargetError | None = None  # why the server could not be used
        self._step: asyncio.Future[None] | None = None  # the present login, survey, question or logout

    def break_off(self) -> None:
        """Cancel the present step, such as a login that hangs or a long survey."""
        if self._step:
            self._step.cancel()

    async def until_stopped(self, step: Awaitable[None]) -> Ending | None:
        """Wait for one step that may be cancelled. Returns why the run must stop, or None."""
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

    async def unless_broken_off(self, step: Awaitable[None]) -> bool:
        """Wait for a step after the run. Returns whether it came to its end."""
        task = self._step = asyncio.ensure_future(step)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:  # of the whole run
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            self._step = None
        if task.cancelled():
            return False
        task.result()
        return True

    async def whatever_comes_of_it(self, step: Awaitable[None]) -> None:
        """Wait for one last step, such as the logout, although the run is stopped. Its errors are ignored."""
        self._step = asyncio.ensure_future(step)
        await asyncio.gather(self._step, return_exceptions=True)
