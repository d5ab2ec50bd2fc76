"""Send requests by other processes, so that HTTP has a core of its own.

Everything that decides stays in the run's process: claims, pace, gate, verdicts, the ledger. A process that sends is
handed one finished request at a time and gives back one Answer, so there is one ledger, one rate and one outcome a row,
however many processes there are. When such a process ends, what it had been handed may have gone out: those requests are
"sent, no answer", and their rows are checked like any other that was cut off. A process that was suspended hands back unsent
what it comes to too late: that request was admitted for another moment.
"""

import asyncio
import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from bulkimg.errors import UsageError
from bulkimg.model import ProcessLost
from bulkimg.zstack.http import HttpClient
from bulkimg.zstack.pipe import READY, Pipe
from bulkimg.zstack.sender import SIGNALS
from bulkimg.zstack.wire import SENDER, Answer

GRACE = 5.0  # seconds beyond a request's own timeout, after which its process is taken for stuck
REST = 1.0  # seconds for which a process that has come to a request too late is handed no other
LOOK = 1.0  # seconds between two looks at the oldest request
LATEST = 1.0  # seconds from handing a request over to its first byte, however many the pace allows
_ENDED = Answer(None, failure=SENDER, detail="the sender process ended before the answer", sent=True)
_HANDED_BACK = Answer(None, failure=SENDER, detail="the sender process was suspended before sending", sent=False)
# Our own modules are looked for where we found them, and nowhere else: each place is an argument, for its name may hold a colon.
_START = "import sys; sys.path[:] = sys.argv[3:]; from bulkimg.zstack import sender; sender.main(*sys.argv[1:3])"


class Senders:
    """Sends requests by `count` processes; in this one until the first is ready, and while none is left or all of them rest.

    The other arguments are HttpClient's. UsageError where a process cannot be started. `on_lost` is called when one has ended by
    itself. `lateness` says how many seconds a request may take from here to the wire: where none, we send it ourselves.
    """

    def __init__(self, count: int, *, timeout: float, authority: str | None, now: Callable[[], float]) -> None:
        self.on_lost: Callable[[ProcessLost], None] = lambda event: None
        self.lateness: Callable[[], float] = lambda: math.inf
        self._closing = False
        self._all: list[_Sender] = []
        try:
            for _ in range(count):
                self._all.append(_Sender(timeout, authority, self._lost))
            self._alone = HttpClient(timeout=timeout, authority=authority, now=now)
        except BaseException:
            for sender in self._all:
                sender.abandon()
            raise
        self._starting = [asyncio.ensure_future(sender.start()) for sender in self._all]

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """One request and its answer, or why there is none."""
        now, lateness = time.monotonic(), self.lateness()
        least = self._least_busy(now) if lateness else None
        if least is None:
            return await self._alone.send(method, url, headers, body)
        return await least.send((now + min(LATEST, lateness), method, url, dict(headers), body))

    def _least_busy(self, now: float) -> "_Sender | None":
        least: _Sender | None = None
        for sender in self._all:
            if sender.is_there and now >= sender.rests_until and (least is None or len(sender.open) < len(least.open)):
                least = sender
        return least

    def _lost(self, sender: "_Sender") -> None:
        if not self._closing:
            self.on_lost(ProcessLost(sum(not other.is_lost for other in self._all), sender.was_there))

    async def close(self) -> None:
        """Ends the processes, and whatever they still send: all at once, and without a thread, which the system may not give us."""
        self._closing = True
        for sender in self._all:
            sender.kill()
        await asyncio.gather(*self._starting)
        await asyncio.gather(*(sender.buried() for sender in self._all))
        await self._alone.close()


