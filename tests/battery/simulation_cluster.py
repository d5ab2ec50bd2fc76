"""T55 for a cluster: a desk and one to four workers in virtual time, by seed, with the production code of both sides.

Their links lose messages and answers, delay them, deliver them twice or late, and are cut for a time. Workers are killed,
stopped for a while (their clocks run on), and come back. The desk is stopped, killed and resumed, also without a cluster.
Everything that the simulation of one process checks holds here too. In addition nobody begins a request after the end of
its lease, and no second, counted over all processes, has more requests than the rate.
"""

import asyncio
import contextlib
import math
import random
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bulkimg import AccessKey, Account, Session, __version__
from bulkimg.applier import Policy
from bulkimg.cluster.desk import Desk
from bulkimg.cluster.hall import Hall
from bulkimg.cluster.messages import GRACE, LEASE, LinkLost, Message, packed, unpacked
from bulkimg.cluster.worker import DeskGone, Worker
from bulkimg.credentials import identity_of
from bulkimg.engine.carrying import Carrier, Equipment, ThisProcess
from bulkimg.engine.connect import Ports
from bulkimg.engine.execute import Engine
from bulkimg.errors import BulkimgError, StorageError
from bulkimg.ledger import Writer
from bulkimg.pace.slots import OwnSlots
from bulkimg.planner import Reader
from bulkimg.runtime import Runtime
from bulkimg.zstack import Answer, ImageApi
from bulkimg.zstack.wire import TURN_LOST
from tests.battery.api import Call
from tests.battery.disk import Died
from tests.battery.frozen import ProcessLoop, SimProcess, nobody, present
from tests.battery.network import Network
from tests.battery.report import Record
from tests.battery.shares import in_processes
from tests.battery.simulation import InlineThread, Play, Story, make_up
from tests.virtual import virtual_throttler
from tests.windows import most_within
from tests.zstack.raw import parts

ANSWER = 5.0  # seconds until a worker that has no answer asks again, as in bulkimg.cluster.dask
HIRE = 0.5  # seconds between two looks of the cluster for something to do
LONGEST = 6 * 3600.0  # virtual seconds of one life; longer is a hang. A proxy that passes no polls on costs hours
LONGEST_OUTAGE = 120.0
STARTS = 0.5  # seconds until a new process has read its programs
DISTURBED = 60.0  # virtual seconds of a life in which its processes are killed, stopped and cut off


@dataclass(frozen=True)
class Wires:
    """How the links of a story are: chances for each message, and what happens to processes, per ten seconds."""

    workers: int
    lost: float = 0.0  # the message, or its answer
    twice: float = 0.0
    late: float = 0.0  # it arrives after its sender has given up
    delay: float = 0.001
    cuts: float = 0.0
    kills: float = 0.0
    stops: float = 0.0
    desk_stops: float = 0.0
    outlives: bool = False  # workers outlive their desk, as those of an external scheduler do


def wires_of(seed: int) -> Wires:
    rng = random.Random(f"wires {seed}")
    rough = rng.random() < 0.7
    return Wires(
        workers=rng.randint(1, 4),
        lost=rng.choice((0.0, 0.02, 0.1)) if rough else 0.0,
        twice=rng.choice((0.0, 0.1, 0.3)) if rough else 0.0,
        late=rng.choice((0.0, 0.02, 0.1)) if rough else 0.0,
        delay=rng.choice((0.0, 0.001, 0.05, 0.4)),
        cuts=rng.choice((0.0, 1.0, 3.0)),
        kills=rng.choice((0.0, 1.0, 3.0)),
        stops=rng.choice((0.0, 1.0, 3.0)),
        desk_stops=rng.choice((0.0, 0.0, 1.0)),
        outlives=rng.random() < 0.5,
    )


