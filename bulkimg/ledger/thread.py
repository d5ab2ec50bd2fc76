"""Write in one thread while a run sends: work in the order it was put in, one piece at a time."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from bulkimg.errors import StorageError


class WriterThread(Protocol):
    """Where the writer's work is done. A simulation does it in the event loop instead."""

    def put(self, work: Callable[[], None]) -> None: ...

    async def close(self) -> None:
        """Return when everything that was put in is done."""


class OwnThread:
    """A thread of its own."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bulkimg-ledger", daemon=True)

    def put(self, work: Callable[[], None]) -> None:
        if self._thread.ident is None:
            try:
                self._thread.start()
            except RuntimeError as error:  # what Python says when the system has no more memory or threads for us
                raise StorageError(f"{error}; raise the limits (ulimit -v, -u), then resume the run") from None
        self._queue.put(work)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    async def close(self) -> None:
        """Cannot be cancelled half-way: the thread is waited for."""
        if self._thread.ident is not None:
            self._queue.put(None)
            await asyncio.shield(asyncio.to_thread(self._thread.join))
            await asyncio.sleep(0)  # the last call_soon_threadsafe callbacks run before we return
