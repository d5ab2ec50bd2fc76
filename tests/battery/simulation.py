"""T55: whole runs in virtual time, by seed, with the production code: crashes, a failing disk, outages, lies, losses.

Each seed defines a story: a manifest, a server with its faults, some processes that are killed or whose disk fails, and
a last process without faults. Then the ledger, the result files, the server's own table and its log are compared. The
same seed gives the same story, to the byte of the ledger.
"""

import asyncio
import contextlib
import csv
import hashlib
import json
import math
import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkimg import AccessKey, Account, Session
from bulkimg.engine.anew import NothingToDo, create_retry
from bulkimg.engine.connect import Ports
from bulkimg.engine.create import create_run
from bulkimg.engine.execute import Engine
from bulkimg.engine.reopen import resume_run
from bulkimg.errors import Exit, StorageError
from bulkimg.layers import flags_layer, merge
from bulkimg.ledger import RunDirectory
from bulkimg.model import Event, Settled
from bulkimg.pace.breaker import NEAR
from bulkimg.pace.slots import OwnSlots
from bulkimg.runtime import Runtime
from bulkimg.settings import Settings
from tests.battery.disk import Died, Disk
from tests.battery.network import EDITED, KINDS, Network, Weather, row_of
from tests.battery.report import Record
from tests.battery.shares import in_processes
from tests.virtual import VirtualLoop, virtual_throttler
from tests.windows import most_within

EPOCH = 1_795_435_200.0  # 2026-11-23 12:00:00 UTC, the start of virtual time
LIVES = 6
STATUSES = {"updated", "unchanged", "conflict", "invalid", "failed", "drifted", "unknown", "unprocessed"}


class InlineThread:
    """Commit in the event loop instead of in a thread, so that nothing depends on speed."""

    def __init__(self, on_death: Callable[[], None]) -> None:
        self._waiting = 0
        self._on_death = on_death

    def put(self, work: Callable[[], None]) -> None:
        self._waiting += 1

        def step() -> None:
            self._waiting -= 1
            try:
                work()
            except Died:
                self._on_death()

        asyncio.get_running_loop().call_soon(step)

    async def close(self) -> None:
        while self._waiting:  # noqa: ASYNC110 - a step of the loop, not a time
            await asyncio.sleep(0)
        await asyncio.sleep(0)


@dataclass
class Story:
    """What a seed defines, and the errors that were found."""

    seed: int
    rows: int
    concurrency: int
    retries: int
    rate: str
    weather: Weather
    account: bool
    survey: bool = False
    breaches: list[str] = field(default_factory=list)
    kills: int = 0
    disk_faults: int = 0
    digest: str = ""
    statuses: Counter[str] = field(default_factory=Counter)
    virtual_seconds: float = 0.0
    puts: int = 0


def make_up(seed: int) -> Story:
    rng = random.Random(f"story {seed}")
    kinds = rng.sample(KINDS, rng.randint(0, 6))
    faults = {kind: rng.choice((0.02, 0.05, 0.15)) for kind in kinds}
    outages = []
    begin_at = 0.0
    for _ in range(rng.choice((0, 0, 1, 2))):
        begin_at += rng.uniform(0.05, 5)
        length = rng.choice((0.5, 5, 60, 1800))
        outages.append((begin_at, begin_at + length, rng.choice(("refused", "silent", "503"))))
        begin_at += length
    account = rng.random() < 0.4
    looks = random.Random(f"survey {seed}")
    survey = looks.random() < 0.5
    edits = tuple(
        (looks.choice((looks.uniform(0, 3), looks.uniform(0, 90))), f"{looks.randint(1, 40):032x}") for _ in range(6)
    )
    connects = random.Random(f"stalls {seed}")
    stalls = [(begin, begin + connects.choice((0.2, 0.7, 2))) for begin in (connects.uniform(0, 12) for _ in range(8))]
    deaf_to = random.Random(f"deaf {seed}").choice((*[""] * 8, "api-jobs", "images"))
    return Story(
        seed,
        rows=rng.randint(1, 40),
        concurrency=rng.choice((1, 2, 5, 12)),
        retries=rng.choice((0, 1, 3, 5)),
        rate=rng.choice(("unlimited", "unlimited", "200/s", "20/s")),
        account=account,
        survey=survey,
        weather=Weather(
            rng.choice(("documented", "zstack")),
            service=rng.choice((0.0, 0.05, 1.0)),
            faults=faults,
            ask_faults=rng.choice((0.0, 0.0, 0.05, 0.2)),
            outages=tuple(outages),
            sessions_die=tuple(rng.uniform(0, 20) for _ in range(rng.choice((0, 1, 2)))) if account else (),
            edits=edits if survey and looks.random() < 0.5 else (),
            stalls=tuple(stalls) if connects.random() < 0.4 else (),
            deaf_to=deaf_to,
        ),
    )


