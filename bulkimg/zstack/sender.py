"""This file is a process that puts requests on the wire for a run (senders.py), and knows nothing of rows.

`python -m bulkimg.zstack.sender FD TIMEOUT CA_FILE`, FD being its end of the pipe. Signals are the run's business: this
process ends when the pipe does, and what it was sending is broken off then, as it would be in the run's own process.
"""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bulkimg.process import event_loop, leave_no_core, raise_files
from bulkimg.zstack.http import HttpClient
from bulkimg.zstack.pipe import READY, Pipe

Request = tuple[Any, ...]  # as the pipe brings it
MOST_FILES = 1100  # a run has at most 1,000 rows in flight


class Workers:
    """Send requests, each worker one at a time: a task for each request would cost a fifth of what HTTP does."""

    def __init__(self, client: HttpClient, say: Callable[[Any], None]) -> None:
        self._client = client
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._idle: list[asyncio.Future[Request]] = []
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._all: set[asyncio.Task[None]] = set()

    def take(self, value: Request) -> None:
        """A request, or the number of one that nobody waits for any more."""
        number = value[0]
        if len(value) == 1:
            if worker := self._busy.get(number):
                worker.cancel()
        elif self._idle:
            self._idle.pop().set_result(value)
        else:
            worker = self._loop.create_task(self._work(value))
            self._all.add(worker)
            worker.add_done_callback(self._all.discard)

    async def _work(self, request: Request) -> None:
        me = asyncio.current_task()
        assert me is not None
        while True:
            number, *asked = request
            self._busy[number] = me
            try:
                said: Any = tuple(await self._client.send(*asked))
            except Exception as error:  # a bug: the run tells it
                said = type(error).__name__  # its text may hold headers
            finally:
                del self._busy[number]
            self._say((number, said))
            next_one: asyncio.Future[Request] = self._loop.create_future()
            self._idle.append(next_one)
            request = await next_one


async def serve(end: socket.socket, timeout: float, ca_file: Path | None) -> None:  # noqa: ASYNC109 - the requests'
    """Send what the pipe brings, until the other end is gone."""
    client = HttpClient(timeout=timeout, ca_file=ca_file, now=time.time)
    gone = asyncio.Event()
    workers = Workers(client, lambda value: pipe.put(value))  # noqa: PLW0108 - the pipe comes after
    pipe = Pipe(workers.take, gone.set)
    await asyncio.get_running_loop().create_unix_connection(lambda: pipe, sock=end)
    pipe.put((READY, None))
    try:
        await gone.wait()
    finally:
        await client.close()


def main(fd: str, timeout: str, ca_file: str) -> None:
    """Until the pipe ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    leave_no_core()
    raise_files(MOST_FILES)
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(serve(socket.socket(fileno=int(fd)), float(timeout), Path(ca_file) if ca_file else None))


if __name__ == "__main__":
    main(*sys.argv[1:])