class SimClient:
    """The way of one process to the simulated server, which works on when the process is stopped or dead."""

    def __init__(self, stage: "ClusterPlay") -> None:
        self._stage = stage

    async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer:
        await self._stage.server.connected()
        if not await begin():
            return Answer(None, failure=TURN_LOST, sent=False)
        me = present()
        if me is not None and me.is_buried:
            raise asyncio.CancelledError
        self._stage.look_at_lease(me)
        with nobody():
            flight = Flight(me)
            answered = asyncio.get_running_loop().create_task(self._stage.server.send_of(flight, request))
        try:
            return await asyncio.shield(answered)
        except asyncio.CancelledError:
            flight.is_left = True
            raise

    async def close(self) -> None:
        pass


@dataclass(eq=False)
class Flight:
    """One request in flight. `is_left`: its sender has closed the connection; the server may be at work on it."""

    sender: SimProcess | None
    is_left: bool = False


class ClusterNetwork(Network):
    """The server, which hears of several processes."""

    is_lost: Callable[[Flight], bool]

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._flights: defaultdict[str, list[Flight]] = defaultdict(list)  # PUTs, by image

    async def send_of(self, flight: Flight, request: bytes) -> Answer:
        call = Call.of(*parts(request))
        if call.kind != "put":
            return await self.serve_wire(request)
        flights = self._flights[call.uuid]
        flights.append(flight)
        try:
            return await self.serve_wire(request)
        finally:
            flights.remove(flight)

    def note_overlap(self, uuid: str) -> None:
        """What a lost worker has in flight nobody can take back; all others wait for the end of the one before."""
        if not all(self.is_lost(flight) for flight in self._flights[uuid][:-1]):
            super().note_overlap(uuid)


class SimWorker(SimProcess):
    """One process of the cluster, and what it was allowed by its link's own count."""

    cut_until = -math.inf
    lease_ends = -math.inf
    rate: float | None = 0.0
    has_left: Hall | None = None  # it ended its work for this one


class SimLink:
    """The link of a worker to the desk of one life of a run."""

    def __init__(self, stage: "ClusterPlay", worker: SimWorker, hall: Hall, desk: SimProcess) -> None:
        self._stage, self._worker, self._hall, self._desk = stage, worker, hall, desk
        self._rng = random.Random(stage.links.getrandbits(64))
        self._first: dict[tuple[str, int], float] = {}

    async def call(self, op: str, message: Message) -> dict[str, Any]:
        loop, wires = asyncio.get_running_loop(), self._stage.wires_now
        if self._worker.is_buried:
            raise asyncio.CancelledError
        asked_at = self._first.setdefault((op, message.get("number", 0)), loop.time())
        data = packed(message)
        try:
            async with asyncio.timeout(ANSWER):
                if self._desk.is_dead:
                    await asyncio.sleep(0.001)  # the connection is refused
                    raise LinkLost
                answer = await self._answered(op, data, wires)
        except TimeoutError:
            raise LinkLost from None
        if lease := answer.get("lease"):
            self._worker.lease_ends, self._worker.rate = asked_at + lease["seconds"], lease["rate"]
        return answer

    async def _answered(self, op: str, data: bytes, wires: Wires) -> dict[str, Any]:
        await self._maybe_lost(wires.lost)
        if self._rng.random() < wires.late:
            self._deliver(op, data, ANSWER + self._rng.uniform(0, ANSWER))
            await asyncio.sleep(2 * ANSWER)
        if self._rng.random() < wires.twice:
            self._deliver(op, data, self._rng.choice((0.0, 0.0, 0.5, 3.0)))
        await asyncio.sleep(self._rng.uniform(0, wires.delay))
        answer = unpacked(packed(await self._of_desk(op, data)))
        await asyncio.sleep(self._rng.uniform(0, wires.delay))
        await self._maybe_lost(wires.lost)
        return answer

    async def _maybe_lost(self, chance: float) -> None:
        """Lose the connection, which its other end sees at once or never."""
        if self._is_cut:
            await asyncio.sleep(2 * ANSWER)
        if self._rng.random() < chance:
            if self._rng.random() < 0.8:
                raise LinkLost
            await asyncio.sleep(2 * ANSWER)

    async def _of_desk(self, op: str, data: bytes) -> dict[str, Any]:
        """Return the answer. A desk that dies or whose disk fails closes the connection."""
        handling = self._desk.start(self._hall.handle(op, unpacked(data)))
        try:
            return await asyncio.shield(handling)
        except asyncio.CancelledError:
            if handling.cancelled():
                raise LinkLost from None
            raise
        except StorageError:
            raise LinkLost from None

    def _deliver(self, op: str, data: bytes, after: float) -> None:
        """Let the message arrive once more, without anybody who waits for its answer."""

        def arrive() -> None:
            if not self._desk.is_dead:
                self._desk.start(self._ignored(op, data))

        with nobody():
            asyncio.get_running_loop().call_later(after, arrive)

    async def _ignored(self, op: str, data: bytes) -> None:
        with contextlib.suppress(StorageError):
            await self._hall.handle(op, unpacked(data))

    @property
    def _is_cut(self) -> bool:
        return asyncio.get_running_loop().time() < self._worker.cut_until

    async def close(self) -> None:
        pass


