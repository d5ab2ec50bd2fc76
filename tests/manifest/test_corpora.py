"""The corpora as manifests: nothing crashes or hangs, every bad record has its line, and good records still run."""

import csv
import json
from pathlib import Path

import pytest

from bulkimg.blank import is_blank
from bulkimg.manifest.tabular import Lines, read_records
from tests.conftest import corpus
from tests.manifest.test_tabular import read, uuid, write


def test_csv_spectrum_is_read_as_its_authors_say() -> None:
    files = sorted(corpus("csv-spectrum/csvs").glob("*.csv"))
    for path in files:
        expected = json.loads((path.parent.parent / "json" / f"{path.stem}.json").read_text("utf-8"))
        with path.open(encoding="utf-8", newline="") as file:
            records = list(read_records(Lines(enumerate(iter(file.readline, ""), 1)), ","))
        assert [record.problem for record in records] == [None] * len(records), path.name
        if path.stem == "location_coordinates":  # its JSON has another phone number than its CSV: only the shape agrees
            assert records[1].cells[1] == expected["Location Coordinates"]
            continue
        header, *rows = [record.cells for record in records]
        assert [dict(zip(header, row, strict=True)) for row in rows] == expected, path.name
    assert len(files) == 12


def test_json_test_suite_as_rows(tmp_path: Path) -> None:
    """n_ files are refused; y_ and i_ files never crash; the row after each runs."""
    good = json.dumps({"uuid": uuid(7), "name": "neighbour"}).encode()
    files = sorted(corpus("JSONTestSuite/test_parsing").glob("*.json"))
    for path in files:
        body = path.read_bytes()
        rows, _, _ = read(write(tmp_path / "m.jsonl", body.rstrip(b"\n") + b"\n" + good + b"\n"))
        if b"\xfe\xff" not in body[:2] and b"\xff\xfe" not in body[:2]:
            assert rows[-1].fields == {"name": "neighbour"}, path.name
        if path.name.startswith("n_"):
            assert all(row.problems for row in rows[:-1]), path.name
    assert len(files) == 318


def test_hostile_jsonl_rows_are_each_accounted_for(tmp_path: Path) -> None:
    body = corpus("bulkimg-hostile/rows.jsonl").read_bytes()
    lines = body.split(b"\n")
    rows, problems, _ = read(write(tmp_path / "m.jsonl", body))
    assert not problems
    assert [row.line for row in rows] == [number for number, line in enumerate(lines, 1) if line.strip()]
    assert rows[-1].fields == {"name": "last line without newline"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_naughty_strings_survive_as_names(tmp_path: Path, suffix: str) -> None:
    naughty = [
        text
        for text in json.loads(corpus("blns/blns.json").read_text("utf-8"))
        if not is_blank(text) and "\0" not in text
    ]
    path = tmp_path / f"m.{suffix}"
    with path.open("w", encoding="utf-8", newline="") as file:
        if suffix == "csv":
            writer = csv.writer(file)
            writer.writerow(["uuid", "description"])
            writer.writerows([uuid(n), text] for n, text in enumerate(naughty))
        else:
            file.writelines(json.dumps({"uuid": uuid(n), "description": text}) + "\n" for n, text in enumerate(naughty))
    rows, problems, _ = read(path)
    assert not problems
    for row, text in zip(rows, naughty, strict=True):
        assert row.fields.get("description") == text or row.problems, text
