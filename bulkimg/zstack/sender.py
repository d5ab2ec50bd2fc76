"""Run a process that sends requests for a run (senders.py), without knowing of rows.

Signals are the run's business: this process ends when the run or its pipe does, and what it was sending is broken off then, as
it would be in the run's own process.
"""

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from bulkimg.errors import out_of_resources
from bulkimg.process import end_with, event_loop, leave_no_core, raise_files
from bulkimg.zstack.http import HttpClient
from bulkimg.zstack.pipe import READY, Pipe

Request = tuple[Any, ...]  # as the pipe brings it
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # a terminal sends them to us, too
MOST_FILES = 1100  # a run has at most 1,000 rows in flight


class Workers:
    """Send requests, each worker one at a time: a task for each request costs more.

    `say` gets (number, what came of it); `give_up` is called where the system does not give us what sending takes.
    """

    def __init__(self, client: HttpClient, say: Callable[[Any], None], give_up: Callable[[], None]) -> None:
        self._client = client
        self._say = say
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._idle: list[tuple[asyncio.Task[None], asyncio.Future[Request]]] = []
        self._busy: dict[int, asyncio.Task[None]] = {}

    def take(self, value: Request) -> None:
        """A request, or the number of a cancelled one."""
        number, *rest = value
        if not rest:
            if worker := self._busy.pop(number, None):
                worker.cancel()
        elif self._idle:
            worker, turn = self._idle.pop()
            self._busy[number] = worker
            turn.set_result(value)
        else:
            self._busy[number] = self._loop.create_task(self._work(value))

    async def _work(self, request: Request) -> None:
        me = asyncio.current_task()
        assert me is not None
        while True:
            number, latest, *asked = request
            said = await self._said(asked) if time.monotonic() <= latest else None
            self._say((number, said))
            del self._busy[number]
            turn: asyncio.Future[Request] = self._loop.create_future()
            self._idle.append((me, turn))
            request = await turn

    async def _said(self, asked: list[Any]) -> tuple[Any, ...] | str:
        try:
            return tuple(await self._client.send(*asked))
        except Exception as error:
            if out_of_resources(error):
                self._give_up()
                await asyncio.Event().wait()  # the run asks what became of it, as of all that we still send
            return type(error).__name__  # a bug: the run reports it; its text may hold headers


async def serve(end: socket.socket) -> None:
    """Send what the pipe brings, until the other end is gone."""
    over = asyncio.Event()
    workers: Workers | None = None

    def take(value: Request) -> None:
        nonlocal workers
        if workers:
            workers.take(value)
        else:
            _, timeout, authority = value
            client = HttpClient(timeout=timeout, authority=authority, now=time.time)
            workers = Workers(client, pipe.put, over.set)
            pipe.put((READY, None))

    pipe = Pipe(take, over.set)
    await asyncio.get_running_loop().create_unix_connection(lambda: pipe, sock=end)
    await over.wait()


def main(end: str, run: str) -> None:
    """`end` is the number of our end of the pipe, `run` that of the process at the other one. Returns when it is gone.

    The process that starts us keeps SIGNALS from us until we ignore them.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    end_with(int(run))
    leave_no_core()
    raise_files(MOST_FILES)
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        runner.run(serve(socket.socket(fileno=int(end))))
