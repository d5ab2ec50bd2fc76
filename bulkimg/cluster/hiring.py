"""Put the workers of a Dask cluster to work: each that is found gets one long task, until the run is over."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from distributed import Client
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError
from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

from bulkimg import __version__
from bulkimg.cluster.hall import Hall
from bulkimg.cluster.reach import CONNECT, closed, first_line

HIRE = 0.5  # seconds between two looks for new workers
RUN_OVER, DESK_GONE = "the run is over", "the desk is gone"  # how the task of a worker ends

# What Dask raises when scheduler, worker or network are away (distributed 2026.8). A closed or broken connection, a time
# limit, TLS and the system's errors are OSErrors (comm/core.py, core.py: send_recv, ConnectionPool.connect). Tasks of a
# lost scheduler are cancelled (client.py: _reconnect), a client that did not find it again is closed.
_AWAY = (OSError, ClosedClientError, CancelledError, KilledWorker, NoValidWorkerError, NoWorkerError)


class Hiring:
    """Looks for workers again and again. `hire` starts the task of the worker at an address, and returns its future.

    Without a scheduler none is hired, the present workers continue, and `hall.trouble` says why. A client looks for its lost
    scheduler for some seconds. After that `reach` finds one that was started again at the same address; it raises
    TargetError while there is none. Anything else that fails is a bug.
    """

    def __init__(
        self,
        client: Client,
        hall: Hall,
        hire: Callable[[Client, str], Any],
        reach: Callable[[], Awaitable[Client]] | None = None,
    ) -> None:
        self._client = self._first = client
        self._reach = reach
        self._hall = hall
        self._hire = hire
        self._scheduler = str(client.scheduler.address)
        self._hired: dict[str, Any] = {}  # futures by the address of the worker; None where it cannot work for this run

    async def keep(self) -> None:
        """Hire until this is cancelled."""
        try:
            while True:
                await self._look_if_there()
                await asyncio.sleep(HIRE)
        finally:
            await self._leave(self._client)

    async def _look_if_there(self) -> None:
        try:
            await self.look()
        except Exception as error:
            if not self._is_away(error):
                raise
            self._hall.trouble = f"the scheduler at {self._scheduler} {self._reason(error)}"
        else:
            self._hall.trouble = ""

    async def look(self) -> None:
        """Hire the workers that are new, and hear of those whose task has ended."""
        here = await self._workers()
        for gone in set(self._hired) - here:
            await _forget(self._hired.pop(gone))
        for one in here - set(self._hired):
            self._hired[one] = self._hire(self._client, one)
        for one, future in list(self._hired.items()):
            if future is not None and future.done():
                await self._ended(one, future)
        self._hall.expected = sum(future is not None for future in self._hired.values())

    async def _workers(self) -> set[str]:
        """Return the addresses of all workers."""
        if self._client.status == "closed" and self._reach:
            left, self._client = self._client, await self._reach()
            self._hired = {}  # the tasks of the lost scheduler are cancelled
            await self._leave(left)
        if not self._is_connected:  # it has no scheduler any more that could be asked
            raise CommClosedError
        async with asyncio.timeout(CONNECT):
            found = await self._client.scheduler.identity(n_workers=-1)
        return set(found["workers"])

    async def _ended(self, worker: str, future: Any) -> None:
        """Hire a worker again if the desk was gone for its task, and not if it cannot work for this run."""
        async with asyncio.timeout(CONNECT):  # a task whose worker ends now has no result
            found = await _end_of(future)
        if found in (DESK_GONE, ""):
            del self._hired[worker]
            return
        self._hired[worker] = None
        if found != RUN_OVER:
            self._hall.refuse(worker, found)

    async def _leave(self, client: Client) -> None:
        """Close a client, if it was made here."""
        if client is not self._first:
            await closed(client)

    @property
    def _is_connected(self) -> bool:
        return bool(self._client.status == "running")

    def _is_away(self, error: Exception) -> bool:
        """Return whether an error is not a bug: without its scheduler a client's calls may raise anything."""
        return isinstance(error, _AWAY) or not self._is_connected

    def _reason(self, error: Exception) -> str:
        if not self._is_connected:
            return "has closed the connection"
        if isinstance(error, TimeoutError):
            return f"has not answered for {CONNECT:g} s"
        return f"cannot be asked for workers: {first_line(error)}"


async def _end_of(future: Any) -> str:
    """Return how a task has ended: RUN_OVER, DESK_GONE, why its worker cannot work, or "" if it was cancelled."""
    if future.status == "error":
        error = await future.exception()
        more = f"; install bulkimg {__version__} there" if isinstance(error, ImportError) else ""
        return f"{first_line(error)}{more}"
    return str(await future.result()) if future.status == "finished" else ""


async def _forget(future: Any) -> None:
    """Cancel the task of a worker that is gone."""
    if future is not None:
        with suppress(*_AWAY):
            await future.cancel()
