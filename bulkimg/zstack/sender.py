"""This file is a process that puts requests on the wire for a run (senders.py), and knows nothing of rows.

`python -m bulkimg.zstack.sender FD TIMEOUT CA_FILE`, FD being its end of the pipe. Signals are the run's business: this
process ends when the pipe does, and what it was sending is broken off then, as it would be in the run's own process.
"""

import asyncio
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from bulkimg.process import event_loop, leave_no_core, raise_files
from bulkimg.zstack.http import HttpClient
from bulkimg.zstack.pipe import READY, Pipe

MOST_FILES = 1100  # a run has at most 1,000 rows in flight


async def serve(end: socket.socket, timeout: float, ca_file: Path | None) -> None:  # noqa: ASYNC109 - the requests'
    """Send what the pipe brings, each request in a task of its own, until the other end is gone."""
    client = HttpClient(timeout=timeout, ca_file=ca_file, now=time.time)
    gone = asyncio.Event()
    tasks: dict[int, asyncio.Task[None]] = {}

    async def send(number: int, *request: Any) -> None:
        try:
            said: Any = tuple(await client.send(*request))
        except Exception as error:  # a bug: the run tells it
            said = type(error).__name__  # its text may hold headers
        pipe.put((number, said))

    def take(value: tuple[Any, ...]) -> None:
        number = value[0]
        if len(value) > 1:
            task = tasks[number] = asyncio.ensure_future(send(*value))
            task.add_done_callback(lambda task: tasks.pop(number, None))
        elif number in tasks:
            tasks[number].cancel()

    pipe = Pipe(take, gone.set)
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
