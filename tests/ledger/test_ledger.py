"""The ledger: merged duplicates, claims before sending, outcomes once, results as a view, durable before shown."""

import asyncio
import csv
import io
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkimg.cells import harmless
from bulkimg.errors import RunRefused, StorageError
from bulkimg.ledger import Ledger, LiveResults, OwnThread, RunDirectory, Writer, claims, new_run, stats, write_results
from bulkimg.ledger.files import COLUMNS
from bulkimg.ledger.intake import add_rows, merge_duplicates, settle_empty
from bulkimg.ledger.lines import result_lines
from bulkimg.model import Claim, Fields, Outcome, Problem, Row, Status


def uuid(number: int) -> str:
    return f"{number:032x}"


def row(line: int, number: int, fields: Fields, *problems: Problem) -> Row:
    return Row(line, uuid(number), fields, {}, (uuid(number),), problems)


def ledger_of(path: Path, rows: Sequence[Row]) -> Ledger:
    ledger = Ledger.create(path / "run.db")
    add_rows(ledger, 1, rows)
    ledger.set_meta(merged=merge_duplicates(ledger))
    settle_empty(ledger)
    return ledger


def job(number: int = 0) -> str:
    return f"{number:032x}"


def outcome(item: Claim, status: Status = Status.UPDATED, **more: Any) -> Outcome:
    return Outcome(item.ordinal, item.line, item.uuid, status, attempts=item.attempt, job_uuid=item.job_uuid)._replace(
        **more
    )


def claim_all(ledger: Ledger) -> list[Claim]:
    with ledger.transaction():
        return claims.claim(ledger, 0, 1000, job, 1.0)


def test_duplicates_that_agree_or_touch_different_fields_are_one_put(tmp_path: Path) -> None:
    ledger = ledger_of(
        tmp_path,
        [
            row(2, 1, {"name": "a"}),
            row(3, 2, {"name": "b"}),
            row(4, 1, {"platform": "Linux"}),
            row(5, 1, {"name": " a "}),
        ],
    )
    found = claim_all(ledger)
    assert [(item.line, item.fields) for item in found] == [(2, {"name": "a", "platform": "Linux"}), (3, {"name": "b"})]
    with ledger.transaction():
        claims.settle(ledger, [outcome(item) for item in found])
    assert stats.counts(ledger)["updated"] == 4


def test_no_statement_of_a_group_reads_a_whole_table(tmp_path: Path) -> None:
    """A manifest has millions of rows, and one duplicate in it must not make every outcome read all of them."""
    ledger = ledger_of(
        tmp_path, [*(row(n + 2, n, {"name": "a"}) for n in range(50)), row(60, 7, {"platform": "Linux"})]
    )
    said: list[str] = []
    ledger.db.set_trace_callback(said.append)
    with ledger.transaction() as db:
        found = claims.claim(ledger, 0, 20, job, 1.0)
        claims.close_attempt(ledger, found[0], "refused", "X", 503)
        claims.add_attempts(ledger, [found[0]._replace(attempt=2)], 1.0)
        claims.release(ledger, [found[1]])
        claims.settle(ledger, [outcome(item) for item in found[2:]])
        followers = claims.followers(ledger, [item.ordinal for item in found])
        lines = LiveResults([tmp_path / "results.csv", tmp_path / "results.jsonl"], in_order=True)
        lines.append(ledger, [outcome(item) for item in found[2:]], found[-1].ordinal)
    lines.close()
    ledger.db.set_trace_callback(None)
    assert followers == {8: [(51, 60)]}
    queries = [text for text in said if text.split()[0] in ("SELECT", "UPDATE", "DELETE")]
    assert len(queries) >= 6
    for query in queries:
        steps = [step for *_, step in db.execute(f"EXPLAIN QUERY PLAN {query}")]
        assert not [
            step for step in steps if step.split()[:2] in [["SCAN", t] for t in ("row", "outcome", "attempt")]
        ], query


