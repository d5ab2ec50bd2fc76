"""Write in one thread while a run sends: work is done in order, one piece at a time."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from bulkimg.errors import StorageError


class WriterThread(Protocol):
    """Do the ledger's work. A simulation replaces it by one that works in the event loop."""

    def put(self, work: Callable[[], None]) -> None: ...

    async def close(self) -> None:
        """Return when all work is done."""


class OwnThread:
    """Do the work in a thread of its own."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="bulkimg-ledger", daemon=True)

    def put(self, work: Callable[[], None]) -> None:
        if self._thread.ident is None:
            try:
                self._thread.start()
            except RuntimeError as error:  # Python's message if the system has no memory or threads left
                raise StorageError(f"{error}; raise the limits (ulimit -v, -u), then resume the run") from None
        self._queue.put(work)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    async def close(self) -> None:
        """Wait for the thread. Cancelling does not interrupt the wait."""
        if self._thread.ident is not None:
            self._queue.put(None)
            await asyncio.shield(asyncio.to_thread(self._thread.join))
            await asyncio.sleep(0)  # let the last call_soon_threadsafe callbacks run