class SimCluster:
    """The workers of a story, as carriers of one life of its run."""

    def __init__(self, stage: "ClusterPlay", desk: SimProcess) -> None:
        self._stage, self._desk = stage, desk

    @asynccontextmanager
    async def opened(self, equipment: Equipment) -> AsyncIterator[None]:
        self._own = equipment
        account = identity_of(self._stage.credentials)
        self._hall = Hall(equipment, origin=equipment.run.settings.target, account=account)
        self._stage.halls.append((self._hall, self._desk))
        yield
        await self._hall.close()

    async def ready(self) -> None:
        await self._hall.first_worker()

    def carrier(
        self, store: Writer, api: ImageApi, reader: Reader, policy: Policy, only: Sequence[int] | None
    ) -> Carrier:
        return Desk(self._hall, self._own, store, policy, only)


@dataclass
class ClusterStory(Story):
    """What a seed defines, and what happened to its processes."""

    worker_kills: int = 0
    stops: int = 0
    cuts: int = 0
    lives: int = 0
    most_excess: float = -math.inf  # requests above the rate in the busiest second


class ClusterPlay(Play):
    """Play one story with a cluster."""

    def __init__(self, story: ClusterStory, wires: Wires, place: Path) -> None:
        self.wires = wires
        super().__init__(story, place)
        self.loop.close()
        self.loop = ProcessLoop()
        self.loop.set_exception_handler(lambda loop, context: None)
        self.network = self.server = ClusterNetwork(
            story.weather,
            {uuid: {k: v for k, v in row.items() if k != "uuid"} for uuid, row in self.network.table.items()},
            random.Random(f"net {story.seed}"),
            self.loop.time,
            asyncio.sleep,
        )
        self.network.late_to_hear = LEASE + GRACE if self._is_smooth else math.inf  # who knows of it may be cut off
        self.server.is_lost = self._is_lost
        self.network.before_put = self._look_at_put
        self._slots = OwnSlots()  # those of the machine, for one desk after the other
        self.links = random.Random(f"links {story.seed}")
        self.chance = random.Random(f"chance {story.seed}")
        self.halls: list[tuple[Hall, SimProcess]] = []
        self.workers: list[SimWorker] = []
        self.graves: list[SimProcess] = []
        self.credentials: Session | Account | AccessKey = (
            Account("admin", "hunter22") if story.account else Session("5" * 32)
        )
        self._desk = SimProcess("desk")
        self._is_calm = False
        self._rough_until = 0.0

    # -- one life of the desk -------------------------------------------------------------------------------------------

    def _carry(self, opened: Any, disk: Any, kill_after: float) -> None:
        self._story.lives += 1
        desk = self._desk = SimProcess("desk")
        death = self.loop.create_future()
        alone = self.chance.random() < 0.2  # a process without a cluster

        def die() -> None:
            disk.dead = True
            if not death.done():
                death.set_result(None)

        ports = Ports(
            Runtime(self.loop.time, self.now, asyncio.sleep, random.Random(self.rng.getrandbits(64))),
            connect=lambda settings, now: SimClient(self),
            writer_thread=lambda: InlineThread(die),
            slots=lambda target: self._slots,
            carriers=ThisProcess if alone else lambda: SimCluster(self, desk),
            listen=lambda directory, handle: contextlib.nullcontext(""),
        )
        engine = Engine(opened, self.credentials, self._watch, ports)
        self.loop.run_until_complete(asyncio.sleep(STARTS))
        with virtual_throttler(self.loop):
            self.loop.run_until_complete(self._life(engine, desk, death, die, kill_after))

    async def _life(self, engine: Engine, desk: SimProcess, death: Any, die: Any, kill_after: float) -> None:
        if kill_after < math.inf:
            self.loop.call_later(kill_after * self.chance.choice((1, 1, 4)), die)
        self._of_run = engine._run.settings
        hands = [asyncio.ensure_future(self._keep_workers()), asyncio.ensure_future(self._disturb())]
        work = desk.start(engine.execute())
        try:
            await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED, timeout=LONGEST)
            if death.done():
                raise Died
            if not work.done():
                self._breach("the run hangs")
                raise Died
            summary = work.result()
            if sum(summary.counts.values()) != len(self.changes):
                self._breach("the summary does not count every row")
            if summary.exit_code not in (0, 1, 5):
                self._breach(f"exit code {summary.exit_code}: {summary.reason}")
        finally:
            for hand in hands:
                hand.cancel()
            await asyncio.gather(*hands, return_exceptions=True)
            if not self.wires.outlives:
                for worker in self.workers:
                    self._kill(worker)
            await self._bury_desk(desk)

    async def _bury_desk(self, desk: SimProcess) -> None:
        """End what is left of the desk. Its disk fails and its network is cut, so it does nothing any more."""
        if desk.is_stopped:
            desk.wake()
        await desk.bury()

    # -- the cluster ----------------------------------------------------------------------------------------------------

    async def _keep_workers(self) -> None:
        """Start workers in the place of those that have died."""
        while True:
            alive = [worker for worker in self.workers if not worker.is_dead]
            for _ in range(self.wires.workers - len(alive)):
                worker = SimWorker(f"w{len(self.workers)}")
                self.workers.append(worker)
                worker.start(self._be_worker(worker))
            await asyncio.sleep(HIRE if self._is_calm else self.chance.choice((HIRE, 3.0)))

    async def _be_worker(self, worker: SimWorker) -> None:
        """Work for the newest desk, then for the next one."""
        while True:
            hall, desk = self.halls[-1] if self.halls else (None, worker)
            if hall is None or desk.is_dead or worker.has_left is hall:
                await asyncio.sleep(HIRE)
                continue
            await self._work(worker, hall, desk)

    async def _work(self, worker: SimWorker, hall: Hall, desk: SimProcess) -> None:
        said = {"host": "sim", "pid": int(worker.name[1:]), "version": __version__}
        said |= {"origin": self._of_run.target, "account": identity_of(self.credentials)}
        while True:
            ports = Ports(
                Runtime(self.loop.time, self.now, asyncio.sleep, random.Random(self.links.getrandbits(64))),
                connect=lambda settings, now: SimClient(self),
            )
            link = SimLink(self, worker, hall, desk)
            settings = self._of_run.model_copy(update={"cluster": None})
            at_work = Worker(link, settings, self.credentials, said, ports, self.loop.time)
            try:
                await at_work.work()
                worker.has_left = hall
                return
            except DeskGone as gone:
                if not gone.may_rejoin:
                    worker.has_left = hall if hall.is_over else None
                    await asyncio.sleep(HIRE)
                    return
            except BulkimgError:
                worker.has_left = hall
                return
            await asyncio.sleep(0.001)

    def _kill(self, worker: SimWorker) -> None:
        worker.kill()
        self.graves.append(worker)

    # -- what happens to processes --------------------------------------------------------------------------------------

    async def _disturb(self) -> None:
        """Kill, stop and cut processes at random moments."""
        wires = self.wires
        kinds = {"kill": wires.kills, "stop": wires.stops, "cut": wires.cuts, "desk": wires.desk_stops}
        total = sum(kinds.values()) * max(1, self.wires.workers)
        until = self._rough_until = self.loop.time() + (0.0 if self._is_calm else DISTURBED)
        while total and self.loop.time() < until:
            await asyncio.sleep(self.chance.expovariate(total / 10))
            alive = [worker for worker in self.workers if not worker.is_dead]
            if self._is_calm or not alive:
                continue
            victim = self.chance.choice(alive)
            match self.chance.choices(list(kinds), list(kinds.values()))[0]:
                case "kill":
                    self._story.worker_kills += 1
                    self._kill(victim)
                case "stop":
                    self._stop(victim, self.chance.choice((0.3, 1.5, 2.2, 3.0, 8.0)))
                case "desk":
                    self._stop(self._desk, self.chance.uniform(0.5, 8.0))
                case "cut":
                    self._story.cuts += 1
                    seconds = self.chance.choice((0.5, 2.0, 4.0, 30.0))
                    for one in self.chance.choice(([victim], alive)):
                        one.cut_until = self.loop.time() + seconds

    def _stop(self, process: SimProcess, seconds: float) -> None:
        if not process.is_stopped and not process.is_dead:
            self._story.stops += 1
            process.stop()
            self.loop.call_later(seconds, lambda: process.wake() if process.is_stopped else None)

    @property
    def _is_smooth(self) -> bool:
        wires = self.wires
        return not (wires.lost or wires.late or wires.cuts or wires.stops or wires.desk_stops or wires.kills)

    @property
    def _story(self) -> ClusterStory:
        assert isinstance(self.story, ClusterStory)
        return self.story

    def finish(self) -> None:
        self._is_calm = True
        super().finish()

    # -- what must always hold ------------------------------------------------------------------------------------------

    @property
    def wires_now(self) -> Wires:
        """Return how the links are now: what is lost on them for ever could keep a run from its end for ever."""
        rough = self.loop.time() < self._rough_until
        return self.wires if rough else replace(self.wires, lost=0.0, twice=0.0, late=0.0)

    def look_at_lease(self, process: SimProcess | None) -> None:
        """Check that a worker begins nothing without a lease."""
        if isinstance(process, SimWorker) and (self.loop.time() >= process.lease_ends or process.rate == 0):
            self._breach(
                f"{process.name} began a request {self.loop.time() - process.lease_ends:.3f} s after its lease"
            )

    def _is_lost(self, flight: Flight) -> bool:
        process = flight.sender
        if flight.is_left or process is None or process.is_dead:
            return True
        return isinstance(process, SimWorker) and self.loop.time() > process.lease_ends

    @property
    def _most_in_flight(self) -> int:
        """Every worker may have one row in flight. What lost workers have in flight is not counted by the desk."""
        return self.story.concurrency + self.wires.workers if self._is_smooth else 1000

    def _allowed_in_outage(self, seconds: float, how: str) -> float:
        return super()._allowed_in_outage(seconds, how) + 10 * self.wires.workers

    def end(self) -> None:
        super().end()
        if not math.isinf(self.settings.rate):
            moments = [at for at, _ in self.network.requests]
            most = most_within(1.0 - 1e-6, moments)
            self._story.most_excess = most - self.settings.rate
            if most > self.settings.rate:
                self._breach(f"{most} requests within a second, {self.settings.rate:g} may be")

    def close(self) -> None:
        with virtual_throttler(self.loop):
            self.loop.run_until_complete(self._bury_all())
        super().close()

    async def _bury_all(self) -> None:
        for process in [*self.workers, self._desk]:
            await process.bury()


