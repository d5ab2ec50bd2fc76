"""The checker works: a good run has no findings, and each planted error is found under its name."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.battery.checker import Findings, check
from tests.battery.trial import bench


@dataclass
class Evidence:
    """A finished run and the witness's log and table. Each test damages a copy."""

    manifest: Path
    run: Path
    log: list[dict[str, Any]]
    table: dict[str, dict[str, Any]]

    def check(self) -> Findings:
        return check(self.manifest, self.run, self.log, self.table)

    def put(self, n: int = 0) -> dict[str, Any]:
        return [line for line in self.log if line["kind"] == "request" and line["path"].endswith("/actions")][n]

    def rewrite(self, name: str, old: str, new: str, count: int = 1) -> None:
        path = self.run / name
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new, count), "utf-8")


@pytest.fixture(scope="module")
def good() -> Iterator[Evidence]:
    with bench(20, "documented") as ready:
        done = ready.run()
        assert done.code == 0, done.err
        yield Evidence(ready.manifest, ready.run_dir(), ready.witness.log("run"), ready.witness.table())


@pytest.fixture
def evidence(good: Evidence, tmp_path: Path) -> Evidence:
    run = tmp_path / "run"
    shutil.copytree(good.run, run)
    manifest = Path(shutil.copy(good.manifest, tmp_path))
    log, table = json.loads(json.dumps([good.log, good.table]))
    return Evidence(manifest, run, log, table)


@pytest.mark.slow
def test_a_good_run_has_no_findings(evidence: Evidence) -> None:
    found = evidence.check()
    assert found.ok, found.problems
    assert (found.rows, found.statuses["updated"], found.most_puts) == (20, 20, 1)


def lose_a_row(e: Evidence) -> None:
    path = e.run / "results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def tell_a_row_twice(e: Evidence) -> None:
    path = e.run / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[-1]]))


def swap_two_lines(e: Evidence) -> None:
    path = e.run / "results.jsonl"
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([second, first, *rest]))


def call_it_failed(e: Evidence) -> None:
    e.rewrite("results.jsonl", '"updated"', '"failed"')


def call_it_unprocessed(e: Evidence) -> None:
    e.rewrite("results.jsonl", '"updated"', '"unprocessed"')


def call_it_unchanged(e: Evidence) -> None:
    e.rewrite("results.jsonl", '"updated"', '"unchanged"')


def not_apply(e: Evidence) -> None:
    next(iter(e.table.values()))["name"] = "as it was"


def forget_the_put(e: Evidence) -> None:
    e.log.remove(e.put())


def forget_an_attempt(e: Evidence) -> None:
    db = sqlite3.connect(e.run / "run.db")
    with db:
        db.execute("DELETE FROM attempt WHERE ordinal = 3")
    db.close()


def another_job(e: Evidence) -> None:
    e.put()["job"] = "0" * 32


def another_body(e: Evidence) -> None:
    e.put()["body"] = e.put()["body"].replace("new-", "other-")


def a_field_too_many(e: Evidence) -> None:
    e.put()["body"] = e.put()["body"].replace('{"name"', '{"system":true,"name"')


def another_path(e: Evidence) -> None:
    e.log.append({**e.put(), "number": 10_000, "method": "GET", "path": "/zstack/v1/zones"})


def another_image(e: Evidence) -> None:
    e.log.append({**e.put(), "number": 10_000, "path": f"/zstack/v1/images/{'0' * 32}/actions"})


def two_at_once(e: Evidence) -> None:
    first = e.put()
    e.log.append({**first, "number": 10_000, "mono": first["mono"] + 1e-6})


def count_wrongly(e: Evidence) -> None:
    e.rewrite("summary.json", '"updated": 20', '"updated": 21')


def cut_the_csv(e: Evidence) -> None:
    path = e.run / "results.csv"
    path.write_text(path.read_text()[:-9])


def call_an_image_otherwise(e: Evidence) -> None:
    path = e.run / "results.csv"
    path.write_text(path.read_text()[:-3] + '?"\n')


def cut_the_jsonl(e: Evidence) -> None:
    path = e.run / "results.jsonl"
    path.write_text(path.read_text()[:-9])


def break_the_ledger(e: Evidence) -> None:
    path = e.run / "run.db"
    path.write_bytes(path.read_bytes()[:5000])


PLANTED: list[tuple[Callable[[Evidence], None], str]] = [
    (lose_a_row, "lost"), (tell_a_row_twice, "double"), (swap_two_lines, "order"), (call_it_failed, "wrong"),
    (call_it_unprocessed, "wrong"), (call_it_unchanged, "wrong"), (not_apply, "wrong"), (forget_the_put, "wrong"),
    (forget_an_attempt, "unrecorded"), (another_job, "unrecorded"), (another_body, "unequal"),
    (a_field_too_many, "unequal"), (another_path, "foreign"), (another_image, "foreign"), (two_at_once, "overlaps"),
    (count_wrongly, "sums"), (cut_the_csv, "unreadable"), (cut_the_jsonl, "unreadable"), (break_the_ledger, "unreadable"),
    (call_an_image_otherwise, "order"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "name"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_wrong_is_found(evidence: Evidence, plant: Callable[[Evidence], None], name: str) -> None:
    plant(evidence)
    found = evidence.check()
    assert getattr(found, name), str(found)
    assert found.problems