def test_duplicates_that_contradict_each_other_are_all_refused(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, [row(2, 1, {"name": "a"}), row(3, 1, {"name": "b"}), row(4, 2, {"name": "c"})])
    assert [item.line for item in claim_all(ledger)] == [4]
    assert [(p.line, p.code) for p in stats.problems(ledger)] == [(2, "DUPLICATE_CONFLICT"), (3, "DUPLICATE_CONFLICT")]
    assert "line 3" in next(stats.problems(ledger)).message


def test_a_row_that_asks_for_nothing_is_unchanged(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, [row(2, 1, {}), row(3, 2, {"name": "a"})])
    assert [item.line for item in claim_all(ledger)] == [3]
    assert stats.counts(ledger)["unchanged"] == 1


def test_an_outcome_is_written_once_and_for_all(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, [row(2, 1, {"name": "a"})])
    (item,) = claim_all(ledger)
    with ledger.transaction():
        claims.settle(ledger, [outcome(item)])
    with pytest.raises(StorageError), ledger.transaction():
        claims.settle(ledger, [outcome(item, Status.FAILED)])
    assert stats.counts(ledger)["updated"] == 1


@pytest.mark.parametrize(
    ("results", "status", "interrupted"),
    [
        ([], "unprocessed", False),
        ([None], "unknown", True),
        (["unsent"], "unprocessed", False),
        (["refused"], "unprocessed", False),
        (["unclear"], "unknown", True),
        (["unclear", "refused"], "unknown", False),
        (["refused", None], "unknown", True),
    ],
)
def test_a_row_without_outcome_is_what_its_attempts_tell(
    tmp_path: Path, results: list[str | None], status: str, interrupted: bool
) -> None:
    """Resuming first asks about rows that may have been applied."""
    ledger = ledger_of(tmp_path, [row(2, 1, {"name": "a"})])
    for number, fate in enumerate(results, 1):
        ledger.db.execute("INSERT INTO attempt VALUES (1, ?, ?, 1.0, ?, 'X', NULL)", (number, job(number), fate))
    assert [fate.outcome.status for fate in stats.row_texts(ledger)] == [status]
    (item,) = claim_all(ledger)
    assert (item.interrupted, item.attempt) == (interrupted, len(results) + (not interrupted))
    assert item.doubtful is (status == "unknown")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


@settings(max_examples=60, deadline=None)
@given(code=TEXTS, message=TEXTS, hint=TEXTS, value=TEXTS)
def test_result_lines_are_exact_in_json_and_readable_in_csv(code: str, message: str, hint: str, value: str) -> None:
    """The view is compared with Python's own json and csv. CSV has texts as `harmless` writes them."""
    ledger = Ledger(Path("memory"), sqlite3.connect(":memory:", isolation_level=None))
    schema = Path(claims.__file__).with_name("schema.sql").read_text("utf-8")
    ledger.db.executescript(schema)
    add_rows(ledger, 1, [row(7, 1, {"name": value})])
    (item,) = claims.claim(ledger, 0, 10, job, 1.0)
    o = outcome(
        item, Status.FAILED, code="C", message=message, hint=hint, http_status=503, started_at=1.5, duration_ms=20
    )
    claims.settle(ledger, [o._replace(changed=("name", "virtio"), after={"name": value, "virtio": True})])
    json_line, csv_line = ledger.db.execute("SELECT jsonl, csv FROM result").fetchone()
    exact = json.loads(json_line)
    assert tuple(exact) == COLUMNS
    assert (exact["message"], exact["hint"], exact["after"]) == (message, hint, {"name": value, "virtio": True})
    assert (exact["line"], exact["changed"], exact["started_at"]) == (7, ["name", "virtio"], "1970-01-01T00:00:01.500Z")
    (record,) = csv.reader(io.StringIO(csv_line, newline=""), strict=True)
    cells = dict(zip(COLUMNS, record, strict=True))
    assert (cells["message"], cells["hint"]) == (harmless(message), harmless(hint))
    assert json.loads(cells["after"]) == exact["after"]
    assert (cells["before"], cells["changed"]) == ("", "name,virtio")


