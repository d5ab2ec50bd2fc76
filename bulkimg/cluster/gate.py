"""Close the one gate of all workers when the server is in trouble, and open it by one worker's trial."""

import asyncio
from collections.abc import Hashable

from bulkimg.pace import WELL, Health, State
from bulkimg.pace.breaker import CircuitBreaker
from bulkimg.pace.health import SILENT
from bulkimg.pace.pace import NOBODY

PATIENCE = 3.0  # seconds in which a worker must have begun the trial
ALL_ASKED = 1.0  # seconds in which every worker asks for a lease


class Gate:
    """The circuit breaker of the desk, fed with what the workers report. A closed gate gives no leases but the trial's."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._epoch: int | None = None  # of the trial
        self._tester: Hashable | None = None  # the worker that has it
        self._tested_since = 0.0
        self._idle: set[Hashable] = set()  # workers that had the trial and nothing to send
        self._free_since = 0.0  # when the last of them passed it on
        self._reopening: asyncio.Task[None] | None = None

    @property
    def is_shut(self) -> bool:
        return self._breaker.is_open

    def may_send(self, worker: Hashable, now: float, *, has_rows: bool = True) -> bool:
        """Return whether this worker may get a lease. While the gate is shut one that has rows may, for the trial."""
        if not self._breaker.is_open:
            return True
        if self._epoch is not None and self._tester is None and has_rows and self._is_next(worker, now):
            self._tester, self._tested_since = worker, now
        return self._epoch is not None and self._tester == worker

    def _is_next(self, worker: Hashable, now: float) -> bool:
        """Return whether it is the worker's turn: those that had nothing to send come after all others."""
        if worker in self._idle and now <= self._free_since + ALL_ASKED:
            return False
        if worker in self._idle:
            self._idle.clear()
        return True

    def trouble(self, worker: Hashable, why: str, seconds: float | None) -> None:
        """Take note that a worker found the server in trouble. `seconds` is what the server asks to wait, else None."""
        health = Health(State.SICK, why) if seconds is None else Health(State.ASKED, why, seconds)
        if self._tester == worker and self._epoch is not None:
            epoch, self._epoch, self._tester = self._epoch, None, None
            self._breaker.record(epoch, health)
        elif seconds is not None:
            self._take_trial_back()  # the server has asked for a longer wait
            self._breaker.record(NOBODY, health)
        elif not self._breaker.is_open:
            self._breaker.trip(why)
        self._reopen()

    def _take_trial_back(self) -> None:
        """Let the trial wait again, if no worker has it yet."""
        if self._epoch is not None and self._tester is None:
            epoch, self._epoch = self._epoch, None
            self._breaker.record(epoch, SILENT)

    def well(self, worker: Hashable) -> None:
        """Take note that the server has answered a worker."""
        if self._tester == worker and self._epoch is not None:
            epoch, self._epoch, self._tester = self._epoch, None, None
            self._breaker.record(epoch, WELL)

    def pass_on(self, worker: Hashable) -> None:
        """Let another worker have the trial: this one is gone."""
        if self._tester == worker:
            self._tester = None

    def idle(self, worker: Hashable, now: float) -> None:
        """Take note that a worker has nothing to report. A tester that has nothing to send passes the trial on."""
        if self._tester == worker and now > self._tested_since + PATIENCE:
            self._tester, self._free_since = None, now
            self._idle.add(worker)

    def _reopen(self) -> None:
        if self._breaker.is_open and (self._reopening is None or self._reopening.done()):
            self._reopening = asyncio.ensure_future(self._wait_for_trial())

    async def _wait_for_trial(self) -> None:
        epoch = await self._breaker.passed()
        if self._breaker.is_trial(epoch):
            self._epoch = epoch
            self._idle.clear()

    async def close(self) -> None:
        """End the waiting."""
        if self._reopening:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
