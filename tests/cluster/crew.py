"""A desk and its workers in one process and one event loop, with real sockets to the server. Their links can fail."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkimg import __version__
from bulkimg.applier import Policy
from bulkimg.cluster.desk import Desk
from bulkimg.cluster.hall import Hall
from bulkimg.cluster.messages import LinkLost, Message, packed, unpacked
from bulkimg.cluster.worker import DeskGone, Worker
from bulkimg.credentials import Credentials, Session, identity_of
from bulkimg.engine.carrying import Carrier, Equipment
from bulkimg.engine.connect import Ports
from bulkimg.engine.create import create_run
from bulkimg.engine.execute import Engine
from bulkimg.engine.run import OpenRun
from bulkimg.errors import BulkimgError
from bulkimg.ledger import Writer
from bulkimg.model import Event, Settled, Summary, WorkerChanged
from bulkimg.planner import Reader
from bulkimg.settings import Settings
from bulkimg.zstack import ImageApi
from tests.conftest import Server


@dataclass
class Wire:
    """How the link of one worker is: `cut` lets nothing through, `lossy` is the chance that an answer gets lost."""

    cut: bool = False
    lossy: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    calls: int = 0


class DirectLink:
    """A link that calls the hall. Messages are packed and unpacked as on a real one."""

    def __init__(self, hall: Hall, wire: Wire) -> None:
        self._hall, self._wire = hall, wire

    async def call(self, op: str, message: Message) -> dict[str, Any]:
        self._wire.calls += 1
        await asyncio.sleep(0)
        if self._wire.cut:
            raise LinkLost
        answer = unpacked(packed(await self._hall.handle(op, unpacked(packed(message)))))
        if self._wire.cut or self._wire.rng.random() < self._wire.lossy:
            raise LinkLost
        return answer

    async def close(self) -> None:
        pass


@dataclass
class Hired:
    """One worker of the test: who it is, how its link is, and its task."""

    credentials: Credentials
    wire: Wire = field(default_factory=Wire)
    introduction: dict[str, Any] = field(default_factory=dict)
    task: "asyncio.Task[None] | None" = None
    said: str = ""  # how it ended

    def kill(self) -> None:
        """End it as SIGKILL does: it says nothing more, and its requests in flight break."""
        self.wire.cut = True
        assert self.task
        self.task.cancel()


class Crew:
    """Carries rows with the workers of a test."""

    def __init__(self, hired: Sequence[Hired]) -> None:
        self.hired = hired
        self.account = ""  # of the run

    @asynccontextmanager
    async def opened(self, equipment: Equipment) -> AsyncIterator[None]:
        self.own = equipment
        self.hall = Hall(equipment, origin=equipment.run.settings.target, account=self.account)
        for number, one in enumerate(self.hired):
            one.task = asyncio.create_task(self._employ(one, number))
        try:
            yield
        finally:
            await self.hall.close()
            for one in self.hired:
                assert one.task
                one.task.cancel()
            await asyncio.gather(*[one.task for one in self.hired if one.task], return_exceptions=True)

    async def _employ(self, one: Hired, number: int) -> None:
        settings = self.own.run.settings
        said = {"host": "here", "pid": number, "version": __version__, "origin": settings.target}
        said["account"] = identity_of(one.credentials)
        while True:
            link = DirectLink(self.hall, one.wire)
            worker = Worker(link, settings, one.credentials, said | one.introduction, Ports(), time.monotonic)
            try:
                await worker.work()
                one.said = "over"
                return
            except DeskGone as gone:
                one.said = "gone"
                if not gone.may_rejoin:
                    return
            except BulkimgError as error:
                one.said = str(error)
                return

    async def ready(self) -> None:
        await self.hall.first_worker()

    def carrier(
        self, store: Writer, api: ImageApi, reader: Reader, policy: Policy, only: Sequence[int] | None
    ) -> Carrier:
        return Desk(self.hall, self.own, store, policy, only)


class Scene:
    """One run of a cluster of three workers, or as many as are given."""

    def __init__(self, place: Path, server: Server, workers: int | Sequence[Hired] = 3, **options: Any) -> None:
        self.session = Session(server.session)
        self.hired = [Hired(self.session) for _ in range(workers)] if isinstance(workers, int) else list(workers)
        settings = {"endpoint": server.url, "rate": "unlimited", "concurrency": 12, "runs_dir": place / "runs"}
        self.settings = Settings.model_validate(settings | options)
        self.crew = Crew(self.hired)
        self.events: list[Event] = []
        self.settled = 0
        self._when: list[tuple[int, Callable[[], None]]] = []

    def when(self, settled: int, do: Callable[[], None]) -> None:
        """Do something as soon as so many rows are settled."""
        self._when.append((settled, do))

    def _observe(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Settled):
            self.settled += len(event.outcomes)
            for at, do in list(self._when):
                if self.settled >= at:
                    self._when.remove((at, do))
                    do()

    def create(self, manifest: Path) -> OpenRun:
        return create_run(str(manifest), self.settings)

    async def execute(self, run: OpenRun) -> Summary:
        """Execute the run. It is closed afterwards."""
        try:
            self.engine = Engine(run, self.session, self._observe, Ports(carriers=lambda: self.crew))
            return await self.engine.execute()
        finally:
            run.close()

    def heard(self) -> str:
        """Return what was said of workers."""
        return "\n".join(f"{event.worker} {event.what}" for event in self.events if isinstance(event, WorkerChanged))
