"""Send every request to one server: paced, and confined to its origin and paths."""

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from urllib.parse import quote, urlencode

from bulkimg.meter import Meter
from bulkimg.zstack.redaction import Redactor
from bulkimg.zstack.wire import TURN_LOST, Answer, RequestWriter

# Every path we ever ask for (docs/dev/reliability.md, invariant 22).
# A group's name is the kind of a request, for the meter.
_PATHS = re.compile(
    r"/v1/(?:(?P<put>images/[0-9a-f]{32}/actions)|(?P<poll>api-jobs/[0-9a-f]{32})|(?P<read>images|images/[0-9a-f]{32})"
    r"|(?P<tag>(?:user|system)-tags|tags/[0-9a-f]{32})|(?P<session>accounts/login|accounts/sessions/[0-9a-f]{32}))"
)


class Client(Protocol):
    """Puts requests on the wire: HttpClient, or a simulation's network.

    `begin` is awaited when the request has its connection. If it returns False, no byte is sent, and the failure is
    TURN_LOST.
    """

    async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer: ...
    async def close(self) -> None: ...


class Pacing(Protocol):
    """Admits requests, and hears what came of each: once, None when it was given up.

    `begin` is the last word, when the request has its connection: whether it may be sent still.
    """

    async def admit(self) -> int: ...
    async def admit_probe(self) -> int: ...
    async def begin(self, epoch: int) -> bool: ...
    def record(self, epoch: int, answer: Answer | None) -> int: ...


class Transport:
    """Requests to one origin and context path (`base`, such as http://host:8080/zstack)."""

    def __init__(
        self,
        client: Client,
        base: str,
        pacing: Pacing,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._clock = clock
        self._writer = RequestWriter(base)
        self._pacing = pacing
        self.redactor = Redactor()
        self.meter = meter or Meter()
        self.date = ""  # of the latest answer, as its header says
        self.reached = False  # the server has answered something

    async def admit(self) -> int:
        """Wait for the turn of one more request; the result is handed to `send`."""
        return await self._pacing.admit()

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Callable[[], str],
        query: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        probe: bool = False,
    ) -> Answer:
        """One request, after the pace admits it. `headers` is called at that moment, so signatures are fresh.

        `probe`: the gate's own question, which a closed gate does not hold. One that loses its turn waits for another.
        """
        while True:
            epoch = await (self._pacing.admit_probe() if probe else self._pacing.admit())
            try:
                line = headers()
            except BaseException:
                self._pacing.record(epoch, None)
                raise
            answer = await self.send(epoch, method, path, line, body, _query(query))
            if answer.failure != TURN_LOST:
                return answer

    async def send(
        self,
        epoch: int,
        method: str,
        path: str,
        headers: str,
        body: bytes | None,
        query: str = "",
        begun: Callable[[], None] | None = None,
    ) -> Answer:
        """One request that the pace has admitted, and its answer as it came: see `redactor` before any of it is kept.

        `begun` is called right before its first byte.
        """
        if not (known := _PATHS.fullmatch(path)):
            raise AssertionError(f"{path!r} is not one of our paths")  # a bug: every uuid was checked when it was read
        answer: Answer | None = None
        admitted, is_begun = self._clock(), False

        async def begin() -> bool:
            nonlocal is_begun
            is_begun = await self._pacing.begin(epoch)
            if is_begun and begun:
                begun()
            return is_begun

        try:
            request = self._writer.request(method, path + query, headers, body)
            answer = await self._client.send(request, begin)
        finally:
            failure_id = self._pacing.record(epoch, answer)
            ended = self._clock()
            if is_begun if answer is None else answer.failure != TURN_LOST:  # what was not sent does not count
                answered = answer is not None and answer.status is not None
                self.meter.add(str(known.lastgroup), failure_id if answered else 1, ended - admitted, ended)
        if answer.status is not None:
            self.reached, self.date = True, answer.date
        return answer._replace(failure_id=failure_id) if failure_id else answer

    async def close(self) -> None:
        await self._client.close()


def _query(pairs: Sequence[tuple[str, str]]) -> str:
    """`?q=…&limit=…`; commas stay, so that 200 uuids fit into a stock server's 8 KiB."""
    return f"?{urlencode(pairs, quote_via=quote, safe=',')}" if pairs else ""