async def test_nothing_is_shown_before_it_is_durable(tmp_path: Path) -> None:
    """When `on_settled` and the result files show an outcome, another connection can read it from run.db."""
    ledger = ledger_of(tmp_path, [row(n + 2, n, {"name": "a"}) for n in range(600)])
    reader = sqlite3.connect(f"file:{tmp_path / 'run.db'}?mode=ro", uri=True)
    seen: list[int] = []

    def on_settled(outcomes: Sequence[Outcome]) -> None:
        for shown in outcomes:
            assert reader.execute("SELECT 1 FROM outcome WHERE ordinal = ?", (shown.ordinal,)).fetchone()
            seen.append(shown.ordinal)

    paths = [tmp_path / "results.csv", tmp_path / "results.jsonl"]
    write_results(ledger, paths, "none")
    live = LiveResults(paths, in_order=True)
    writer = Writer(ledger, live, on_settled, lambda error: pytest.fail(str(error)), OwnThread())
    cursor = 0
    while found := await writer.claim(cursor, 100, job, 1.0):
        assert reader.execute("SELECT count(*) FROM attempt").fetchone()[0] >= found[-1].ordinal
        for item in found:
            writer.settle(outcome(item))
        cursor = found[-1].ordinal
    await writer.close()
    live.close()
    assert seen == list(range(1, 601))
    appended = [json.loads(line)["line"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert appended == list(range(2, 602))
    assert len(list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text(), newline="")))) == 600
    reader.close()


async def test_after_the_disk_fails_nothing_more_is_written_and_everybody_is_told(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, [row(n + 2, n, {"name": "a"}) for n in range(4)])
    told: list[str] = []

    class FullDisk:
        def append(self, ledger: Ledger, outcomes: Sequence[Outcome], complete: int) -> None:
            raise OSError(28, "No space left on device", "results.csv")

    writer = Writer(
        ledger, FullDisk(), lambda _: pytest.fail("shown"), lambda error: told.append(str(error)), OwnThread()
    )
    (item, *_) = await writer.claim(0, 1, job, 1.0)
    writer.settle(outcome(item))
    await asyncio.sleep(0.2)
    with pytest.raises(StorageError, match="No space left"):
        await writer.claim(1, 1, job, 1.0)
    await writer.close()
    with pytest.raises(StorageError):
        writer.raise_failure()
    assert len(told) == 1
    assert ledger.db.execute("SELECT count(*) FROM attempt").fetchone()[0] == 1


def test_a_run_is_held_by_one_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path, 1_795_435_200.0)
    assert run.run_id.startswith("20261123-120000.000-")
    assert (run.path.stat().st_mode & 0o777) == 0o700
    other = RunDirectory(run.path)
    with pytest.raises(RunRefused, match="another process"):
        other.hold()
    run.release()
    other.hold().release()


def test_files_that_are_no_ledger_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_bytes(b"SQLite format 3\0" + b"junk" * 1000)
    with pytest.raises(StorageError):
        Ledger.open(tmp_path / "run.db")
    with pytest.raises(RunRefused):
        Ledger.open(tmp_path / "none.db")


def full(ledger: Ledger) -> None:
    """Make the next write fail with SQLite's own error for a full disk, at a chosen size."""
    (pages,) = ledger.db.execute("PRAGMA page_count").fetchone()
    ledger.db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        add_rows(ledger, 1000, [row(n, n, {"name": "x" * 200}) for n in range(1000, 1400)])


def test_after_a_failed_transaction_there_is_no_other_one(tmp_path: Path) -> None:
    """Also if the disk has space again: its content is not known any more."""
    ledger = ledger_of(tmp_path, [row(2, 1, {"name": "a"})])
    full(ledger)
    ledger.db.execute("PRAGMA max_page_count = 1000000")
    with pytest.raises(StorageError, match="full"):
        ledger.set_meta(state="running")
    with pytest.raises(StorageError, match="full"):
        claim_all(ledger)
    ledger.close()
    assert Ledger.open(tmp_path / "run.db").meta("state") is None