@dataclass(frozen=True)
class Ending:
    """How a process ends early: at the n-th statement of its ledger, or after some seconds."""

    die_at: int = 0
    fail_at: int = 0
    late: bool = False
    kill_after: float = math.inf

    @classmethod
    def by_chance(cls, rng: random.Random) -> "Ending":
        match rng.choice(("statement", "moment", "disk")):
            case "statement":
                return cls(die_at=rng.randint(1, 60), late=rng.random() < 0.5)
            case "moment":
                return cls(kill_after=rng.expovariate(0.5))
            case _:
                return cls(fail_at=rng.randint(1, 60), late=rng.random() < 0.5)


class Play:
    """Play one story in a folder of its own."""

    def __init__(self, story: Story, place: Path) -> None:
        self.story = story
        self.rng = random.Random(f"play {story.seed}")
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(lambda loop, context: None)  # events that a dead process would not have shown
        self.place = place
        ghosts = [f"{n:032x}" for n in range(900, 900 + self.rng.choice((0, 0, 1, 3)))]
        images = {f"{n + 1:032x}": {"name": f"image-{n}", "platform": "Other"} for n in range(story.rows)}
        more = {}
        if random.Random(f"null {story.seed}").random() < 0.2:  # all is as asked for, except for a null field
            images = {uuid: {"name": f"new-{uuid[-6:]}", "platform": "Linux"} for uuid in images}
            more = {"description": "told"}
        for uuid in self.rng.sample(sorted(images), min(len(images), self.rng.choice((0, 0, 1)))):
            images[uuid]["locked"] = "yes"
        self.changes = [
            {"uuid": uuid, "name": f" new-{uuid[-6:]} ", "platform": "Linux", **more} for uuid in [*images, *ghosts]
        ]
        self.network = Network(story.weather, images, random.Random(f"net {story.seed}"), self.loop.time, asyncio.sleep)
        self.network.before_put = self._look_at_put
        self.settings = self._settings()
        self.reader: sqlite3.Connection | None = None
        self.outcomes: dict[int, tuple[Any, ...]] = {}
        self.troubled = bool(story.weather.faults or story.weather.ask_faults or story.weather.deaf_to)
        self.run: Path | None = None
        self.at_its_end = False  # the last process ended by itself

    def _settings(self) -> Settings:
        story = self.story
        return merge(
            flags_layer(
                {
                    "endpoint": "http://sim:8080",
                    "runs_dir": str(self.place),
                    "run_id": "story",
                    "rate": story.rate,
                    "concurrency": story.concurrency,
                    "retries": story.retries,
                    "max_errors": "none",
                    "job_timeout": "90s",
                    "max_outage": "5h",
                    "survey": story.survey,
                }
            )
        )

    def now(self) -> float:
        return EPOCH + self.loop.time()

    def create_run(self) -> None:
        opened = create_run("(changes)", self.settings, self.changes, self.now)
        self.run = opened.directory.path
        opened.close()
        self._read()

    def _read(self) -> None:
        if self.reader:
            self.reader.close()
        self.reader = sqlite3.connect(f"file:{self.run}/run.db?mode=ro", uri=True, isolation_level=None)
        self.outcomes = {}

    def play(self) -> Story:
        self.create_run()
        lives = self.rng.choice((1, 1, 2, 3, LIVES))
        for life in range(lives):
            last = life == lives - 1
            if last and self.rng.random() < 0.5:
                self.network.calm()
            self.live(Ending() if last else Ending.by_chance(self.rng))
        self.finish()
        self.end()
        return self.story

    def finish(self) -> None:
        """Resume a run that gave up or died at its end; the last time without faults."""
        for _ in range(4):
            if self.at_its_end and not self.open_rows():
                break
            self.network.calm()
            self.live(Ending())

    def again(self) -> None:
        """`retry`: a new run of the rows that the last one left failed or unknown.

        Its other rows must stay as they are.
        """
        assert self.run is not None
        left = self._digest()
        try:
            named = self.settings.model_copy(update={"run_id": f"{self.run.name}-again"})
            opened = create_retry(RunDirectory(self.run), named, self.now)
        except NothingToDo:
            return
        if self._digest() != left:
            self._breach("a retry changed the run that it tries again")
        uuids = {uuid for (uuid,) in opened.ledger.db.execute("SELECT lower(hex(uuid)) FROM row")}
        self.changes = [change for change in self.changes if change["uuid"] in uuids]
        self.run = opened.directory.path
        opened.close()
        self.network.puts.clear()
        self.network.applied.clear()
        self._read()

    # -- one process ----------------------------------------------------------------------------------------------------

    def live(self, ending: Ending) -> None:
        """Run one process, from resume to its end."""
        assert self.run is not None
        opened = resume_run(RunDirectory(self.run), self.settings)
        self.network.holds.clear()  # a new process does not know the requests of an earlier one
        self.at_its_end = False
        earlier = len(self.network.requests)
        disk = Disk(opened.ledger.db, die_at=ending.die_at, fail_at=ending.fail_at, late=ending.late)
        opened.ledger.db = disk  # type: ignore[assignment] # it has what the ledger uses
        try:
            self._carry(opened, disk, ending.kill_after)
            self.at_its_end = True
        except Died:
            self.story.kills += 1
        except StorageError:
            if not disk.failed:
                raise
            self.story.disk_faults += 1
        finally:
            opened.ledger.db = disk.connection
            opened.close()
        self._remember_outcomes()
        self._check_rate(earlier)
        if disk.begun_after_failure:
            self._breach("a transaction was begun after the disk had failed")

    def _check_rate(self, earlier: int) -> None:
        """Check that no second of the life that begins with this request holds more than the rate (invariant 11)."""
        most = most_within(1.0 - 1e-6, [at for at, _ in self.network.requests[earlier:]])
        if most > self.settings.rate:
            self._breach(f"{most} requests within a second, {self.settings.rate:g} may be")

    def _carry(self, opened: Any, disk: Disk, kill_after: float) -> None:
        death = self.loop.create_future()

        def die() -> None:
            disk.dead = True
            if not death.done():
                death.set_result(None)

        ports = Ports(
            Runtime(self.loop.time, self.now, asyncio.sleep, random.Random(self.rng.getrandbits(64))),
            connect=lambda settings, now: self.network,
            writer_thread=lambda: InlineThread(die),
            slots=lambda target: OwnSlots(),
            listen=lambda directory, handle: contextlib.nullcontext(""),
        )
        credentials: Session | Account | AccessKey = (
            Account("admin", "hunter22") if self.story.account else Session("5" * 32)
        )
        engine = Engine(opened, credentials, self._watch, ports)
        with virtual_throttler(self.loop):
            self.loop.run_until_complete(self._until_death(engine, death, die, kill_after))

    async def _until_death(
        self, engine: Engine, death: "asyncio.Future[None]", die: Callable[[], None], kill_after: float
    ) -> None:
        if kill_after < math.inf:
            self.loop.call_later(kill_after, die)
        work = asyncio.ensure_future(engine.execute())
        try:
            ends: set[asyncio.Future[Any]] = {work, death}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                raise Died
            summary = work.result()
            if sum(summary.counts.values()) != len(self.changes):
                self._breach("the summary does not count every row")
            if summary.exit_code not in (Exit.OK, Exit.SOME_ROWS_NOT, Exit.TARGET):
                self._breach(f"exit code {summary.exit_code}: {summary.reason}")
        finally:
            await self._bury(work)

    async def _bury(self, work: "asyncio.Future[Any]") -> None:
        """Stop everything that a dead process would not do: its disk fails, its network is cut."""

        def cut(uuid: str, job: str) -> None:
            raise asyncio.CancelledError

        self.network.before_put = cut
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if not work.cancelled() and work.done() and isinstance(work.exception(), Died):
            work.exception()
        self.network.before_put = self._look_at_put

    # -- what must always hold ------------------------------------------------------------------------------------------

    def _breach(self, what: str) -> None:
        self.story.breaches.append(what)

    def _ask(self, sql: str, *values: Any) -> list[Any]:
        assert self.reader is not None
        return self.reader.execute(sql, values).fetchall()

    def _look_at_put(self, uuid: str, job: str) -> None:
        """Check that every PUT has a claim (invariant 2), and no row with an outcome gets one (invariant 4)."""
        known = self._ask(
            "SELECT attempt.n FROM attempt JOIN row USING (ordinal) WHERE job_uuid = ? AND row.uuid = ? AND fate IS NULL",
            job,
            bytes.fromhex(uuid),
        )
        if not known:
            self._breach(f"a PUT of {uuid} left before its attempt was durable")
        if self._ask("SELECT 1 FROM outcome JOIN row USING (ordinal) WHERE row.uuid = ?", bytes.fromhex(uuid)):
            self._breach(f"a PUT of {uuid}, which has its outcome")
        self._look_at_edits(uuid)
        flying = sum(self.network._flying.values()) + 1
        if flying > self._most_in_flight:
            self._breach(f"{flying} PUTs at once")

    @property
    def _most_in_flight(self) -> int:
        return self.story.concurrency

    def _look_at_edits(self, uuid: str) -> None:
        """Check that no later edit is overwritten, except in the time between reading and sending (invariant 25)."""
        edited, image = self.network.edited.get(uuid), self.network.table.get(uuid, {})
        seen = self._ask("SELECT before FROM plan JOIN row USING (ordinal) WHERE row.uuid = ?", bytes.fromhex(uuid))
        if edited is None or not seen or image.get("platform") != EDITED:
            return
        rate = self.settings.rate
        longest = max(30.0, 4 * self.story.concurrency / rate) + 0.1
        if json.loads(seen[0][0])["platform"] != EDITED and self.loop.time() - edited > longest:
            self._breach(f"a PUT of {uuid} overwrites an edit made {self.loop.time() - edited:.0f} s ago")

    def _watch(self, event: Event) -> None:
        """Check that an outcome has a claim (invariant 3)."""
        if isinstance(event, Settled):
            for outcome in event.outcomes:
                if not self._ask("SELECT 1 FROM outcome WHERE ordinal = ?", outcome.ordinal):
                    self._breach(f"row {outcome.ordinal} was shown before its outcome was durable")

    def _remember_outcomes(self) -> None:
        """Check that no outcome is ever lost or changed (invariant 4)."""
        found = {record[0]: record for record in self._ask("SELECT * FROM outcome")}
        for ordinal, record in self.outcomes.items():
            if found.get(ordinal) != record:
                self._breach(f"the outcome of row {ordinal} has changed")
        self.outcomes = found

    def open_rows(self) -> int:
        return len(self.changes) - len(self.outcomes)

    def end(self) -> None:
        assert self.run is not None
        story = self.story
        story.virtual_seconds = self.loop.time()
        story.puts = len(self.network.puts)
        story.breaches += self.network.breaches
        self.loop.run_until_complete(asyncio.sleep(100))  # late changes have been made by now
        self.network.settle_jobs()
        self._check_files()
        self._check_truth()
        self._check_requests()
        story.digest = self._digest()

    def close(self) -> None:
        self.loop.close()
        if self.reader:
            self.reader.close()

    def _check_files(self) -> None:
        assert self.run is not None
        results = [json.loads(line) for line in (self.run / "results.jsonl").read_text().splitlines()]
        with (self.run / "results.csv").open(newline="") as file:
            table = list(csv.DictReader(file, strict=True))
        self.story.statuses = Counter(result["status"] for result in results)
        if [r["uuid"] for r in results] != [c["uuid"] for c in self.changes] or len(table) != len(results):
            self._breach("the result files do not have one line a row, in order")
        if set(self.story.statuses) - STATUSES or self.story.statuses["unprocessed"]:
            self._breach(f"statuses {dict(self.story.statuses)}")
        self.results = {result["uuid"]: result for result in results}

    def _check_truth(self) -> None:
        """Check successes and failures against the server's own table and history (invariants 5 and 6)."""
        for change in self.changes:
            uuid, result = change["uuid"], self.results[change["uuid"]]
            image, applied = self.network.table.get(uuid, {}), uuid in self.network.applied
            wanted = {name: value.strip() for name, value in change.items() if name != "uuid"}
            as_asked = {name: image.get(name) for name in wanted} == wanted
            edited = uuid in self.network.edited
            if result["status"] in ("conflict", "unchanged") and applied:
                self._breach(f"{uuid} is {result['status']}, and it was sent and applied")
            if result["status"] == "conflict" and not edited:
                self._breach(f"{uuid} is in conflict, and nobody else changed it")
            if edited:
                continue
            if result["status"] == "updated" and not as_asked:
                self._breach(f"{uuid} is updated, and the server shows {image}")
            if result["status"] == "failed" and applied:
                self._breach(f"{uuid} is failed ({result['code']}), and it was applied")
            if not self.troubled and image and not image.get("locked") and result["status"] not in self._fine:
                self._breach(f"{uuid} is {result['status']} ({result['code']}), and nothing but outages happened")
            if result["status"] == "drifted":
                self._breach(f"{uuid} is drifted, and nobody else changed it")

    @property
    def _fine(self) -> tuple[str, ...]:
        """Check that every row succeeds if there were only outages.

        There is one exception (README, «Limits»). With fewer requests in flight than make an outage, and only one try,
        a silent outage that is over at the timeout looks like the rows' own failures. Such a row may be unknown.
        """
        unseen = self.story.retries == 0 and self.story.concurrency < NEAR
        may_be_unknown = unseen and "silent" in self.network.met
        return ("updated", "unchanged", *["unknown"] * may_be_unknown)

    def _check_requests(self) -> None:
        """Check for few duplicates, equal bodies, and few requests in an outage (invariants 8, 9 and 14)."""
        attempts = dict(self._ask("SELECT lower(hex(uuid)), count(*) FROM attempt JOIN row USING (ordinal) GROUP BY 1"))
        for uuid, count in Counter(put.uuid for put in self.network.puts).items():
            if count > attempts.get(uuid, 0):
                self._breach(f"{count} PUTs of {uuid}, {attempts.get(uuid, 0)} attempts in the ledger")
        for uuid in attempts:
            if len({row_of(put.body) for put in self.network.puts if put.uuid == uuid}) > 1:
                self._breach(f"{uuid} was sent with different bodies")
        for begin_at, planned_end, how in self.story.weather.outages:
            end = min(planned_end, self.network.calm_since)
            during = sum(begin_at <= moment < end for moment, _ in self.network.requests)
            if during > self._allowed_in_outage(max(0.0, end - begin_at), how):
                self._breach(f"{during} requests in {end - begin_at:.0f} s of outage ({how})")

    def _allowed_in_outage(self, seconds: float, how: str) -> float:
        """Return how many requests an outage may cost.

        These are those in flight at the beginning, failures that make an outage, and probes at growing distances, of
        two questions each if the server can be reached; again for each process.
        """
        lives, questions = self.story.kills + self.story.disk_faults + 1, 1 if how == "refused" else 2
        return lives * (2 * self.story.concurrency + 10 + 7 * questions) + seconds / 45 * questions

    def _digest(self) -> str:
        """Return the digest of everything in the ledger except the name of its directory."""
        assert self.reader is not None
        # The next command has the place, which differs in every story, and the header's checksum depends on it.
        dump = (
            line for line in self.reader.iterdump() if not any(f"VALUES('{name}'" in line for name in ("next", "meta"))
        )
        return hashlib.sha256("\n".join(dump).encode()).hexdigest()


