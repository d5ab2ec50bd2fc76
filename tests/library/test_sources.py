"""What `run` accepts as its source."""

import gzip
import json
import math
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import bulkimg
from tests.library.calling import Caller


class Frame:
    """The parts of a DataFrame that are used: columns, and rows as mappings."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self.columns = list(rows[0])

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return self._rows

    def __iter__(self) -> Any:
        """Iterate over the names of columns and not over rows, as pandas does."""
        return iter(self.columns)


class NAType:
    """pandas.NA: a test of equality is neither true nor false."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Scalar:
    """A scalar of numpy."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def item(self) -> Any:
        return self._value


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.csv.gz"])
def test_a_path_is_a_manifest(call: Caller, tmp_path: Path, name: str, kind: type[Any]) -> None:
    (change,) = call.changes(1)
    between = "\t" if name.endswith("tsv") else ","
    text = f"uuid{between}name\n{change['uuid']}{between}{change['name']}\n"
    if name.endswith("jsonl"):
        text = json.dumps(change) + "\n"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    result = call.at("run", kind(tmp_path / name))
    assert result.counts["updated"] == 1
    assert list(call.names([change])) == [change["name"]]


def test_a_job_file_says_everything(call: Caller, tmp_path: Path) -> None:
    (change,) = call.changes(1)
    (tmp_path / "m.csv").write_text(f"uuid,label\n{change['uuid']},{change['name']}\n")
    (tmp_path / "job.toml").write_text(
        f'schema = 1\n[job]\nmanifest = "m.csv"\nname = "nightly"\n[target]\nendpoint = "{call.server.url}"\n'
        '[pace]\nrate = "unlimited"\n[map]\nlabel = "name"\n'
    )
    result = bulkimg.run(
        tmp_path / "job.toml", credentials=bulkimg.Session(call.server.session), runs_dir=call.runs_dir
    )
    assert (result.ok, result.counts["updated"]) == (True, 1)
    assert list(call.names([change])) == [change["name"]]


def test_a_keyword_wins_over_the_job_file(call: Caller, tmp_path: Path) -> None:
    (change,) = call.changes(1)
    (tmp_path / "m.csv").write_text(f"uuid,name\n{change['uuid']},{change['name']}\n")
    (tmp_path / "job.toml").write_text(
        '[job]\nmanifest = "m.csv"\nnote = "of the job"\n[target]\nendpoint = "http://127.0.0.1:9"\n'
    )
    result = call.at("run", tmp_path / "job.toml", note="of the call")
    assert result.ok
    assert json.loads((result.directory / "summary.json").read_text())["note"] == "of the call"


@pytest.mark.parametrize("shape", ["list", "generator", "frame"])
def test_mappings_hold_uuids_and_missing_values_as_programs_have_them(call: Caller, shape: str) -> None:
    """None, NaN and NA leave a field as it is."""
    first, second, third = call.changes(3)
    before = call.server.images()
    rows: list[dict[str, Any]] = [
        {"uuid": UUID(first["uuid"]), "name": first["name"], "description": None},
        {"uuid": UUID(second["uuid"]), "name": second["name"], "description": math.nan},
        {"uuid": third["uuid"], "name": NAType(), "description": f"described by {third['name']}"},
    ]
    source = {"list": rows, "generator": (row for row in rows), "frame": Frame(rows)}[shape]
    result = call.at("run", source)
    assert (result.ok, result.counts["updated"]) == (True, 3), list(result.rows())
    now = call.server.images()
    assert [now[row["uuid"]]["name"] for row in (first, second)] == [first["name"], second["name"]]
    assert now[third["uuid"]]["name"] == before[third["uuid"]]["name"]
    for row in (first, second):
        assert now[row["uuid"]].get("description") == before[row["uuid"]].get("description")
    assert now[third["uuid"]]["description"] == f"described by {third['name']}"
    assert [row.line for row in result.rows()] == [1, 2, 3]


def test_scalars_and_sets_of_tags_are_taken(call: Caller) -> None:
    uuid = call.changes(1, start=50)[0]["uuid"]
    now = call.server.images()[uuid].get("virtio", False)
    result = call.at("run", [{"uuid": uuid, "virtio": Scalar(not now), "userTags": {"lib::b", "lib::a"}}])
    assert result.ok, [row.message for row in result.rows()]
    image = call.server.images()[uuid]
    assert image["virtio"] is (not now)
    assert {"lib::a", "lib::b"} <= set(image["_tags"])


@pytest.mark.parametrize("rows", [[], iter(())])
def test_a_source_without_rows_is_refused(call: Caller, rows: Any) -> None:
    with pytest.raises(bulkimg.ManifestRefused, match="has no rows"):
        call.at("run", rows)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (5, "of type int; give a path, mappings, or a DataFrame"),
        (None, "of type NoneType"),
        ({"uuid": "x"}, "of type dict"),
        ([{"uuid": "0" * 32, "name": "x"}, "second"], "row 2 of the source is of type str"),
        ([("uuid", "x")], "row 1 of the source is of type tuple"),
    ],
)
def test_anything_else_is_a_usage_error_that_says_what_was_given(call: Caller, source: Any, says: str) -> None:
    with pytest.raises(bulkimg.UsageError, match=says):
        call.at("run", source)


@pytest.mark.parametrize(
    "given",
    [{"set": {"platform": "Linux"}, "map": {"label": "name"}}, {"set": ["platform=Linux"], "map": ["label=name"]}],
)
def test_columns_are_mapped_and_fields_set_by_mappings_or_texts(call: Caller, given: dict[str, Any]) -> None:
    (change,) = call.changes(1, start=60)
    result = call.at("run", [{"uuid": change["uuid"], "label": change["name"]}], **given)
    assert result.ok, [row.message for row in result.rows()]
    image = call.server.images()[change["uuid"]]
    assert (image["name"], image["platform"]) == (change["name"], "Linux")
