"""The witness's images, and what it adds to the API: a log of every change, workers, and a time of service.

Every change of the table goes through `WitnessApi.apply`, which writes it to the witness's log. So what was applied is
known and not concluded.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from tests.battery.api import ACCOUNT, DOCUMENTED, PASSWORD, Api, Call, Job, Reply, Row, accepted


def make_table(count: int, seed: int) -> dict[str, Row]:
    """Make the table. Every fifteenth image is a data volume: null platform, architecture and guestOsType (§5.2)."""
    rng = random.Random(f"images {seed}")
    uuids = [f"{rng.getrandbits(128):032x}" for _ in range(count)]
    table: dict[str, Row] = {
        uuid: {
            "uuid": uuid, "name": f"image-{n}", "description": "", "guestOsType": "Linux", "platform": "Other",
            "mediaType": "RootVolumeTemplate", "format": "qcow2", "architecture": "x86_64", "system": False,
            "virtio": True, "state": "Enabled", "status": "Ready", "type": "zstack", "size": 1 << 30,
            "createDate": "Apr 27, 2026 3:10:09 PM", "lastOpDate": "Apr 27, 2026 3:10:09 PM",
        }
        for n, uuid in enumerate(uuids)
    }  # fmt: skip
    for uuid in uuids[7::15]:
        for name in ("platform", "architecture", "guestOsType"):
            del table[uuid][name]
        table[uuid] |= {"mediaType": "DataVolumeTemplate", "virtio": False}
    return table


class WitnessApi(Api):
    """The API with a log. `note` writes a line to it. `service`: seconds for each change."""

    sessions: set[str]

    def __init__(
        self, dialect: str, images: int, seed: int, workers: int, service: float, note: Callable[..., Any]
    ) -> None:
        rng = random.Random(f"sessions {seed}")
        super().__init__(
            dialect,
            sessions=set(),
            accounts={ACCOUNT: PASSWORD},
            new_session=lambda: f"{rng.getrandbits(128):032x}",
        )
        self._images = images, seed
        self._service, self._note = service, note
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(workers)
        self.session = self.new_session()
        self.reset()

    def reset(self) -> None:
        self.table = make_table(*self._images)
        self.before = {uuid: dict(image) for uuid, image in self.table.items()}  # any change
        self.jobs.clear()
        self.sessions.add(self.session)

    async def serve(self, call: Call) -> Reply:
        """Execute the request and return a healthy server's answer."""
        if self._service and call.kind == "put" and self.dialect == DOCUMENTED and not self.refusal(call):
            await self._work()
        return self.answer(call)

    def accept(self, call: Call, *, executes: bool = True) -> Reply:
        if not (self._service and executes):
            return super().accept(call, executes=executes)
        job = self.jobs[call.job] = Job(call)
        task = asyncio.get_running_loop().create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return accepted(call.job)

    async def _run(self, job: Job) -> None:
        await self._work()
        reply = self.execute(job.call)
        job.reply = job.reply or reply  # a fault may have decided it

    async def _work(self) -> None:
        async with self._turn:
            await asyncio.sleep(self._service)

    def apply(self, call: Call) -> Reply:
        self._note("applied", request=call.number, uuid=call.uuid, job=call.job)
        self.table[call.uuid]["lastOpDate"] = time.strftime("%b %d, %Y %I:%M:%S %p")
        return super().apply(call)