def test_after_a_failed_transaction_closing_moves_nothing_into_the_ledger(tmp_path: Path) -> None:
    """A checkpoint would write and sync again after a failed write. The WAL file beside the ledger has everything."""
    ledger = ledger_of(tmp_path, [row(2, 1, {"name": "a"})])
    ledger.set_meta(state="ready")
    before = (tmp_path / "run.db").read_bytes()
    full(ledger)
    ledger.close()
    assert (tmp_path / "run.db").read_bytes() == before
    assert (tmp_path / "run.db-wal").stat().st_size > 0
    assert Ledger.open(tmp_path / "run.db").meta("state") == "ready"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE meta SET value = substr(value, 1, length(value) - 1) || '|' WHERE key = 'settings'",
        "UPDATE meta SET value = '[1]' WHERE key = 'settings'",
        "UPDATE meta SET value = '\"reading\"' WHERE key = 'state'",
        "DELETE FROM meta WHERE key = 'state'",
        "DELETE FROM checksum WHERE name = 'meta'",
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_a_header_that_was_changed_is_refused_whoever_opens_it(tmp_path: Path, damage: str, read_only: bool) -> None:
    ledger = ledger_of(tmp_path, [row(2, 1, {"name": "a"})])
    ledger.set_meta(state="ready", settings={"endpoint": "http://127.0.0.1:1"})
    ledger.close()
    with sqlite3.connect(tmp_path / "run.db") as db:
        db.execute(damage)
    db.close()
    with pytest.raises(StorageError, match="is damaged"):
        Ledger.open(tmp_path / "run.db", read_only=read_only)


def test_every_commit_of_a_run_reaches_the_disk(tmp_path: Path) -> None:
    """SQLite syncs its log at each commit. Only what can be read again from the manifest may be relaxed."""
    ledger = ledger_of(tmp_path, [row(2, 1, {"name": "a"})])
    ledger.relax()
    ledger.strict()
    for opened in (ledger, Ledger.open(tmp_path / "run.db")):
        assert opened.db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert opened.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE row SET fields = replace(fields, 'a', 'b')",
        "UPDATE attempt SET job_uuid = replace(job_uuid, '0', '1')",
        "DELETE FROM attempt",
        "UPDATE outcome SET status = 'failed'",
        "DELETE FROM outcome",
    ],
)
def test_a_ledger_that_was_changed_is_not_gone_on_with(tmp_path: Path, damage: str) -> None:
    ledger = ledger_of(tmp_path, [row(2, 1, {"name": "a"}), row(3, 2, {"name": "a"})])
    ledger.keep_checksums()
    found = claim_all(ledger)
    with ledger.transaction():
        claims.settle(ledger, [outcome(found[0])])
    ledger.verify()
    ledger.close()
    with sqlite3.connect(tmp_path / "run.db") as db:
        assert db.execute(damage).rowcount > 0
    db.close()
    with pytest.raises(StorageError, match="is damaged"):
        Ledger.open(tmp_path / "run.db").verify()


OUTCOMES = st.builds(
    Outcome,
    ordinal=st.just(1),
    line=st.just(7),
    uuid=st.just(uuid(1)),
    status=st.sampled_from([Status.UPDATED, Status.FAILED, Status.UNKNOWN, Status.DRIFTED, Status.CONFLICT]),
    code=TEXTS,
    message=TEXTS,
    hint=TEXTS,
    http_status=st.none() | st.integers(100, 999),
    attempts=st.just(1),
    job_uuid=st.just(job()),
    started_at=st.none() | st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
    duration_ms=st.none() | st.integers(0, 10**7),
    changed=st.sampled_from([(), ("name",), ("name", "virtio")]),
    before=st.none() | st.fixed_dictionaries({}, optional={"name": TEXTS, "virtio": st.booleans()}),
    after=st.none() | st.fixed_dictionaries({"name": TEXTS}, optional={"virtio": st.booleans()}),
)


@settings(max_examples=400, deadline=None)
@given(shown=OUTCOMES)
def test_lines_of_a_running_run_are_those_of_the_view(shown: Outcome) -> None:
    """Python makes some lines, for speed, and SQL makes those of every row. Both are equal."""
    ledger = Ledger(Path("memory"), sqlite3.connect(":memory:", isolation_level=None))
    ledger.db.executescript(Path(claims.__file__).with_name("schema.sql").read_text("utf-8"))
    add_rows(ledger, 1, [row(7, 1, {"platform": "Linux"})])
    claims.claim(ledger, 0, 10, job, 1.0)
    claims.settle(ledger, [shown])
    exact, cells, name = ledger.db.execute(
        "SELECT jsonl, csv, name FROM result JOIN row_text USING (ordinal)"
    ).fetchone()
    made = result_lines(shown._replace(name=name))
    assert made == (exact, cells)
    assert tuple(json.loads(made[0])) == COLUMNS


