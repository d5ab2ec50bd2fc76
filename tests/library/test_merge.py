"""`merge`: a program that sends shards makes one run of them, on which everything works as on a whole run."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import bulkimg
from tests.conftest import UUID, Server
from tests.library.calling import HOWS, Caller

CHANCE = {"started_at", "duration_ms", "job_uuid"}  # of a row: what two runs of the same work have otherwise
Rows = list[dict[str, Any]]


class Merger(Caller):
    """Call verbs, and `merge`, which takes nothing of a server."""

    def merge(self, *runs: str | Path, **options: Any) -> bulkimg.Result:
        given = {"runs_dir": self.runs_dir, **options}
        if self.how == "plain":
            return bulkimg.merge(runs, **given)
        return asyncio.run(bulkimg.amerge(runs, **given))

    def shards(self, rows: Any, number: int = 2, **options: Any) -> list[str]:
        """Send all shards. Returns the ids of their runs: `s-1-of-2`, `s-2-of-2`, and so on."""
        return [self.shard(rows, f"{at}/{number}", **options) for at in range(1, number + 1)]

    def shard(self, rows: Any, shard: str, **options: Any) -> str:
        return str(self.at("run", rows, shard=shard, **{"run_id": "s", **options}).run_id)

    def wait_for_run(self, run: str) -> None:
        """Wait until the directory of this run is there."""
        deadline = time.monotonic() + 60
        while run not in self.ids:
            assert time.monotonic() < deadline, "nothing was merged"
            time.sleep(0.001)

    @property
    def ids(self) -> set[str]:
        return {path.name for path in self.runs_dir.iterdir()}


@pytest.fixture(params=HOWS)
def call(request: pytest.FixtureRequest, server: Server, tmp_path: Path) -> Merger:
    return Merger(server, tmp_path / "runs", request.param)


@pytest.fixture
def plain(server: Server, tmp_path: Path) -> Merger:
    return Merger(server, tmp_path / "runs")


def told(result: bulkimg.Result) -> list[dict[str, Any]]:
    """Return the rows of a run without what is chance."""
    return [{name: value for name, value in asdict(row).items() if name not in CHANCE} for row in result.rows()]


def test_shards_that_are_merged_are_the_whole_run(call: Merger) -> None:
    changes = call.changes(12)
    before = list(call.names(changes))
    same = {"uuid": changes[-1]["uuid"], "name": before[-1]}
    rows = [*changes[:-1], same, {"uuid": UUID, "name": "is not there"}, {"uuid": "no uuid", "name": "x"}, changes[3]]
    options = {"skip_invalid": True, "action_key": "updateImage"}  # otherwise each first row tries two spellings
    whole = call.at("run", rows, **options)
    call.of("undo", whole.run_id)
    assert list(call.names(changes)) == before

    merged = call.merge(*call.shards(rows, 3, **options), run_id="all", note="of three")
    assert told(merged) == told(whole)
    assert len(told(merged)) == len(rows)
    assert merged.counts == whole.counts == {**merged.counts, "updated": 12, "failed": 1, "invalid": 1, "unchanged": 1}
    assert (merged.exit_code, merged.target, merged.run_id) == (whole.exit_code, whole.target, "all")
    assert merged.next == "bulkimg retry all --runs-dir " + str(call.runs_dir)

    assert bulkimg.open_run("all", runs_dir=call.runs_dir) == merged
    assert call.of("resume", "all") == merged
    assert call.of("retry", "all").counts["failed"] == 1
    assert call.of("verify", "all").ok
    assert call.of("undo", "all").counts["updated"] == 11
    assert list(call.names(changes)) == before


def test_directories_of_other_places_are_merged_here(call: Merger, tmp_path: Path) -> None:
    call.shards(call.changes(4), runs_dir=tmp_path / "far")
    results = tmp_path / "all.jsonl"
    merged = call.merge(*sorted((tmp_path / "far").glob("s-*")), results=results)
    assert merged.directory.parent == call.runs_dir
    assert results.read_text() == (merged.directory / "results.jsonl").read_text()
    assert merged.counts["updated"] == 4


def test_rows_of_a_shard_that_was_stopped_are_left_to_a_retry(call: Merger) -> None:
    changes = call.changes(30)
    call.at("run", changes, shard="1/2", run_id="s")
    stopped = call.at("run", changes, shard="2/2", run_id="s", rate="10/s", max_duration=0.3)
    assert stopped.exit_code == 6
    with pytest.raises(bulkimg.RunRefused, match=r"run s-2-of-2 \(shard 2/2\) is not finished; finish it with"):
        call.merge("s-1-of-2", "s-2-of-2")
    assert call.ids == {"s-1-of-2", "s-2-of-2"}
    merged = call.merge("s-1-of-2", "s-2-of-2", partial=True, run_id="all")
    left = stopped.counts["unprocessed"]
    assert (merged.counts["updated"], merged.counts["unprocessed"]) == (30 - left, left)
    assert call.of("retry", "all").counts["updated"] == left
    assert list(call.names(changes)) == [change["name"] for change in changes]


# -- what is refused ----------------------------------------------------------------------------------------------------


def missing(call: Merger, rows: Rows) -> list[str]:
    return [call.shard(rows, "1/2")]


def twice(call: Merger, rows: Rows) -> list[str]:
    return ["s-1-of-2", *call.shards(rows)]


def other_rows(call: Merger, rows: Rows) -> list[str]:
    """Rows of a program have no bytes to compare: another value of one row is another manifest."""
    changed = [{**row, "name": "another"} if row is rows[2] else row for row in rows]
    return [call.shard(rows, "1/2"), call.shard(changed, "2/2", run_id="o")]


def another_order(call: Merger, rows: Rows) -> list[str]:
    """Rows in another order have other lines."""
    return [call.shard(rows, "1/2"), call.shard(rows[::-1], "2/2", run_id="o")]


def another_file(call: Merger, rows: Rows) -> list[str]:
    files = []
    for name in ("one", "other"):
        files.append(call.runs_dir.parent / f"{name}.csv")
        files[-1].write_text("uuid,name\n" + "".join(f"{row['uuid']},{row['name']} {name}\n" for row in rows))
    return [call.shard(files[0], "1/2"), call.shard(files[1], "2/2", run_id="o")]


def other_options(call: Merger, rows: Rows) -> list[str]:
    return [call.shard(rows, "1/2"), call.shard(rows, "2/2", run_id="o", max_rows=5)]


def another_division(call: Merger, rows: Rows) -> list[str]:
    return [call.shard(rows, "1/2"), call.shard(rows, "2/3")]


def no_shard(call: Merger, rows: Rows) -> list[str]:
    return [call.at("run", rows, run_id="w").run_id, call.shard(rows, "2/2")]


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (missing, "shard 2 of 2 missing; name all runs"),
        (twice, "run s-1-of-2 is named twice"),
        (other_rows, r"run o-2-of-2 \(shard 2/2\) has another manifest than run s-1-of-2"),
        (another_order, "has another manifest than"),
        (another_file, "has another manifest than"),
        (other_options, "was made with --max-rows"),
        (another_division, "are shards of different divisions"),
        (no_shard, "run w is not the run of a shard"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_one_division_is_refused_and_leaves_nothing(
    plain: Merger, prepare: Callable[[Merger, Rows], list[str]], why: str
) -> None:
    runs = prepare(plain, plain.changes(6))
    before = plain.ids
    with pytest.raises(bulkimg.RunRefused, match=why) as refused:
        plain.merge(*runs, run_id="all")
    assert refused.value.exit_code == 7
    assert plain.ids == before


def test_the_order_of_keys_and_tags_makes_no_other_rows(plain: Merger) -> None:
    """Programs make mappings and lists from sets, whose order differs between two processes."""
    rows = [{**row, "description": "x", "userTags": ["a", "b"]} for row in plain.changes(4)]
    turned = [{key: row[key] for key in reversed(row)} | {"userTags": ["b", "a"]} for row in rows]
    mine, other = plain.shard(rows, "1/2"), plain.shard(turned, "2/2")
    assert plain.merge(mine, other).counts["updated"] == 4


async def test_a_shard_that_is_being_sent_is_refused_until_it_is_finished(server: Server, tmp_path: Path) -> None:
    call = Merger(server, tmp_path / "runs")
    changes, given = call.changes(20), {**call.given, "endpoint": server.url, "run_id": "s"}
    await bulkimg.arun(changes, shard="1/2", **given)
    names = ("s-1-of-2", "s-2-of-2")
    async with bulkimg.Run(changes, shard="2/2", **(given | {"rate": "10/s"})) as run:
        async for event in run:
            if isinstance(event, bulkimg.Settled):
                for partial in (False, True):
                    with pytest.raises(bulkimg.RunRefused, match="run s-2-of-2 is in use by another process"):
                        await bulkimg.amerge(names, runs_dir=call.runs_dir, partial=partial)
                break
    assert call.ids == set(names)
    with pytest.raises(bulkimg.RunRefused, match="is not finished"):
        await bulkimg.amerge(names, runs_dir=call.runs_dir)
    await bulkimg.aresume("s-2-of-2", **call.given)
    assert (await bulkimg.amerge(names, runs_dir=call.runs_dir)).counts["updated"] == 20


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_merge_lets_the_shards_go(server: Server, tmp_path: Path, times: int) -> None:
    call = Merger(server, tmp_path / "runs")
    names = await asyncio.to_thread(call.shards, call.changes(4))
    merging = asyncio.create_task(bulkimg.amerge(names, runs_dir=call.runs_dir, run_id="first"))
    await asyncio.to_thread(call.wait_for_run, "first")
    for _ in range(times):
        merging.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await merging
    assert (await bulkimg.amerge(names, runs_dir=call.runs_dir, run_id="second")).ok


def test_a_name_that_is_taken_is_refused(plain: Merger) -> None:
    names = plain.shards(plain.changes(2))
    plain.merge(*names, run_id="all")
    with pytest.raises(bulkimg.RunRefused, match="run all is finished"):
        plain.merge(*names, run_id="all")
    with pytest.raises(bulkimg.RunRefused, match="run s-1-of-2 already exists"):
        plain.merge(*names, run_id="s-1-of-2")


def test_a_damaged_shard_and_a_place_that_cannot_be_written_are_storage_errors(plain: Merger, tmp_path: Path) -> None:
    names = plain.shards(plain.changes(4))
    with pytest.raises(bulkimg.StorageError, match="the directory does not exist"):
        plain.merge(*names, results=tmp_path / "nowhere" / "all.csv")
    with closing(sqlite3.connect(plain.runs_dir / "s-2-of-2" / "run.db")) as ledger, ledger:
        ledger.execute("UPDATE outcome SET status = 'failed'")
    with pytest.raises(bulkimg.StorageError, match=r"s-2-of-2/run\.db: is damaged") as damaged:
        plain.merge(*names)
    assert damaged.value.exit_code == 8
    assert plain.ids == set(names)


@pytest.mark.parametrize(
    ("runs", "options", "why"),
    [
        ([], {}, "no run is named; name the runs of all shards"),
        ("s-1-of-2", {}, "runs is of type str; give a list with the run of each shard"),
        (Path("runs"), {}, "give a list with the run of each shard"),
        (5, {}, "runs is of type int"),
        ([None], {}, "no run is named"),
        (["nothing"], {}, "there are no runs in"),
        ([], {"run_ids": "all"}, "there is no option 'run_ids'; did you mean 'run_id'"),
        ([], {"rate": 5}, "there is no option 'rate'"),
        ([], {"run_id": "a/b"}, "run_id 'a/b'"),
    ],
)
def test_a_wrong_argument_is_a_usage_error(tmp_path: Path, runs: Any, options: dict[str, Any], why: str) -> None:
    with pytest.raises(bulkimg.UsageError, match=why):
        bulkimg.merge(runs, **{"runs_dir": tmp_path / "runs", **options})
    assert list(tmp_path.iterdir()) == []


async def test_a_plain_merge_inside_a_loop_says_what_to_await() -> None:
    with pytest.raises(bulkimg.UsageError, match="an event loop is running here; await the async form"):
        bulkimg.merge(["s"])


def test_nothing_is_printed(plain: Merger, capfd: pytest.CaptureFixture[str]) -> None:
    names = plain.shards(plain.changes(2))
    plain.merge(*names)
    with pytest.raises(bulkimg.RunRefused):
        plain.merge(names[0])
    assert capfd.readouterr() == ("", "")
