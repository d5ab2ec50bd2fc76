"""Run jobs under the uuid of X-Job-UUID with a few workers, and keep their results for hours."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from bulkimg.sandbox.refusals import PlainRefusal, Refusal, bad_job, duplicate_job, job_expired

_KEPT = 10800.0  # seconds: rest.completedApi.expiredPeriod


class Capacity:
    """A number of workers.

    Each is busy for the service time with one request; other requests queue (ApiMediatorImpl).
    """

    def __init__(self, workers: int, service_time: float) -> None:
        self._slots = asyncio.Semaphore(workers)
        self._service_time = service_time

    async def serve(self, load: Callable[[], Any], act: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Run `load` at the start and `act` on its result at the end. Two at once on one image lose an update."""
        async with self._slots:
            found = load()
            if self._service_time:
                await asyncio.sleep(self._service_time)
            return act(found)


class Jobs:
    """Jobs by uuid. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._results: dict[str, tuple[float, int, dict[str, Any]] | None] = {}
        self._running: set[asyncio.Task[None]] = set()

    def start(self, wanted: str | None, work: Any) -> str:
        """Run the awaitable under the uuid that the client chose.

        Refuses one that is in use or has not 32 characters.
        """
        if wanted is not None and (len(wanted) != 32 or wanted in self._results):
            work.close()
            raise bad_job() if len(wanted) != 32 else duplicate_job(wanted)
        job = wanted or uuid.uuid4().hex
        self._results[job] = None
        task = asyncio.create_task(self._run(job, work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return job

    async def _run(self, job: str, work: Any) -> None:
        try:
            status, body = 200, await work
        except Refusal as refusal:
            status, body = 503, refusal.body
        except PlainRefusal as refusal:  # in a job there is no REST layer any more
            status, body = 503, Refusal("SYS.1000", str(refusal)).body
        self._results[job] = (self._clock(), status, body)

    def poll(self, job: str) -> tuple[int, dict[str, Any]]:
        """Answer a poll: 202 and {} while the job runs; 200 or 503 with the result; 404 if it is unknown or too old."""
        if job not in self._results:
            raise job_expired()
        found = self._results[job]
        if found is None:
            return 202, {}
        done_at, status, body = found
        if self._clock() - done_at > _KEPT:
            raise job_expired()
        return status, body

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
