"""T53: run, crash, failing disk, server faults, resume, retry, a second process, in any order, by hypothesis."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bulkimg.engine.reopen import resume_run
from bulkimg.errors import RunRefused
from bulkimg.ledger import RunDirectory
from tests.battery.network import KINDS, Weather
from tests.battery.report import Record
from tests.battery.simulation import Ending, Play, Story
from tests.battery.stateful import explore, failure

KIND = st.sampled_from(KINDS)
OUTAGES = st.lists(
    st.tuples(st.floats(0, 30), st.floats(0.1, 600), st.sampled_from(("refused", "silent", "503"))), max_size=2
)


class Run(RuleBasedStateMachine):
    """One run and its retries, on a server that outlives its processes."""

    stage: Play | None = None
    stories: ClassVar[int] = 0

    @initialize(
        seed=st.integers(0, 10_000),
        rows=st.integers(1, 12),
        concurrency=st.sampled_from((1, 3, 8)),
        retries=st.sampled_from((0, 2)),
        dialect=st.sampled_from(("documented", "zstack")),
        account=st.booleans(),
    )
    def begin(self, seed: int, rows: int, concurrency: int, retries: int, dialect: str, account: bool) -> None:
        Run.stories += 1
        self.place = Path(tempfile.mkdtemp(prefix="bulkimg-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        story = Story(seed, rows, concurrency, retries, "unlimited", Weather(dialect), account)
        self.stage = Play(story, self.place)
        self.stage.create_run()

    @rule(
        faults=st.dictionaries(KIND, st.sampled_from((0.1, 0.4)), max_size=2),
        asks=st.sampled_from((0.0, 0.3)),
        outages=OUTAGES,
    )
    def weather(self, faults: dict[str, float], asks: float, outages: list[tuple[float, float, str]]) -> None:
        assert self.stage
        now, old = self.stage.loop.time(), self.stage.network.weather
        self.stage.troubled = self.stage.troubled or bool(faults or asks)
        later = tuple((now + begin, now + begin + length, how) for begin, length, how in outages)
        self.stage.network.weather = Weather(old.dialect, old.service, faults, asks, later)

    @rule(at=st.integers(1, 60), late=st.booleans(), kill=st.booleans())
    def strike(self, at: int, late: bool, kill: bool) -> None:
        """Kill the process, or let its disk fail, at a statement of the ledger."""
        assert self.stage
        self.stage.live(Ending(die_at=at if kill else 0, fail_at=0 if kill else at, late=late))

    @rule(seconds=st.floats(0.001, 20))
    def kill(self, seconds: float) -> None:
        assert self.stage
        self.stage.live(Ending(kill_after=seconds))

    @rule()
    def resume(self) -> None:
        assert self.stage
        self.stage.live(Ending())

    @rule()
    def second_process(self) -> None:
        """One process holds the run and the other is refused. A dead process holds nothing."""
        assert self.stage
        assert self.stage.run
        held = RunDirectory(self.stage.run).hold()
        try:
            resume_run(RunDirectory(self.stage.run), self.stage.settings).close()
            raise AssertionError("two processes hold one run")
        except RunRefused:
            pass
        finally:
            held.release()

    @precondition(lambda self: self.stage is not None and not self.stage.open_rows())
    @rule()
    def retry(self) -> None:
        assert self.stage
        self.stage.again()

    @invariant()
    def every_promise_holds(self) -> None:
        if self.stage is None:
            return
        assert not (found := self.stage.story.breaches + self.stage.network.breaches), found
        statuses: Any = dict(self.stage._ask("SELECT status, count(*) FROM row_state GROUP BY status"))
        assert sum(statuses.values()) == len(self.stage.changes), "every row has one status at any time"

    def teardown(self) -> None:
        if self.stage is None:
            return
        try:
            self.stage.finish()
            self.stage.end()
            assert not (found := self.stage.story.breaches), found
        finally:
            self.stage.close()
            shutil.rmtree(self.place, ignore_errors=True)


def machine(stories: int, seed: int) -> Record:
    begun = time.monotonic()
    Run.stories = 0
    broken = failure(Run, stories, steps=12, seed=seed)
    test = "one run and its retries, in any order of events"
    return Record("T53", test, Run.stories, int(bool(broken)), "stories", broken, time.monotonic() - begun)


def test_one_run_in_any_order_of_events() -> None:
    explore(Run, examples=25, steps=12)