class _Sender:
    """One process that sends, and what it has been handed. `lost` is called when it has ended."""

    def __init__(self, timeout: float, authority: str | None, lost: Callable[["_Sender"], None]) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _started(theirs.fileno())
            except OSError as error:
                self._ours.close()
                raise UsageError(
                    f"--processes: cannot start another process: {error.strerror}; use --processes 1"
                ) from None
        self._loop = asyncio.get_running_loop()
        self._pipe = Pipe(self._take, self._lost)
        self._pipe.put((READY, timeout, authority))
        self._longest = timeout + GRACE
        self._look: asyncio.Handle | None = None
        self._number = READY
        self._tell_lost = lost
        self.is_there = self.was_there = self.is_lost = False
        self.rests_until = 0.0  # on the monotonic clock
        self.open: dict[int, tuple[asyncio.Future[Answer], float]] = {}  # the oldest first

    async def start(self) -> None:
        """Listen to it; it says by itself when it is there."""
        try:
            await self._loop.create_unix_connection(lambda: self._pipe, sock=self._ours)
        except OSError:  # no memory, say
            self._lost()
        else:
            self._look = self._loop.call_later(LOOK, self._look_at_oldest, READY)

    async def send(self, request: tuple[Any, ...]) -> Answer:
        """`request` as the pipe takes it, without its number."""
        self._number = number = self._number + 1
        done: asyncio.Future[Answer] = self._loop.create_future()
        self.open[number] = done, self._loop.time()
        self._pipe.put((number, *request))
        try:
            return await done
        finally:
            if self.open.pop(number, None) and self.is_there:  # cancelled: its answer is not needed
                self._pipe.put((number,))

    def kill(self) -> None:
        """What it still sends is broken off; its connections are closed by the system."""
        self._process.kill()

    def abandon(self) -> None:
        """As if it had never been started. Only before `start`."""
        self._ours.close()
        self._process.kill()
        self._process.wait()

    async def buried(self) -> None:
        """Once it has ended. A process that cannot even be killed, because it waits for a disk, is not waited for."""
        if self._look:
            self._look.cancel()
        self._pipe.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                while self._process.poll() is None:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.002)

    def _take(self, value: tuple[int, Any]) -> None:
        number, said = value
        if number == READY:
            self.is_there = self.was_there = True
            return
        if said is None:
            self.rests_until = time.monotonic() + REST
        if (waits := self.open.pop(number, None)) and not waits[0].done():
            if isinstance(said, str):
                waits[0].set_exception(RuntimeError(f"a sender process failed: {said}"))
            else:
                waits[0].set_result(Answer(*said) if said else _HANDED_BACK)

    def _lost(self) -> None:
        self.is_there, self.is_lost = False, True
        self._process.kill()  # for whatever reason the pipe is broken, nothing of it goes out any more
        while self.open:
            done, _ = self.open.pop(next(iter(self.open)))
            if not done.done():
                done.set_result(_ENDED)
        self._tell_lost(self)

    def _look_at_oldest(self, late: int) -> None:
        """End a process that is stuck. `late`: the request that was too late a look ago; between two looks its answer was taken,
        if it had come while we ourselves were stopped."""
        if self.is_lost:
            self._process.poll()  # so that the system can forget it
            return
        number, (_, since) = next(iter(self.open.items()), (READY, (None, self._loop.time())))
        is_late = self._loop.time() - since > self._longest
        if is_late and number == late:
            self._process.kill()
        self._look = self._loop.call_later(LOOK, self._look_at_oldest, number if is_late else READY)


def _started(end: int) -> "subprocess.Popen[bytes]":
    """A process at that end of a pipe. Until it can ignore signals itself, they are kept from it."""
    ours = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    flags = ["-P", *(flag for flag, is_set in ours.items() if is_set)]
    places = [path or os.curdir for path in sys.path if isinstance(path, str)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable or "", *flags, "-c", _START, str(end), str(os.getpid()), *places],
            pass_fds=[end],
            env={name: value for name, value in os.environ.items() if not name.startswith("BULKIMG_")},  # no credential
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # ours may be a log of JSON
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
