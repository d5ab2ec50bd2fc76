"""Measure reading and writing of every format: `python -m tests.bench.formats [--rows 100000 1000000] [--keep]`.

In: `bulkimg check` of the same rows. Out: `bulkimg results` of a run of these rows. Each is a process of its own; rows a
second are of its processor time, because wall time depends on what else the machine does.
"""

import argparse
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import xlsxwriter  # type: ignore[import-untyped]

from tests.bench.sections import keep, machine
from tests.cost import Cost, cost

COLUMNS = ("uuid", "name", "description", "platform", "guestOsType")
NOBODY = "http://127.0.0.1:9"  # the run of the written rows ends there


def rows(count: int) -> Iterator[tuple[str, ...]]:
    """Yield rows that differ, as an inventory's would."""
    for at in range(count):
        image = uuid.UUID(int=(at * 0x9E3779B97F4A7C15 + 1) % (1 << 128)).hex
        yield image, f"image-{at:07d}", f"golden image {at % 997}, relabelled", ("Linux", "Windows")[at % 2], "CentOS 7"


def write_csv(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write(",".join(COLUMNS) + "\n")
        for row in rows(count):
            file.write(",".join(f'"{cell}"' if "," in cell else cell for cell in row) + "\n")


def write_jsonl(path: Path, table: Path) -> None:
    duckdb.connect(":memory:").execute(f"COPY (FROM read_csv('{table}', all_varchar=true)) TO '{path}' (FORMAT json)")


def write_xlsx(path: Path, count: int) -> None:
    with xlsxwriter.Workbook(path, {"constant_memory": True}) as book:
        sheet = book.add_worksheet()
        for at, row in enumerate([COLUMNS, *rows(count)]):
            for column, cell in enumerate(row):
                sheet.write_string(at, column, cell)


def write_parquet(path: Path, table: Path) -> None:
    duckdb.connect(":memory:").execute(
        f"COPY (FROM read_csv('{table}', all_varchar=true)) TO '{path}' (FORMAT parquet)"
    )


def write_sqlite(path: Path, count: int) -> None:
    database = sqlite3.connect(path)
    database.execute(f"CREATE TABLE image ({', '.join(f'{name} TEXT' for name in COLUMNS)})")
    database.executemany("INSERT INTO image VALUES (?, ?, ?, ?, ?)", rows(count))
    database.commit()
    database.close()
    (path.parent / "q.sql").write_text(f"SELECT {', '.join(COLUMNS)} FROM image")
    address = path.parent / "address"
    address.write_text(f"sqlite:///{path}")
    address.chmod(0o600)
    (path.parent / "sqlite.toml").write_text('[job]\nname = "x"\n[source]\nsql_file = "q.sql"\nurl_file = "address"\n')


def _cost(place: Path, words: Sequence[str], code: int) -> Cost:
    return cost(words, code, place, BULKIMG_SESSION="0" * 32, BULKIMG_ENDPOINT=NOBODY)


def measured(count: int) -> Iterator[tuple[str, str, Cost, int]]:
    """Yield direction, format, cost and the file's size."""
    with tempfile.TemporaryDirectory(prefix="formats-") as name:
        place = Path(name)
        write_csv(place / "m.csv", count)
        write_jsonl(place / "m.jsonl", place / "m.csv")
        write_parquet(place / "m.parquet", place / "m.csv")
        write_sqlite(place / "m.sqlite", count)
        files = {"CSV": "m.csv", "JSONL": "m.jsonl", "Excel": "m.xlsx", "Parquet": "m.parquet", "SQLite": "sqlite.toml"}
        if count <= 1_000_000:
            write_xlsx(place / "m.xlsx", count)
        for kind, file in files.items():
            size = (place / ("m.sqlite" if kind == "SQLite" else file)).stat().st_size
            yield "in", kind, _cost(place, ["check", file, "-q"], 0), size
        _cost(place, ["run", "m.csv", "--yes", "--run-id", "r", "--no-survey", "--max-outage", "100ms"], 5)
        for kind, suffix in {"CSV": "csv", "JSONL": "jsonl", "Excel": "xlsx", "Parquet": "parquet"}.items():
            used = _cost(place, ["results", "r", "--as", suffix, "--out", f"out.{suffix}"], 0)
            yield "out", kind, used, (place / f"out.{suffix}").stat().st_size


def table(counts: Sequence[int]) -> str:
    """Return the section of RESULTS.md."""
    lines = [
        "## Formats",
        "",
        f"`python -m tests.bench.formats --rows {' '.join(map(str, counts))}`; {machine()}. One process each: in is "
        "`bulkimg check`, out is `bulkimg results` (19 columns). Rows a second are of processor time. A cell of each row has a comma, so that CSV quotes it.",
        "",
        "| rows | | format | rows/s | processor, s | wall, s | peak memory, MB | file, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count in counts:
        for way, kind, used, size in measured(count):
            lines.append(
                f"| {count:,} | {way} | {kind} | {count / used.cpu:,.0f} | {used.cpu:.1f} | {used.wall:.1f} "
                f"| {used.peak / 1e6:,.0f} | {size / 1e6:,.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--keep", action="store_true", help="write the section of RESULTS.md")
    given = parser.parse_args()
    said = table(given.rows)
    sys.stdout.write(said)
    if given.keep:
        keep("Formats", said)


if __name__ == "__main__":
    main()