def make_up_cluster(seed: int) -> tuple[ClusterStory, Wires]:
    """Return the story of a seed. It is that of one process, with shorter outages, and a cluster."""
    story = make_up(seed)
    outages = tuple((begin, min(end, begin + LONGEST_OUTAGE), how) for begin, end, how in story.weather.outages)
    return ClusterStory(**vars(story) | {"weather": replace(story.weather, outages=outages)}), wires_of(seed)


def play_cluster(seed: int) -> ClusterStory:
    """Play one seed from its beginning to its end."""
    shm = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="bulkimg-", dir=shm if shm.is_dir() else None))
    story, wires = make_up_cluster(seed)
    stage = ClusterPlay(story, wires, place)
    try:
        stage.play()
    except Exception as error:  # a crash of the program is a finding too
        story.breaches.append(f"{type(error).__name__}: {error}")
    finally:
        stage.close()
        shutil.rmtree(place, ignore_errors=True)
    return story


@dataclass
class PlayedClusters:
    """The results of a number of stories."""

    stories: int = 0
    lives: int = 0
    kills: int = 0
    disk_faults: int = 0
    worker_kills: int = 0
    stops: int = 0
    cuts: int = 0
    rows: int = 0
    hours: float = 0.0
    most_excess: float = -math.inf
    statuses: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)