def test_results_of_a_run_that_began_afresh_are_in_manifest_order(tmp_path: Path) -> None:
    """In any order of settling. Rows that are not sent are in their place."""
    bad = Problem(4, "name", "", "X", "is bad", "fix it")
    ledger = ledger_of(
        tmp_path,
        [
            row(2, 1, {"name": "a"}),
            row(3, 2, {"name": "a"}),
            row(4, 3, {}, bad),
            row(5, 1, {"name": "a"}),
            row(6, 4, {"name": "a"}),
        ],
    )
    paths = [tmp_path / "results.csv", tmp_path / "results.jsonl"]
    write_results(ledger, paths, "none")
    live = LiveResults(paths, in_order=True)
    first, second, third = claim_all(ledger)
    for item, complete in ((third, 0), (second, 0), (first, 5)):
        with ledger.transaction():
            claims.settle(ledger, [outcome(item)])
        live.append(ledger, [outcome(item)], complete)
    assert live.complete(ledger)
    live.close()
    appended = [path.read_bytes() for path in paths]
    assert [json.loads(line)["line"] for line in appended[1].splitlines()] == [2, 3, 4, 5, 6]
    write_results(ledger, paths)
    for path, made in zip(paths, appended, strict=True):
        assert path.read_bytes().count(b"\n") == made.count(b"\n")
    assert [json.loads(line) for line in paths[1].read_bytes().splitlines()] == [
        json.loads(line) for line in appended[1].splitlines()
    ]


async def test_a_slot_is_free_when_its_outcome_is_durable(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, [row(n + 2, n, {"name": "a"}) for n in range(50)])
    reader = sqlite3.connect(f"file:{tmp_path / 'run.db'}?mode=ro", uri=True)
    paths = [tmp_path / "results.jsonl"]
    writer = Writer(ledger, LiveResults(paths), lambda done: None, lambda error: pytest.fail(str(error)), OwnThread())
    found = await writer.claim(0, 50, job, 1.0)

    async def slot(item: Claim) -> None:
        await writer.settle(outcome(item))
        assert reader.execute("SELECT 1 FROM outcome WHERE ordinal = ?", (item.ordinal,)).fetchone()

    await asyncio.gather(*map(slot, found))
    await writer.close()
    reader.close()


@settings(max_examples=100, deadline=None)
@given(name=TEXTS, virtio=st.booleans(), planned=st.booleans())
def test_a_row_that_became_what_was_sent_is_told_whole_without_keeping_it_twice(
    name: str, *, virtio: bool, planned: bool
) -> None:
    """`changed` and `after` come from the row, or from what its plan sends; merged rows tell the same."""
    ledger = Ledger(Path("memory"), sqlite3.connect(":memory:", isolation_level=None))
    ledger.db.executescript(Path(claims.__file__).with_name("schema.sql").read_text("utf-8"))
    add_rows(ledger, 1, [row(7, 1, {"name": name, "virtio": virtio}), row(8, 1, {"virtio": virtio})])
    merge_duplicates(ledger)
    if planned:
        ledger.db.execute(
            "INSERT INTO plan VALUES (1, 'update', '{\"name\":\"old\"}', ?, NULL)", (json.dumps({"name": name}),)
        )
    (item,) = claims.claim(ledger, 0, 10, job, 1.0)
    shown = outcome(item, changed=tuple(item.fields), after=item.fields, name=name, http_status=200)
    ledger.insert_outcomes(claims.prepare([shown], as_sent={1}))
    assert ledger.db.execute("SELECT changed, after FROM outcome").fetchone() == (None, None)
    first, second = ledger.db.execute("SELECT jsonl, csv FROM result ORDER BY ordinal").fetchall()
    assert [json.loads(line) for line in (first[0], result_lines(shown)[0])] == [json.loads(first[0])] * 2
    assert {**json.loads(second[0]), "line": 7} == json.loads(first[0])
