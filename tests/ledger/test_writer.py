"""The writer: slots, groups, checksums and result lines, whatever order rows come in and whenever the disk fails."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bulkimg.errors import StorageError
from bulkimg.ledger import Ledger, LiveResults, OwnThread, Writer, claims, files, write_results
from bulkimg.ledger.intake import add_rows
from bulkimg.model import Claim, Outcome, Row, Status


def job() -> str:
    return f"{0:032x}"


def ledger_of(path: Path, rows: int) -> Ledger:
    ledger = Ledger.create(path / "run.db")
    add = [Row(n + 1, f"{n:032x}", {"name": "a"}, {}, (f"{n:032x}",), ()) for n in range(1, rows + 1)]
    add_rows(ledger, 1, add)
    ledger.keep_checksums()
    return ledger


def outcome(item: Claim) -> Outcome:
    return Outcome(item.ordinal, item.line, item.uuid, Status.UPDATED, attempts=item.attempt, job_uuid=item.job_uuid)


def claim_all(ledger: Ledger) -> list[Claim]:
    with ledger.transaction():
        return claims.claim(ledger, 0, 1000, job, 1.0)


class FullDisk:
    def append(self, ledger: Ledger, outcomes: Sequence[Outcome], complete: int) -> None:
        raise OSError(28, "No space left on device", "results.csv")


async def test_a_disk_that_fails_leaves_no_slot_waiting(tmp_path: Path) -> None:
    """Neither the slots of the group that it failed, nor those that come later."""
    told: list[StorageError] = []
    writer = Writer(ledger_of(tmp_path, 2), FullDisk(), lambda _: pytest.fail("shown"), told.append, OwnThread())
    first, second = await writer.claim(0, 2, job, 1.0)
    async with asyncio.timeout(10):
        await writer.settle(outcome(first))
        await writer.settle(outcome(second))
        await writer.close()
    assert len(told) == 1


def test_after_a_group_that_failed_there_is_no_other_one(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 2)
    first, second = claim_all(ledger)
    claims.settle(ledger, [outcome(first)])
    for item in (first, second):  # a second outcome for a row breaks a constraint
        with pytest.raises(StorageError):
            claims.settle(ledger, [outcome(item)])
    assert ledger.db.execute("SELECT ordinal FROM outcome").fetchall() == [(1,)]


def release_and_fail(ledger: Ledger, item: Claim) -> None:
    with ledger.transaction():
        claims.release(ledger, [item])
        raise ZeroDivisionError


def test_checksums_are_of_what_is_there_whatever_was_written_and_taken_back(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 5)
    first, second, third, fourth, fifth = claim_all(ledger)
    again = second._replace(attempt=2)
    claims.settle(ledger, [outcome(first)])  # a group alone, and groups within a transaction
    claims.settle(ledger, [outcome(fifth)])
    with ledger.transaction():
        claims.close_attempt(ledger, second, "unclear", "NO_ANSWER", None)
        claims.close_attempt(ledger, second, "refused", "HTTP_503", 503)
        claims.add_attempts(ledger, [again], 2.0)
        claims.settle(ledger, [outcome(again)])
        claims.release(ledger, [third])
        claims.release(ledger, [third])  # nothing is left to be taken back
    with pytest.raises(ZeroDivisionError):
        release_and_fail(ledger, fourth)
    claims.settle(ledger, [outcome(fourth)])
    ledger.close()
    Ledger.open(tmp_path / "run.db").verify()


async def test_a_line_is_written_when_every_row_before_it_has_its_outcome(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, 3)
    path = tmp_path / "results.jsonl"
    write_results(ledger, [path], "none")
    live = LiveResults([path], in_order=True)
    writer = Writer(ledger, live, lambda done: None, lambda error: pytest.fail(str(error)), OwnThread())
    first, second, third = await writer.claim(0, 3, job, 1.0)

    def written() -> list[tuple[int, str]]:
        return [(row["line"], row["status"]) for row in map(json.loads, path.read_text("utf-8").splitlines())]

    await writer.settle(outcome(third))
    assert written() == []
    await writer.settle(outcome(first))
    assert written() == [(2, "updated")]
    await writer.settle(outcome(second))
    assert written() == [(2, "updated"), (3, "updated"), (4, "updated")]
    await writer.close()
    live.close()


def test_lines_that_wait_for_one_before_them_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then rows are written as they come, and put in order at the end."""
    monkeypatch.setattr(files, "MOST_HELD", 2)
    ledger = ledger_of(tmp_path, 5)
    path = tmp_path / "results.jsonl"
    live = LiveResults([path], in_order=True)
    for item in claim_all(ledger)[1:]:
        live.append(ledger, [outcome(item)], 0)
    assert [json.loads(line)["line"] for line in path.read_text("utf-8").splitlines()] == [3, 4, 5, 6]
    assert not live.complete(ledger)
    live.close()