def play(seed: int) -> Story:
    """Play one seed from its beginning to its end."""
    shm = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="bulkimg-", dir=shm if shm.is_dir() else None))
    story = make_up(seed)
    stage = Play(story, place)
    try:
        return stage.play()
    except Exception as error:  # a crash of the program is a finding too
        story.breaches.append(f"{type(error).__name__}: {error}")
        return story
    finally:
        stage.close()
        shutil.rmtree(place, ignore_errors=True)


@dataclass
class Played:
    """The results of a number of stories."""

    stories: int = 0
    kills: int = 0
    disk_faults: int = 0
    rows: int = 0
    hours: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


def play_all(seeds: range) -> Played:
    """Play each seed. Every tenth is played twice and must be the same to the byte."""
    found = Played()
    for seed in seeds:
        story = play(seed)
        found.stories += 1
        found.kills += story.kills
        found.disk_faults += story.disk_faults
        found.rows += sum(story.statuses.values())
        found.hours += story.virtual_seconds / 3600
        found.statuses += story.statuses
        found.digests.append(story.digest)
        found.breaches += [f"seed {seed}: {breach}" for breach in story.breaches[:3]]
        if seed % 10 == 0 and play(seed).digest != story.digest:
            found.breaches.append(f"seed {seed}: told twice, it was another ledger")
    return found


