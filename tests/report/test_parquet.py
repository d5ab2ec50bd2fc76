"""A run as Parquet: the values of results.jsonl with types, made without network, extensions or other paths."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bulkimg.errors import StorageError
from bulkimg.ledger import Ledger, RunDirectory
from bulkimg.report import parquet
from bulkimg.report.parquet import COLUMNS
from bulkimg.report.tables import write_table
from tests.report.test_workbook import finished, run_of, uuid

# As docs/reference/results.md promises them.
TYPES = {
    "line": "BIGINT", "uuid": "VARCHAR", "status": "VARCHAR", "code": "VARCHAR", "message": "VARCHAR", "hint": "VARCHAR",
    "http_status": "INTEGER", "attempts": "INTEGER", "job_uuid": "VARCHAR", "started_at": "TIMESTAMP WITH TIME ZONE",
    "duration_ms": "BIGINT", "changed": "VARCHAR[]", "before": "JSON", "after": "JSON", "name": "VARCHAR",
}  # fmt: skip


def written(ledger: Ledger, directory: RunDirectory, path: Path, **how: Any) -> duckdb.DuckDBPyRelation:
    write_table(ledger, directory, path, "parquet", held=True, **how)
    return duckdb.connect(":memory:").read_parquet(str(path))


def test_it_holds_every_value_of_the_result_file_with_types(tmp_path: Path) -> None:
    ledger, directory = finished(tmp_path)
    found = written(ledger, directory, tmp_path / "x.parquet")
    assert dict(zip(found.columns, map(str, found.types), strict=True)) == TYPES
    lines = [json.loads(line) for (line,) in ledger.db.execute("SELECT jsonl FROM result ORDER BY ordinal")]
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    assert len(rows) == 9
    for row, line in zip(rows, lines, strict=True):
        for name in ("before", "after"):
            row[name] = json.loads(row[name]) if row[name] is not None else None
        row["started_at"] = _iso(row["started_at"])
        assert row == line


def _iso(found: datetime | None) -> str | None:
    return None if found is None else found.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_times_are_utc_wherever_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    ledger, directory = finished(tmp_path)
    written(ledger, directory, tmp_path / "x.parquet")
    found = duckdb.connect(":memory:").execute(
        "SELECT epoch_ms(started_at) FROM read_parquet(?) WHERE started_at IS NOT NULL LIMIT 1",
        [str(tmp_path / "x.parquet")],
    )
    assert found.fetchall() == [(1764252000500,)]


def test_a_run_that_begins_has_the_columns_and_no_rows(tmp_path: Path) -> None:
    ledger, directory = finished(tmp_path)
    found = written(ledger, directory, tmp_path / "x.parquet", rows=False)
    assert found.columns == list(COLUMNS)
    assert found.fetchall() == []


def test_long_and_odd_texts_are_exact(tmp_path: Path) -> None:
    name = "=1 \U0001f600 \u2028 'quoted' \"\\ " + "y" * 200
    ledger, directory = run_of(tmp_path, "m.jsonl", json.dumps({"uuid": uuid(1), "nam": name}) + "\n")
    long = "é" * 3_000_000
    ledger.db.execute("UPDATE problem SET message = ?, fix = ?", (long, name))
    (row,) = written(ledger, directory, tmp_path / "it's.parquet").fetchall()
    found = dict(zip(COLUMNS, row, strict=True))
    assert found["message"].endswith(long)
    assert found["hint"] == name


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    ledger, directory = finished(tmp_path)
    (directory.path / ".parquet-tmp").mkdir()  # left by a killed process
    (directory.path / ".parquet-tmp" / "results.parquet").write_text("old")
    before = {path.name for path in directory.path.iterdir()} - {".parquet-tmp"}
    written(ledger, directory, tmp_path / "x.parquet")
    assert {path.name for path in directory.path.iterdir()} == before
    assert (tmp_path / "x.parquet").stat().st_mode & 0o777 == 0o600


def test_duckdb_may_read_and_write_in_its_place_only(tmp_path: Path) -> None:
    """Also where the path of the place is made to say something else."""
    place, elsewhere = tmp_path / "it's", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (elsewhere / "results.jsonl").write_text("")
    with pytest.raises(StorageError, match=r"shown: DuckDB: Permission Error"):
        parquet._convert(elsewhere / "results.jsonl", place / "results.parquet", Path("shown"))
    (place / "results.jsonl").write_text("")
    parquet._convert(place / "results.jsonl", place / "results.parquet", Path("shown"))
    assert {path.name for path in place.iterdir()} == {"results.jsonl", "results.parquet"}


def test_no_extension_is_loaded_or_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB would download it, and keep it in the home directory."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    ledger, directory = finished(tmp_path)
    written(ledger, directory, tmp_path / "x.parquet")
    assert not list(home.iterdir())
    with parquet._connected(tmp_path) as connection:
        found = dict(
            connection.execute(
                "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%_known_extensions' "
                "OR name IN ('enable_external_access', 'lock_configuration', 'allow_community_extensions', 'threads')"
            ).fetchall()
        )
        loaded = connection.execute("SELECT install_mode FROM duckdb_extensions() WHERE loaded").fetchall()
    assert set(loaded) == {("STATICALLY_LINKED",)}
    assert found == {
        "autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "allow_community_extensions": "false",
        "enable_external_access": "false", "lock_configuration": "true", "threads": "2",
    }  # fmt: skip
