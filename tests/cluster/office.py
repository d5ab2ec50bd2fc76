"""An open desk with a real ledger and no server: a test speaks for its workers, and decides when the disk is done."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkimg import __version__
from bulkimg.cluster.desk import Desk
from bulkimg.cluster.hall import Hall
from bulkimg.cluster.messages import GRACE, LEASE
from bulkimg.engine.carrying import Equipment, policy_of
from bulkimg.engine.connect import pace_of
from bulkimg.engine.create import create_run
from bulkimg.ledger import Ledger, Writer
from bulkimg.meter import Meter
from bulkimg.model import Claim, Outcome, Status
from bulkimg.runtime import Runtime
from bulkimg.settings import Settings


class Disk:
    """Does the writer's work at once or, while it is held, later."""

    def __init__(self) -> None:
        self.is_held = False
        self._works: list[Callable[[], None]] = []

    def put(self, work: Callable[[], None]) -> None:
        self._works.append(work)
        if not self.is_held:
            self.free()

    def free(self) -> None:
        self.is_held = False
        works, self._works = self._works, []
        for work in works:
            work()

    async def close(self) -> None:
        self.free()
        await asyncio.sleep(0)


class _Nowhere:
    def append(self, ledger: Ledger, outcomes: Any, complete: int) -> None:
        pass


@dataclass
class Speaker:
    """What a test says to the desk in the name of one worker."""

    hall: Hall
    key: str = ""
    numbers: dict[str, int] = field(default_factory=dict)

    async def join(self, token: str = "") -> "Speaker":
        said = {"host": "h", "pid": 1, "version": __version__, "origin": self.hall._origin, "account": ""}
        said["token"] = token or f"token-{len(self.hall.crew.items())}"
        self.key = (await self.hall.handle("join", said))["worker"]
        await self.renew()
        return self

    async def say(self, op: str, number: int | None = None, **message: Any) -> dict[str, Any]:
        if number is None:
            number = self.numbers[op] = self.numbers.get(op, 0) + 1
        return await self.hall.handle(op, message | {"worker": self.key, "number": number})

    async def renew(self, **more: Any) -> dict[str, Any]:
        report: dict[str, Any] = {
            "holding": self.numbers.get("renew", 0),
            "requests": [],
            "latency": [],
            "latency_sum": 0.0,
        }
        report |= {"made": 0, "in_flight": 0, "limit": 4, "baseline": None, "trouble": None, "retries": 0}
        report |= {"nothing_else": False, "retrying": []}
        lease: dict[str, Any] = (await self.say("renew", **(report | more)))["lease"]
        return lease

    async def claim(self, limit: int) -> list[Claim]:
        return [Claim(*row) for row in (await self.say("claim", limit=limit)).get("rows", ())]

    async def write(self, *ops: Any) -> dict[str, Any]:
        return await self.say("write", ops=list(ops))


@dataclass
class Office:
    hall: Hall
    desk: Desk
    disk: Disk
    ledger: Ledger
    now: list[float]
    running: "asyncio.Task[Any]"

    async def worker(self) -> Speaker:
        return await Speaker(self.hall).join()

    async def lose(self, worker: Speaker, *, stays: Speaker) -> None:
        """Let the lease of one worker end without another one, while another worker stays."""
        self.now[0] += LEASE - 0.5
        await stays.renew()
        self.now[0] += 0.5 + GRACE + 0.1
        self.hall._looked_at = self.now[0]  # this process was not held up
        self.hall.find_lost()
        assert self.hall.crew.get(worker.key) is None
        await stays.renew()

    def attempts(self, ordinal: int) -> list[str]:
        return [job for (job,) in self.ledger.db.execute("SELECT job_uuid FROM attempt WHERE ordinal = ?", (ordinal,))]


def outcome(row: Claim) -> list[Any]:
    return list(Outcome(row.ordinal, row.line, row.uuid, Status.UPDATED, attempts=row.attempt, job_uuid=row.job_uuid))


@asynccontextmanager
async def office(place: Path, rows: int = 6, **options: Any) -> AsyncIterator[Office]:
    """Open a desk whose clock stands still."""
    given = {"endpoint": "http://127.0.0.1:9", "runs_dir": place / "runs", "survey": False, "rate": "unlimited"}
    changes = [{"uuid": f"{n + 1:032x}", "name": f"name-{n}"} for n in range(rows)]
    run = create_run("(changes)", Settings.model_validate(given | options), changes)
    now = [100.0]
    runtime = Runtime(clock=lambda: now[0], now=lambda: 1e9 + now[0], rng=random.Random(1))
    hall = Hall(
        Equipment(run, pace_of(run.settings, runtime, 8), Meter(), lambda event: None, runtime, "auto"),
        origin=run.settings.target,
        account="",
    )
    now[0] += 10
    hall._looked_at = now[0]
    disk = Disk()
    writer = Writer(run.ledger, _Nowhere(), lambda done: None, lambda error: None, disk)
    desk = Desk(hall, hall._own, writer, policy_of(run.settings, 0), None)
    running = asyncio.ensure_future(desk.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        yield Office(hall, desk, disk, run.ledger, now, running)
    finally:
        disk.free()
        desk.stop_now()
        await asyncio.gather(running, return_exceptions=True)
        await hall.gate.close()
        await writer.close()
        run.close()
