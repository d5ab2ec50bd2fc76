"""Commit claims and outcomes in groups while a run sends, in a lane of their own.

A claim is handed out only after its commit; an outcome is shown and appended to the results only after its commit.
After the first failure nothing is written any more and every caller gets the StorageError (docs/dev/reliability.md, invariant 16).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from bulkimg.errors import StorageError
from bulkimg.ledger import claims
from bulkimg.ledger.lane import Lane
from bulkimg.ledger.store import Ledger, storage_errors
from bulkimg.model import Claim, Outcome

GROUP_ROWS = 256
GROUP_SECONDS = 0.02


class Sink(Protocol):
    """Where committed outcomes are appended."""

    def append(self, ledger: Ledger, ordinals: Sequence[int]) -> None: ...


_Op = Callable[[Ledger], Any]
_Job = tuple[_Op, "asyncio.Future[Any]"]


@dataclass(slots=True)
class _Group:
    """What the next commit writes. Filled in the event loop, handed to the lane as a whole: it wakes once a group."""

    outcomes: list[Outcome] = field(default_factory=list)
    jobs: list[_Job] = field(default_factory=list)


class Writer:
    """Owns the ledger's connection until `close`.

    `on_settled` is called in the event loop with outcomes that are durable and appended, one per manifest row;
    `on_failure` once, in the event loop, when the disk fails.
    """

    def __init__(
        self,
        ledger: Ledger,
        sink: Sink,
        on_settled: Callable[[Sequence[Outcome]], None],
        on_failure: Callable[[StorageError], None],
        lane: Lane,
    ) -> None:
        self._ledger = ledger
        self._sink = sink
        self._on_settled = on_settled
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._group = _Group()
        self._timer: asyncio.Handle | None = None
        self._lane = lane
        self._failure: StorageError | None = None
        self._merged = bool(ledger.meta("merged", 0))

    async def _do(self, op: _Op) -> Any:
        """Run `op` in the next commit; its result once it is durable. StorageError when the disk has failed."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self._group.jobs.append((op, done))
        self._flush()
        return await done

    def settle(self, outcome: Outcome) -> None:
        """Write the outcome with the next commit; `on_settled` is called when it is durable."""
        self._group.outcomes.append(outcome)
        if len(self._group.outcomes) >= GROUP_ROWS:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(GROUP_SECONDS, self._flush)

    def remember_key(self, key: str) -> None:
        """The spelling that the server has accepted, for a run that is resumed; written with the next commit."""
        done: asyncio.Future[Any] = self._loop.create_future()
        done.add_done_callback(_heed)  # not awaited; a failure reaches every caller anyway
        self._group.jobs.append((lambda ledger: ledger.set_meta(action_key=key), done))

    def _flush(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        group, self._group = self._group, _Group()
        if group.outcomes or group.jobs:
            self._lane.put(partial(self._write, group))

    async def claim(
        self, after: int, limit: int, new_job: Callable[[], str], now: float, only: Sequence[int] | None = None
    ) -> list[Claim]:
        """The next rows to send, claimed; [] when there are no more. `only`: none but these ordinals."""
        found: list[Claim] = await self._do(lambda ledger: claims.claim(ledger, after, limit, new_job, now, only))
        return found

    async def ask(self, op: _Op) -> Any:
        """What `op` makes of the ledger, once everything that came before it is durable."""
        return await self._do(op)

    async def claim_again(self, item: Claim, now: float) -> None:
        """One more attempt, durable when this returns."""
        await self._do(lambda ledger: claims.add_attempts(ledger, [item], now))

    async def close_attempt(self, item: Claim, fate: str, code: str, http_status: int | None) -> None:
        """An attempt that did not settle its row."""
        await self._do(lambda ledger: claims.close_attempt(ledger, item, fate, code, http_status))

    async def release(self, items: Sequence[Claim]) -> None:
        """Claims that were never sent."""
        await self._do(lambda ledger: claims.release(ledger, items))

    async def close(self) -> None:
        """Commit what is waiting, then end."""
        self._flush()
        await self._lane.close()

    def raise_failure(self) -> None:
        """The StorageError that ended writing, if one did."""
        if self._failure:
            raise self._failure

    # -- in the lane ----------------------------------------------------------------------------------------------------

    def _write(self, group: _Group) -> None:
        if self._failure is None:
            try:
                self._commit(group)
                return
            except StorageError as error:
                self._failure = error
            except Exception as error:  # a bug must stop the run, not hang it
                self._failure = StorageError(f"{self._ledger.path}: writing failed: {error!r}")
            self._call(self._on_failure, self._failure)
        for _, done in group.jobs:
            self._call(_reject, done, self._failure)

    def _commit(self, group: _Group) -> None:
        with self._ledger.transaction():
            if group.outcomes:
                claims.settle(self._ledger, group.outcomes)
            results = [op(self._ledger) for op, _ in group.jobs]
            settled = self._with_followers(group.outcomes)
        if settled:
            with storage_errors(self._ledger.path):
                self._sink.append(self._ledger, [outcome.ordinal for outcome in settled])
            self._call(self._on_settled, settled)
        for (_, done), result in zip(group.jobs, results, strict=True):
            self._call(_resolve, done, result)

    def _with_followers(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        if not self._merged:
            return outcomes
        followers = claims.followers(self._ledger, [outcome.ordinal for outcome in outcomes])
        return [
            outcome._replace(ordinal=ordinal, line=line)
            for outcome in outcomes
            for ordinal, line in [(outcome.ordinal, outcome.line), *followers.get(outcome.ordinal, ())]
        ]

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)


def _heed(done: "asyncio.Future[Any]") -> None:
    """Look at the exception, which asyncio would otherwise print as never retrieved."""
    if not done.cancelled():
        done.exception()


def _resolve(done: "asyncio.Future[Any]", result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _reject(done: "asyncio.Future[Any]", error: StorageError) -> None:
    if not done.done():
        done.set_exception(error)
