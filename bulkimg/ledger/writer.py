"""Commit claims and outcomes in groups while a run sends, in the writer thread.

A group is everything that came during the commit before it. A claim is returned only after its commit. An outcome is
shown, and its slot is free, only after its commit. After the first failure nothing more is written, and every caller
gets the StorageError (docs/dev/reliability.md, invariant 16).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from bulkimg.errors import StorageError
from bulkimg.ledger import claims
from bulkimg.ledger.store import Ledger, Prepared, storage_errors
from bulkimg.ledger.thread import WriterThread
from bulkimg.model import Claim, Outcome


class Sink(Protocol):
    """Append committed outcomes. Every row up to the ordinal `complete` has its outcome."""

    def append(self, ledger: Ledger, outcomes: Sequence[Outcome], complete: int) -> None: ...


_Op = Callable[[Ledger], Any]


@dataclass(slots=True)
class _Group:
    """What the next commit writes. The event loop fills it and hands it to the thread as a whole."""

    outcomes: list[Outcome] = field(default_factory=list)
    as_sent: set[int] = field(default_factory=set)  # ordinals of outcomes that need no fields of their own
    slots: "list[asyncio.Future[None]]" = field(default_factory=list)  # one for each outcome
    ops: "list[tuple[_Op, asyncio.Future[Any]]]" = field(default_factory=list)


class Writer:
    """Write to the ledger. The writer owns the connection until `close`.

    `on_settled` is called in the event loop with durable outcomes, one for each manifest row. `on_failure` is called
    once, in the event loop, when the disk fails.
    """

    def __init__(
        self,
        ledger: Ledger,
        sink: Sink,
        on_settled: Callable[[Sequence[Outcome]], None],
        on_failure: Callable[[StorageError], None],
        writer_thread: WriterThread,
    ) -> None:
        self._ledger = ledger
        self._sink = sink
        self._on_settled = on_settled
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._group = _Group()
        self._idle = asyncio.Event()  # set when no group is being committed or waits for it
        self._idle.set()
        self._thread = writer_thread
        self._failure: StorageError | None = None
        self._merged = bool(ledger.meta("merged", 0))
        self._claimed: deque[int] = deque()  # ordinals in order, from the first without an outcome
        self._ahead: set[int] = set()  # the ordinals among them that have an outcome
        self._last = 0  # last claimed ordinal

    def settle(self, outcome: Outcome, *, as_sent: bool = False) -> "asyncio.Future[None]":
        """Write the outcome with the next commit. The future is done when it is durable, or when writing has failed.

        `as_sent`: the image shows just the fields that the claim named (see `claims.prepare`).
        """
        group = self._group
        if as_sent:
            group.as_sent.add(outcome.ordinal)
        group.outcomes.append(outcome)
        durable: asyncio.Future[None] = self._loop.create_future()
        group.slots.append(durable)
        self._soon()
        return durable

    async def ask(self, op: _Op) -> Any:
        """Run `op` on the ledger in the next commit. Returns its result once that is durable. Raises StorageError."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self._group.ops.append((op, done))
        self._soon()
        return await done

    def note(self, op: _Op) -> None:
        """Run `op` on the ledger in the next commit. Does not wait. A failure reaches every other caller."""
        done: asyncio.Future[Any] = self._loop.create_future()
        done.add_done_callback(_heed)
        self._group.ops.append((op, done))
        self._soon()

    def remember_key(self, key: str) -> None:
        """Write the action key that the server accepted with the next commit. A resumed run uses it."""
        self.note(lambda ledger: ledger.set_meta(action_key=key))

    async def claim(
        self, after: int, limit: int, new_job: Callable[[], str], now: float, only: Sequence[int] | None = None
    ) -> list[Claim]:
        """Claim the next rows to send. Returns [] when there are no more. `only` limits the rows to these ordinals."""
        found: list[Claim] = await self.ask(lambda ledger: claims.claim(ledger, after, limit, new_job, now, only))
        if found and only is None:
            self._claimed.extend([item.ordinal for item in found])
            self._last = found[-1].ordinal
        return found

    async def claim_again(self, item: Claim, now: float) -> None:
        """Write one more attempt of a row. It is durable when this returns."""
        await self.ask(lambda ledger: claims.add_attempts(ledger, [item], now))

    async def close_attempt(self, item: Claim, fate: str, code: str, http_status: int | None) -> None:
        """Record how an attempt ended that did not settle its row."""
        await self.ask(lambda ledger: claims.close_attempt(ledger, item, fate, code, http_status))

    async def release(self, items: Sequence[Claim]) -> None:
        """Delete claims that were never sent."""
        await self.ask(lambda ledger: claims.release(ledger, items))

    async def close(self) -> None:
        """Commit what is waiting, then end the thread."""
        if self._group.ops:
            self._soon()
        await self._idle.wait()
        await self._thread.close()

    def raise_failure(self) -> None:
        """Raise the StorageError that ended writing, if there was one."""
        if self._failure:
            raise self._failure

    # -- one group after the other --------------------------------------------------------------------------------------

    def _soon(self) -> None:
        """Commit at the end of this turn of the event loop, unless a commit is running or scheduled."""
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._commit_group)

    def _commit_group(self) -> None:
        group, self._group = self._group, _Group()
        prepared = claims.prepare(group.outcomes, group.as_sent) if group.outcomes else None
        try:
            self._thread.put(partial(self._write, group, prepared, self._complete(group.outcomes)))
        except StorageError as error:  # the system gives no thread
            self._failure = error
            self._failed(group, error, is_first=True)

    def _complete(self, outcomes: Sequence[Outcome]) -> int:
        """Return the ordinal up to which every row has its outcome once this group is durable."""
        for outcome in outcomes:
            self._ahead.add(outcome.ordinal)
        while self._claimed and self._claimed[0] in self._ahead:
            self._ahead.discard(self._claimed.popleft())
        return self._claimed[0] - 1 if self._claimed else self._last

    def _committed(self, group: _Group, settled: Sequence[Outcome], results: Sequence[Any]) -> None:
        if settled:
            self._on_settled(settled)
        for (_, done), result in zip(group.ops, results, strict=True):
            if not done.done():
                done.set_result(result)
        self._free(group)

    def _failed(self, group: _Group, error: StorageError, *, is_first: bool) -> None:
        if is_first:
            self._on_failure(error)
        for _, done in group.ops:
            if not done.done():
                done.set_exception(error)
        self._free(group)

    def _free(self, group: _Group) -> None:
        for slot in group.slots:
            if not slot.done():
                slot.set_result(None)
        self._ended()

    def _ended(self) -> None:
        self._idle.set()
        if self._group.outcomes or self._group.ops:
            self._soon()

    # -- in the thread --------------------------------------------------------------------------------------------------

    def _write(self, group: _Group, prepared: Prepared | None, complete: int) -> None:
        then: Callable[[], None] = self._ended
        try:
            then = self._written(group, prepared, complete)
        finally:
            self._loop.call_soon_threadsafe(then)

    def _written(self, group: _Group, prepared: Prepared | None, complete: int) -> Callable[[], None]:
        """Write the group. Returns what the event loop must call then."""
        if self._failure:
            return partial(self._failed, group, self._failure, is_first=False)
        try:
            return partial(self._committed, group, *self._commit(group, prepared, complete))
        except StorageError as error:
            self._failure = error
        except Exception as error:  # a bug must stop the run, not hang it
            self._failure = StorageError(f"{self._ledger.path}: writing failed: {error!r}")
        return partial(self._failed, group, self._failure, is_first=True)

    def _commit(self, group: _Group, prepared: Prepared | None, complete: int) -> tuple[Sequence[Outcome], list[Any]]:
        results: list[Any] = []
        if not group.ops:
            if prepared:
                self._ledger.insert_outcomes(prepared)
            settled = self._with_followers(group.outcomes)
        else:
            with self._ledger.transaction():
                if prepared:
                    self._ledger.insert_outcomes(prepared)
                results = [op(self._ledger) for op, _ in group.ops]
                settled = self._with_followers(group.outcomes)
        if settled:
            with storage_errors(self._ledger.path):
                self._sink.append(self._ledger, settled, complete)
        return settled, results

    def _with_followers(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        if not self._merged or not outcomes:
            return outcomes
        followers = claims.followers(self._ledger, [outcome.ordinal for outcome in outcomes])
        return [
            outcome._replace(ordinal=ordinal, line=line)
            for outcome in outcomes
            for ordinal, line in [(outcome.ordinal, outcome.line), *followers.get(outcome.ordinal, ())]
        ]


def _heed(done: "asyncio.Future[Any]") -> None:
    """Read the exception, which asyncio would otherwise print as never retrieved."""
    if not done.cancelled():
        done.exception()
