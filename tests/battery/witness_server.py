"""The witness at its port: every request is logged to disk, then answered or given its fault."""

import asyncio
import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.arrival import StampingSocket
from tests.battery import witness_faults, witness_lies  # noqa: F401 - they fill the table of faults
from tests.battery.api import Call, Reply
from tests.battery.witness_api import WitnessApi
from tests.battery.witness_exchange import Exchange, run_fault
from tests.battery.witness_script import Script
from tests.battery.witness_wire import MOST_HEAD, Connection, GoneError, Reader

CONTROL = "/_witness/"


class Log:
    """One JSON line for each event. A request's line is on the disk before the request is executed."""

    def __init__(self, path: Path, *, sync: bool) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._sync = sync

    def note(self, kind: str, **facts: Any) -> None:
        line = {"kind": kind, "at": time.time(), "mono": time.monotonic(), **facts}
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")

    def request(self, connection: int, arrived: float, request: Call) -> None:
        scheme, credential = request.authorization
        shows_body = request.method in ("PUT", "POST") and not request.path.endswith("/login")
        self.note(
            "request",
            number=request.number,
            connection=connection,
            arrived=arrived,
            method=request.method,
            path=request.path,
            query=request.query,
            job=request.job,
            scheme=scheme,
            credential=hashlib.sha256(credential.encode()).hexdigest() if credential else "",
            body=request.body.decode("utf-8", "replace") if shows_body else "",
            sha256=hashlib.sha256(request.body).hexdigest(),
        )
        if self._sync:
            os.fdatasync(self._descriptor)

    def read(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]


class Server:
    """Accept, log, answer. An outage is one of its states: refuse, 503 or silent."""

    def __init__(self, api: WitnessApi, script: Script, log: Log) -> None:
        self.api = api
        self.script = script
        self.log = log
        self.port = 0
        self.outage = ""
        self._numbers = 0
        self._connections: dict[int, Connection] = {}
        self._accepted = 0
        self._listener: asyncio.Server | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._arrived: dict[int, float] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.StreamReaderProtocol:
            reader = Reader(MOST_HEAD)
            return asyncio.StreamReaderProtocol(reader, lambda r, w: self._start(reader, w))

        listener = StampingSocket.listening(self.port)
        self._arrived = listener.arrived
        self._listener = await loop.create_server(protocol, sock=listener, backlog=1024)
        self.port = listener.getsockname()[1]

    async def close(self) -> None:
        """Accept no more connections, and end those that are open."""
        if self._listener:
            self._listener.close()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def _start(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        task = asyncio.get_running_loop().create_task(
            self._serve(Connection(self._accepted, reader, writer, self._arrived))
        )
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: Connection) -> None:
        self._connections[connection.number] = connection
        try:
            while connection.open and (request := await connection.request()):
                if request.path.startswith(CONTROL):
                    await connection.send((await self._control(request)).wire())
                else:
                    await self._witnessed(connection, request)
        except GoneError:
            pass
        finally:
            del self._connections[connection.number]
            await connection.fin()

    async def _witnessed(self, connection: Connection, request: Call) -> None:
        self._numbers += 1
        request = replace(request, number=self._numbers)
        how, rule = "gone", None
        self.log.request(connection.number, connection.arrived, request)
        try:
            image = self._image_of(request)
            if self.outage:
                how = f"outage {self.outage}"
                await self._suffer(connection)
            elif rule := self.script.rule_for(request.kind, image):
                how = await run_fault(Exchange(request, image, connection, self.api, rule))
            else:
                await connection.send((await self.api.serve(request)).wire())
                how = "answered"
        except GoneError:
            pass
        except Exception as error:
            how = f"the witness failed: {error!r}"
            await connection.fin()
        finally:
            self.log.note("end", request=request.number, how=how, fault=rule.do if rule else "", left=connection.left)
        if how == "gone":
            raise GoneError

    def _image_of(self, request: Call) -> str:
        """Return the image of a PUT, a poll or a read; "" for the others."""
        job = self.api.jobs.get(request.uuid) if request.kind == "poll" else None
        return job.call.uuid if job else request.uuid if request.kind in ("put", "read") else ""

    async def _suffer(self, connection: Connection) -> None:
        if self.outage == "503":
            await connection.send(Reply.text(503, "Service Unavailable").wire())
        elif self.outage == "silent":
            await connection.until_gone()
        else:
            connection.reset()

    async def _control(self, request: Call) -> Reply:
        """Answer requests of the tests. They are not logged."""
        what = request.path.removeprefix(CONTROL)
        body: Any = json.loads(request.body) if request.body else None
        match what:
            case "table":
                return Reply.of(200, self.api.table)
            case "log":
                return Reply.of(200, self.log.read())
            case "script":
                self.script.replace(body)
            case "reset":
                self.api.reset()
                self.log.note("mark", name="reset")
            case "mark":
                self.log.note("mark", name=body)
            case "forget-sessions":
                self.api.sessions.clear()
            case "outage":
                self._recovery = asyncio.get_running_loop().create_task(self._go_out(**body))
            case _:
                return Reply.text(404, "no such control")
        return Reply.of(200, {})

    async def _go_out(self, how: str, seconds: float) -> None:
        """Begin an outage.

        refuse: nothing listens and every connection is reset. 503: plain 503. silent: requests are read and never
        answered.
        """
        await asyncio.sleep(0.02)  # the request for the outage is answered first
        self.log.note("outage", how=how, seconds=seconds)
        self.outage = how
        if how == "refuse" and self._listener:
            self._listener.close()
            for connection in list(self._connections.values()):
                connection.reset()
        await asyncio.sleep(seconds)
        self.outage = ""
        if how == "silent":
            for connection in list(self._connections.values()):
                connection.reset()
        if how == "refuse":
            await self.listen()
        self.log.note("recovery", how=how)