def play_clusters(seeds: range) -> PlayedClusters:
    """Play each seed. Every tenth is played twice and must be the same to the byte."""
    found = PlayedClusters()
    for seed in seeds:
        story = play_cluster(seed)
        found.stories += 1
        found.lives += story.lives
        found.kills += story.kills
        found.disk_faults += story.disk_faults
        found.worker_kills += story.worker_kills
        found.stops += story.stops
        found.cuts += story.cuts
        found.rows += sum(story.statuses.values())
        found.hours += story.virtual_seconds / 3600
        found.most_excess = max(found.most_excess, story.most_excess)
        found.statuses += story.statuses
        found.breaches += [f"seed {seed}: {breach}" for breach in story.breaches[:3]]
        if seed % 10 == 0 and play_cluster(seed).digest != story.digest:
            found.breaches.append(f"seed {seed}: told twice, it was another ledger")
    return found


def simulation_cluster(seeds: int = 1000, first: int = 0, workers: int = 2) -> list[Record]:
    """Run T55 for a cluster."""
    begun = time.monotonic()
    shares = [range(first + worker, first + seeds, workers * 10) for worker in range(workers * 10)]
    found = in_processes(play_clusters, shares, workers)
    breaches = [text for one in found for text in one.breaches]
    statuses = sum((one.statuses for one in found), Counter())
    notes = (
        f"{sum(one.lives for one in found):,} lives of a desk with 1 to 4 workers: {sum(one.kills for one in found):,} kills and "
        f"{sum(one.disk_faults for one in found):,} disk faults of the desk, {sum(one.worker_kills for one in found):,} kills of workers, "
        f"{sum(one.stops for one in found):,} stops, {sum(one.cuts for one in found):,} partitions, "
        f"{sum(one.hours for one in found):,.0f} virtual hours, {sum(one.rows for one in found):,} rows "
        f"({', '.join(f'{k} {n:,}' for k, n in statuses.most_common())}); most requests in any second minus the rate "
        f"{max(one.most_excess for one in found):g}; a tenth of the seeds told twice: the same ledger to the byte"
    )
    seeds_bad = sorted({int(text.split()[1].rstrip(":")) for text in breaches})
    notes += f"; seeds {seeds_bad[:20]}: {'; '.join(breaches[:3])}" if breaches else ""
    test = "a desk and its workers in virtual time: links that fail, kills, stops"
    seconds = time.monotonic() - begun
    return [Record("T55", test, sum(one.stories for one in found), len(breaches), "seeds", notes, seconds)]
