"""This file is the one thread that writes while a run sends: it commits claims and outcomes in groups.

A claim is handed out only after its commit; an outcome is shown and appended to the results only after its commit.
After the first failure nothing is written any more and every caller gets the StorageError (RELIABILITY.md, invariant 16).
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from bulkimg.errors import StorageError
from bulkimg.ledger import claims
from bulkimg.ledger.store import Ledger, storage_errors
from bulkimg.model import Claim, Outcome

GROUP_ROWS = 256
GROUP_SECONDS = 0.02


class Sink(Protocol):
    """Where committed outcomes are appended."""

    def append(self, outcomes: Sequence[Outcome]) -> None: ...


_Op = Callable[[Ledger], Any]
_Job = tuple[_Op, "asyncio.Future[Any]"]


class Writer:
    """Owns the ledger's connection from `start` to `close`.

    `on_settled` is called in the event loop with outcomes that are durable and appended, one per manifest row;
    `on_failure` once, in the event loop, when the disk fails.
    """

    def __init__(
        self,
        ledger: Ledger,
        sink: Sink,
        on_settled: Callable[[Sequence[Outcome]], None],
        on_failure: Callable[[StorageError], None],
    ) -> None:
        self._ledger = ledger
        self._sink = sink
        self._on_settled = on_settled
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Outcome | _Job | None] = queue.SimpleQueue()
        self._failure: StorageError | None = None
        self._merged = bool(ledger.meta("merged", 0))
        self._thread = threading.Thread(target=self._run, name="bulkimg-ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def _do(self, op: _Op) -> Any:
        """Run `op` in the next commit; its result once it is durable. StorageError when the disk has failed."""
        done: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put((op, done))
        return await done

    def settle(self, outcome: Outcome) -> None:
        """Write the outcome with the next commit; `on_settled` tells when it is durable."""
        self._queue.put(outcome)

    async def claim(self, after: int, limit: int, new_job: Callable[[], str], now: float) -> list[Claim]:
        """The next rows to send, claimed; [] when there are no more."""
        found: list[Claim] = await self._do(lambda ledger: claims.claim(ledger, after, limit, new_job, now))
        return found

    async def claim_again(self, item: Claim, now: float) -> None:
        """One more attempt, durable when this returns."""
        await self._do(lambda ledger: claims.next_attempt(ledger, item, now))

    async def close_attempt(self, item: Claim, fate: str, code: str, http_status: int | None) -> None:
        """An attempt that did not settle its row."""
        await self._do(lambda ledger: claims.close_attempt(ledger, item, fate, code, http_status))

    async def release(self, items: Sequence[Claim]) -> None:
        """Claims that were never sent."""
        await self._do(lambda ledger: claims.release(ledger, items))

    async def close(self) -> None:
        """Commit what is waiting, then end the thread. Cannot be cancelled half-way: the thread is waited for."""
        self._queue.put(None)
        await asyncio.shield(asyncio.to_thread(self._thread.join))
        await asyncio.sleep(0)  # the last call_soon_threadsafe callbacks run before we return

    def raise_failure(self) -> None:
        """The StorageError that ended writing, if one did."""
        if self._failure:
            raise self._failure

    # -- in the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            group, open_for_more = self._gather()
            if self._failure is None:
                try:
                    self._commit(group)
                    continue
                except StorageError as error:
                    self._failure = error
                except BaseException as error:
                    self._failure = StorageError(f"{self._ledger.path}: writing failed: {error!r}")
                self._call(self._on_failure, self._failure)
            self._fail(group)

    def _gather(self) -> tuple[list[Outcome | _Job], bool]:
        """A group to commit: at once when someone waits for it, else after GROUP_SECONDS or GROUP_ROWS."""
        group: list[Outcome | _Job] = []
        first = self._queue.get()
        deadline = time.monotonic() + GROUP_SECONDS
        item: Outcome | _Job | None = first
        while item is not None:
            group.append(item)
            if len(group) >= GROUP_ROWS:
                return group, True
            try:
                hurry = isinstance(item, tuple)
                item = self._queue.get(timeout=0 if hurry else max(0, deadline - time.monotonic()))
            except queue.Empty:
                return group, True
        return group, False

    def _commit(self, group: Sequence[Outcome | _Job]) -> None:
        outcomes = [item for item in group if isinstance(item, Outcome)]
        jobs = [item for item in group if not isinstance(item, Outcome)]
        with self._ledger.transaction():
            if outcomes:
                claims.settle(self._ledger, outcomes)
            results = [op(self._ledger) for op, _ in jobs]
            settled = self._with_followers(outcomes)
        if settled:
            with storage_errors(self._ledger.path):
                self._sink.append(settled)
            self._call(self._on_settled, settled)
        for (_, done), result in zip(jobs, results, strict=True):
            self._call(_resolve, done, result)

    def _with_followers(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        if not self._merged:
            return outcomes
        return [
            replace(outcome, ordinal=ordinal, line=line)
            for outcome in outcomes
            for ordinal, line in [(outcome.ordinal, outcome.line), *claims.followers(self._ledger, outcome.ordinal)]
        ]

    def _fail(self, group: Sequence[Outcome | _Job]) -> None:
        assert self._failure is not None
        for item in group:
            if not isinstance(item, Outcome):
                self._call(_reject, item[1], self._failure)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        self._loop.call_soon_threadsafe(function, *args)


def _resolve(done: "asyncio.Future[Any]", result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _reject(done: "asyncio.Future[Any]", error: StorageError) -> None:
    if not done.done():
        done.set_exception(error)