def simulation(seeds: int = 10_000, first: int = 0, workers: int = 2) -> list[Record]:
    """Run T55."""
    begun = time.monotonic()
    shares = [range(first + worker, first + seeds, workers * 10) for worker in range(workers * 10)]
    found = in_processes(play_all, shares, workers)
    breaches = [text for one in found for text in one.breaches]
    statuses = sum((one.statuses for one in found), Counter())
    seconds = time.monotonic() - begun
    hours = sum(one.hours for one in found)
    notes = (
        f"{sum(one.kills for one in found):,} kills and {sum(one.disk_faults for one in found):,} disk faults at a chosen statement or "
        f"moment, {hours:,.0f} virtual hours, {sum(one.rows for one in found):,} rows ({', '.join(f'{k} {n:,}' for k, n in statuses.most_common())}); "
        "a tenth of the seeds told twice: the same ledger to the byte"
    )
    seeds_bad = sorted({int(text.split()[1].rstrip(":")) for text in breaches})
    notes += f"; seeds {seeds_bad[:20]}: {'; '.join(breaches[:3])}" if breaches else ""
    test = "whole runs in virtual time: crashes, failing disk, outages, lost and false answers"
    return [Record("T55", test, sum(one.stories for one in found), len(breaches), "seeds", notes, seconds)]
