"""Read what a run left and what it was asked, with independent parsers: strict csv and json, plain sqlite3.

Nothing here comes from bulkimg. The ledger is copied first and the copy is opened, so that reading never changes it.
"""

import csv
import io
import json
import re
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRIMMED = "".join(map(chr, range(33)))
FLAGS = ("system", "virtio")
TAGS = ("systemTags", "userTags")
FIELDS = ("name", "description", "guestOsType", "mediaType", "architecture", "format", "platform", *FLAGS, *TAGS)
COLUMNS = (
    "line,uuid,status,code,message,hint,http_status,attempts,job_uuid,started_at,duration_ms,changed,before,after,name"
)
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


class UnreadableError(Exception):
    """A file is not what it must be."""


@dataclass(frozen=True)
class Asked:
    """One record of the manifest."""

    line: int
    uuid: str
    fields: dict[str, Any]


@dataclass
class Manifest:
    """The records in order, and by image what its one PUT must contain."""

    records: list[Asked]
    plan: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for record in self.records:
            self.plan.setdefault(record.uuid, {}).update(record.fields)

    def only(self, uuids: frozenset[str]) -> "Manifest":
        return Manifest([record for record in self.records if record.uuid in uuids])


def read_manifest(path: Path) -> Manifest:
    """Read .csv, .tsv or .jsonl with the API's own column names."""
    records = _jsonl_records(path) if path.suffix in (".jsonl", ".ndjson") else _csv_records(path)
    return Manifest(list(records))


def _csv_records(path: Path) -> Iterator[Asked]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        names, begins = next(reader), reader.line_num + 1
        for cells in reader:
            if cells:
                given = {name: cell for name, cell in zip(names, cells, strict=True) if name in ("uuid", *FIELDS)}
                yield _asked(begins, {name: _from_cell(name, cell) for name, cell in given.items()})
            begins = reader.line_num + 1


def _from_cell(name: str, cell: str) -> Any:
    text = cell.strip()
    if text == "":
        return None
    if text == "<empty>":
        return ""
    if name in TAGS:
        return [tag.strip() for tag in text.split(";") if tag.strip()]
    if name in FLAGS and text.lower() in TRUE + FALSE:
        return text.lower() in TRUE
    return cell


def _jsonl_records(path: Path) -> Iterator[Asked]:
    for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            found = strict_json(line)
            inner = found.get("updateimage") or found.get("updateImage") or {}
            yield _asked(number, {**found, **inner})


def _asked(line: int, given: dict[str, Any]) -> Asked:
    uuid = str(given.get("uuid") or "").strip().replace("-", "").lower()
    return Asked(line, uuid, {name: given[name] for name in FIELDS if given.get(name) is not None})


def strict_json(text: str) -> Any:
    """Read JSON without NaN and without duplicate keys."""

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    return json.loads(text, parse_constant=no_constant, object_pairs_hook=once)


@dataclass
class Ledger:
    """Attempts by image: how many, and under which job uuids."""

    attempts: Counter[str]
    jobs: dict[str, set[str]]
    rows: int


@dataclass
class Run:
    """The contents of a run's directory."""

    results: list[dict[str, Any]]  # results.jsonl
    table: list[dict[str, str]]  # results.csv
    summary: dict[str, Any]
    ledger: Ledger


def read_run(directory: Path) -> Run:
    """Read a run's directory. Raises UnreadableError with the name of a damaged file."""
    return Run(
        _results_jsonl(directory / "results.jsonl"),
        _results_csv(directory / "results.csv"),
        _document(directory / "summary.json"),
        read_ledger(directory),
    )


def _document(path: Path) -> Any:
    try:
        return strict_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path.name}: {error}") from error


def _results_jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text("utf-8")
        if text and not text.endswith("\n"):
            raise UnreadableError(f"{path.name}: the last record is not whole")
        found = [strict_json(line) for line in text.split("\n")[:-1]]
    except (OSError, ValueError) as error:
        raise UnreadableError(f"{path.name}: {error}") from error
    for record in found:
        if ",".join(record) != COLUMNS:
            raise UnreadableError(f"{path.name}: columns {','.join(record)}")
    return found


def _results_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        if not text.endswith("\n"):
            raise UnreadableError(f"{path.name}: the last record is not whole")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UnreadableError(f"{path.name}: {error}") from error
    if not lines or ",".join(lines[0]) != COLUMNS or any(len(line) != len(lines[0]) for line in lines):
        raise UnreadableError(f"{path.name}: not the columns of docs/reference/results.md in every line")
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def read_ledger(directory: Path) -> Ledger:
    with tempfile.TemporaryDirectory() as place:
        for path in directory.glob("run.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, place)
        try:
            return _ledger(sqlite3.connect(Path(place) / "run.db"))
        except sqlite3.Error as error:
            raise UnreadableError(f"run.db: {error}") from error


def _ledger(db: sqlite3.Connection) -> Ledger:
    attempts: Counter[str] = Counter()
    jobs: defaultdict[str, set[str]] = defaultdict(set)
    try:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise UnreadableError("run.db: integrity_check")
        asked = "SELECT lower(hex(row.uuid)), attempt.job_uuid FROM attempt JOIN row USING (ordinal)"
        for uuid, job in db.execute(asked):
            attempts[uuid] += 1
            jobs[uuid].add(re.sub("-", "", job).lower())
        return Ledger(attempts, jobs, db.execute("SELECT count(*) FROM row").fetchone()[0])
    finally:
        db.close()
