"""Execute the runs of a campaign, all at once or one by one. What happens to one run does not happen to another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from bulkimg.engine.execute import Engine
from bulkimg.engine.planning import Approve
from bulkimg.engine.run import OpenRun
from bulkimg.engine.together import lock_order
from bulkimg.errors import BulkimgError, Exit
from bulkimg.model import CanaryPassed, PlanCounts, PlanMade, Summary

Plans = Mapping[str, PlanCounts]
Ask = Callable[[Plans], Awaitable[bool]]
AskCanary = Callable[[str, CanaryPassed], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a target's run ended: its summary, or the error that ended it. None of both: it was not begun."""

    summary: Summary | None = None
    error: BulkimgError | None = None

    @property
    def exit_code(self) -> int:
        """Return the exit code of a run that ended like this. A run that was not begun is resumable (6)."""
        if self.summary:
            return self.summary.exit_code
        return int(self.error.exit_code if self.error else Exit.TIME_BOX)


class Sides:
    """The engines of a campaign that are under way, for signals and for figures."""

    def __init__(self) -> None:
        self.engines: dict[str, Engine] = {}
        self.is_stopping = False

    def stop(self, exit_code: Exit, why: str) -> None:
        """Start no new row and no other run; rows in flight finish."""
        self.is_stopping = True
        for engine in self.engines.values():
            engine.stop(exit_code, why)

    def stop_now(self) -> None:
        """End at once."""
        self.is_stopping = True
        for engine in self.engines.values():
            engine.stop_now()


class Together:
    """Ask once for the plans of several runs: when each has made its plan or has ended without one."""

    def __init__(self, names: Sequence[str], ask: Ask, ask_canary: AskCanary) -> None:
        self._names = names
        self._missing = set(names)
        self._plans: dict[str, PlanCounts] = {}
        self._ask, self._ask_canary = ask, ask_canary
        self._all_here = asyncio.Event()
        self._answer: asyncio.Task[bool] | None = None
        self._canary = asyncio.Lock()

    def approve(self, name: str) -> Approve:
        """Return the question of one run."""

        async def approve(what: PlanMade | CanaryPassed) -> bool:
            if isinstance(what, CanaryPassed):
                async with self._canary:  # one question at a time
                    return await self._ask_canary(name, what)
            self._plans[name] = what.counts
            self.ended(name)
            await self._all_here.wait()
            if self._answer is None:
                in_order = {name: self._plans[name] for name in self._names if name in self._plans}
                self._answer = asyncio.ensure_future(self._ask(in_order))
            return await asyncio.shield(self._answer)

        return approve

    def ended(self, name: str) -> None:
        """Take note that no more is to come of a run before the question."""
        self._missing.discard(name)
        if not self._missing:
            self._all_here.set()

    def cancel(self) -> None:
        """End a question that is not needed any more."""
        if self._answer and not self._answer.done():
            self._answer.cancel()


class Turns:
    """Let runs pass one after the other, in one order for all campaigns, whichever of them is ready first.

    Runs of one question wait for each other. If two campaigns were admitted in different orders, each could wait for a
    run of the other.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._passed = {name: asyncio.Event() for name in names}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Enter the block when every earlier run has left it or has ended."""
        for earlier, passed in self._passed.items():
            if earlier == name:
                break
            await passed.wait()
        try:
            yield
        finally:
            self.ended(name)

    def ended(self, name: str) -> None:
        """Take note that no other run has to wait for this one any more."""
        self._passed[name].set()


Turn = Callable[[], AbstractAsyncContextManager[None]]
Begin = Callable[[str, OpenRun, Approve | None, Turn], Engine]


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked before rows are sent: for the plans of several runs at once, and for the canary of one."""

    plans: Ask
    canary: AskCanary

    def of_one(self, name: str) -> Approve:
        """Return the question of a run that is asked about by itself."""

        async def approve(what: PlanMade | CanaryPassed) -> bool:
            if isinstance(what, CanaryPassed):
                return await self.canary(name, what)
            return await self.plans({name: what.counts})

        return approve


class Execution:
    """The execution of several runs. `begin` makes the engine of one. Without `questions` everything is approved."""

    def __init__(
        self,
        runs: Mapping[str, OpenRun],
        begin: Begin,
        sides: Sides,
        questions: Questions | None,
        *,
        stop_on_failure: bool,
    ) -> None:
        self._runs, self._begin, self._sides = runs, begin, sides
        self._questions = questions
        self._stop_on_failure = stop_on_failure
        self._together: Together | None = None
        self._turns: Turns | None = None
        self._ended: dict[str, Ended] = {}

    async def in_parallel(self) -> dict[str, Ended]:
        """Execute all at once, and ask once. Returns how each ended; a bug of ours is raised when all have ended."""
        if asks := self._questions:
            self._together = Together(list(self._runs), asks.plans, asks.canary)
            self._turns = Turns(lock_order({name: run.settings for name, run in self._runs.items()}))
        try:
            found = await asyncio.gather(*map(self._one, self._runs), return_exceptions=True)
        finally:
            if self._together:
                self._together.cancel()
        for error in found:
            if error:
                raise error
        return {name: self._ended[name] for name in self._runs}

    async def one_by_one(self) -> dict[str, Ended]:
        """Execute one after the other, and ask about each. Returns how each ended."""
        for name in self._runs:
            await self._one(name)
        return self._ended

    async def _one(self, name: str) -> None:
        if self._sides.is_stopping:
            self._ended[name] = Ended()
            return
        try:
            engine = self._sides.engines[name] = self._begin(
                name, self._runs[name], self._approve(name), self._turn(name)
            )
            self._ended[name] = Ended(await engine.execute())
        except BulkimgError as error:
            self._ended[name] = Ended(error=error)
        finally:
            if self._together:
                self._together.ended(name)
            if self._turns:
                self._turns.ended(name)
        if self._stop_on_failure and self._ended[name].exit_code and not self._sides.is_stopping:
            self._sides.stop(Exit.TIME_BOX, f"target {name} failed, and --stop-on-failure stops the others")

    def _approve(self, name: str) -> Approve | None:
        if self._together:
            return self._together.approve(name)
        return self._questions.of_one(name) if self._questions else None

    def _turn(self, name: str) -> Turn:
        return partial(self._turns.turn, name) if self._turns else nullcontext
