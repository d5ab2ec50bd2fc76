"""A Parquet file is a manifest: what its values mean, and which files are refused. Nothing is loaded from the net."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest

from bulkimg.errors import ManifestRefused, UsageError
from bulkimg.manifest import Manifest
from bulkimg.manifest.tables import open_table
from bulkimg.model import Row
from bulkimg.settings import Settings
from tests.conftest import UUID, Cli

OTHER = UUID[::-1]
UUID_WITH_DASHES = "-".join([UUID[:8], UUID[8:12], UUID[12:16], UUID[16:20], UUID[20:]])


def write(path: Path, query: str, options: str = "") -> str:
    """Write a query's rows as Parquet."""
    with duckdb.connect(":memory:") as made:
        made.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet{options})")
    return str(path)


def rows(name: str, **options: Any) -> list[Row]:
    manifest = Manifest(name, Settings(**options))
    found = list(manifest.rows())
    assert manifest.problems == []
    return found


def problems(name: str, **options: Any) -> list[str]:
    manifest = Manifest(name, Settings(**options))
    found = [problem for row in manifest.rows() for problem in row.problems]
    return [f"{problem.line} {problem.code} {problem.text}" for problem in (*manifest.problems, *found)]


def test_values_mean_what_they_mean_in_a_csv(tmp_path: Path) -> None:
    name = write(
        tmp_path / "m.parquet",
        f"""SELECT '{UUID}'::uuid AS uuid, 'a' AS name, true AS virtio, 0::tinyint AS system, NULL::varchar AS description,
        ['x;y', 'z'] AS userTags, 'Linux' AS if_platform, 7::bigint AS _number
        UNION ALL SELECT '{OTHER}', 'ü ''"', false, 1, '<empty>', NULL, NULL, NULL""",
    )
    first, second = rows(name)
    assert (first.line, first.uuid, first.expects) == (1, UUID, {"platform": "Linux"})
    assert first.fields == {"name": "a", "virtio": True, "system": False, "userTags": ["x;y", "z"]}
    assert first.cells == (UUID_WITH_DASHES, "a", "true", "0", "", '["x;y", "z"]', "Linux", "7")
    assert (second.line, second.uuid) == (2, OTHER)
    assert second.fields == {"name": "ü '\"", "virtio": False, "system": True, "description": ""}
    assert list(Manifest(name, Settings()).stored_rows()) == [first, second]  # quotes take the general way


def test_plain_rows_take_the_quick_way_and_are_the_same(tmp_path: Path) -> None:
    name = write(
        tmp_path / "m.parquet", f"SELECT '{UUID}' AS uuid, 'a' AS name, true AS virtio, NULL::varchar AS description"
    )
    (row,) = rows(name)
    (quick,) = Manifest(name, Settings()).stored_rows()
    assert isinstance(quick, tuple)
    assert (quick[0], quick[1].hex(), json.loads(quick[2]), tuple(json.loads(quick[4]))) == (
        row.line, row.uuid, row.fields, row.cells,
    )  # fmt: skip


def test_the_options_of_a_manifest_hold_for_parquet(tmp_path: Path) -> None:
    name = write(
        tmp_path / "m.parquet",
        f"SELECT '{UUID}' AS id, 'a' AS title, 'eu' AS region UNION ALL SELECT '{OTHER}', 'b', 'us' ORDER BY 2",
    )
    options: dict[str, Any] = {"map": [("id", "uuid"), ("title", "_t")], "set": [("name", "{title}-{region}")]}
    assert [(row.line, row.fields) for row in rows(name, **options, where=("region=us",))] == [(2, {"name": "b-us"})]
    assert [row.line for row in rows(name, **options, skip_rows=1)] == [2]
    assert [row.line for row in rows(name, **options, max_rows=1)] == [1]
    assert [text.split(":")[0] for text in problems(name)] == [
        "0 UNKNOWN_COLUMN id", "0 UNKNOWN_COLUMN title", "0 UNKNOWN_COLUMN region", "0 NO_UUID_COLUMN uuid",
    ]  # fmt: skip


TYPES = {
    "1.5::double": "DOUBLE", "1.5::float": "FLOAT", "1.50::decimal(10, 2)": "DECIMAL(10,2)", "DATE '2026-01-01'": "DATE",
    "TIMESTAMP '2026-01-01'": "TIMESTAMP", "TIME '10:00:00'": "TIME", "'x'::blob": "BLOB", "{'a': 1}": "STRUCT",
    "MAP {'a': 1}": "MAP", "['a']": "VARCHAR[]", "[1]": "INTEGER[]", "'{}'::json": "JSON", "INTERVAL 1 DAY": "INTERVAL",
}  # fmt: skip


def test_a_type_that_is_no_text_is_a_problem_of_its_column(tmp_path: Path) -> None:
    names = {f"name{at}": value for at, value in enumerate(TYPES)}
    columns = ", ".join(f"{value} AS {name}" for name, value in names.items())
    name = write(tmp_path / "m.parquet", f"SELECT '{UUID}' AS uuid, {columns}")
    for column, value in names.items():
        others = [(other, "_x") for other in names if other != column]
        found = problems(name, map=[*others, (column, "name")])
        assert len(found) == 1, (value, found)
        assert found[0].startswith(f"0 BAD_TYPE {column}: has the type {TYPES[value].lower()}"), found
    ignored = [(other, "_x") for other in names]
    assert [row.fields for row in rows(name, map=ignored, set=[("name", "x")])] == [{"name": "x"}]


def test_whole_decimals_and_lists_of_other_fields(tmp_path: Path) -> None:
    name = write(
        tmp_path / "m.parquet", f"SELECT '{UUID}' AS uuid, 12::decimal(38, 0) AS name, [NULL, 'a'] AS userTags"
    )
    (found,) = problems(name)
    assert "userTags" in found
    assert "does not hold texts only" in found
    assert rows(name, map=[("userTags", "_t")])[0].fields == {"name": "12"}


def test_blank_texts_are_not_null_and_the_token_says_so(tmp_path: Path) -> None:
    name = write(
        tmp_path / "m.parquet",
        f"SELECT '{UUID}' AS uuid, '' AS description, ' ' AS name, []::varchar[] AS userTags, chr(0) AS if_name, '' AS _x",
    )
    assert [text.split(":")[0] for text in problems(name)] == [
        "1 BLANK_TEXT description", "1 BLANK_TEXT name ' '", "1 BLANK_TEXT userTags '[]'", "1 UNFIT_TEXT if_name",
    ]  # fmt: skip
    (found,) = problems(name, set=[("description", "x"), ("name", "x")], map=[("userTags", "_t"), ("if_name", "_i")])
    assert found == "1 UNFIT_TEXT if_name: has a NUL as character 1"  # as in a CSV


def test_names_are_those_of_the_file(tmp_path: Path) -> None:
    """The library renames columns that differ in case only; here they stay what they are."""
    name = write(
        tmp_path / "m.parquet", f"SELECT '{UUID}' AS uuid, {{'a': 1, 'b': [2]}} AS _s, 'a' AS name, 'b' AS \"_é\"\"x\""
    )
    assert Manifest(name, Settings()).columns is None
    manifest = Manifest(name, Settings())
    assert len(list(manifest.rows())) == 1
    assert manifest.columns == ["uuid", "_s", "name", '_é"x']
    twice = Path(name).read_bytes().replace(b"_s", b"na").replace(b'_\xc3\xa9"x', b"name ")
    path = tmp_path / "twice.parquet"
    path.write_bytes(twice)
    assert any("COLUMN_TWICE name: appears twice" in text for text in problems(str(path)))


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "m.parquet", f"SELECT '{UUID}' AS uuid, 'a' AS name WHERE false")
    assert problems(name) == ["1 NO_ROWS the manifest has no rows"]


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    name = write(tmp_path / "m.parquet", f"SELECT '{UUID}' AS uuid, 'a' AS name")
    manifest = Manifest(name, Settings())
    list(manifest.rows())
    assert manifest.sha256 == sha256(Path(name).read_bytes()).hexdigest()


def test_a_name_is_no_pattern_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.parquet", f"SELECT '{UUID}' AS uuid, 'a' AS name")
    write(tmp_path / "x=1 [b]*'.PARQUET".replace("'", "’"), f"SELECT '{OTHER}' AS uuid, 'b' AS name")
    os.rename("x=1 [b]*’.PARQUET", "x=1 [b]*'.PARQUET")  # noqa: PTH104
    (row,) = rows("x=1 [b]*'.PARQUET")
    assert (row.uuid, row.fields) == (OTHER, {"name": "b"})
    for name in ("*.parquet", "https://127.0.0.1:9/a.parquet", "s3://bucket/a.parquet"):
        with pytest.raises(ManifestRefused, match="cannot be read"):
            open_table("parquet", name, Settings())


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda raw: b"", "the file is empty"),
    "text": (lambda raw: b"uuid,name\nx,y\n", "is not a Parquet file"),
    "workbook": (lambda raw: b"PK\x03\x04" + raw, "is an Excel workbook"),
    "cut": (lambda raw: raw[:-10], "is cut off"),
    "begins": (lambda raw: b"PAR1PAR1", "is cut off"),
    "footer": (lambda raw: raw[:-60] + b"\xff" * 52 + raw[-8:], "cannot be read"),
    "length": (lambda raw: raw[:-8] + b"\xff\xff\xff\x7f" + b"PAR1", "cannot be read"),
    "pages": (lambda raw: raw[:4] + b"\xff" * 60 + raw[64:], "cannot be read"),
    "encrypted": (lambda raw: raw[:-4] + b"PARE", "is an encrypted Parquet file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_one_sentence_and_no_row(tmp_path: Path, kind: str) -> None:
    whole = Path(write(tmp_path / "m.parquet", f"SELECT '{UUID}' AS uuid, 'name-' || i AS name FROM range(50) t(i)"))
    damage, said = DAMAGE[kind]
    path = tmp_path / "damaged.parquet"
    path.write_bytes(damage(whole.read_bytes()))
    manifest = Manifest(str(path), Settings())
    list(manifest.rows())
    (problem,) = manifest.problems
    assert problem.fatal
    assert said in problem.text
    assert "/dev/fd" not in problem.text
    assert "\n" not in problem.text
    assert problem.fix


def test_a_column_that_is_encrypted_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    with duckdb.connect(":memory:") as made:
        made.execute("SET force_mbedtls_unsafe = 'true'")
        made.execute("PRAGMA add_parquet_key('key', '0123456789112345')")
        made.execute(
            f"COPY (SELECT '{UUID}' AS uuid) TO '{path}' (FORMAT parquet, ENCRYPTION_CONFIG {{footer_key: 'key'}})"
        )
    assert problems(str(path)) == ["0 OTHER_FORMAT is an encrypted Parquet file"]


def test_a_record_of_a_packed_bomb_is_not_kept(tmp_path: Path) -> None:
    """A thousand texts of 2 MB are 4 kB of Parquet."""
    name = write(
        tmp_path / "m.parquet",
        f"SELECT '{UUID}' AS uuid, repeat('x', 2000000) AS name FROM range(1000)",
        ", COMPRESSION zstd",
    )
    assert Path(name).stat().st_size < 1_000_000
    script = (
        "import resource, sys; from bulkimg.manifest import Manifest; from bulkimg.settings import Settings\n"
        "found = [p.code for row in Manifest(sys.argv[1], Settings()).rows() for p in row.problems]\n"
        "print(len(found), set(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 700_000)"
    )
    done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True, check=True)
    assert done.stdout == "1000 {'LINE_TOO_LONG'} True\n"


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "folder.parquet").mkdir()
    for name in ("pipe.parquet", "folder.parquet", "missing.parquet", "a\0b.parquet"):
        with pytest.raises(ManifestRefused):
            open_table("parquet", str(tmp_path / name), Settings())
    with pytest.raises(UsageError, match="not read from standard input"):
        open_table("parquet", "-", Settings(format="parquet"))
    for name, said in (("m.parquet.gz", "gunzip"), ("q.sql", "needs a job file")):
        with pytest.raises(UsageError, match=said):
            Manifest(name, Settings())


def test_a_file_that_is_written_again_while_it_is_read_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "m.parquet", f"SELECT '{UUID}' AS uuid, 'n' || i AS name FROM range(2000) t(i)")
    table = open_table("parquet", name, Settings())
    records = table.records()
    next(records)
    with Path(name).open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b" ")
    manifest = Manifest(name, Settings())
    manifest._table = table
    list(manifest.rows())
    table.close()
    assert [problem.message for problem in manifest.problems] == ["the file was changed while it was read"]


def test_check_names_the_record_and_a_csv_name_is_sent_to_the_right_one(tmp_path: Path, cli: Cli) -> None:
    write(
        tmp_path / "m.parquet",
        f"SELECT '{UUID}' AS uuid, 'Linx' AS platform UNION ALL SELECT '{OTHER}', 'Linux' ORDER BY 2 DESC",
    )
    done = cli("check", "m.parquet", code=3)
    assert (
        done.out.startswith("m.parquet:1: platform 'Linx': is not one of") or "m.parquet:2: platform 'Linx'" in done.out
    )
    (tmp_path / "m.parquet").rename(tmp_path / "m.csv")
    assert "end its name in .parquet, or give --format parquet" in cli("check", "m.csv", code=3).out
    assert "platform 'Linx'" in cli("check", "m.csv", "--format", "parquet", code=3).out
    assert "missing.parquet: cannot be read" in cli("run", "missing.parquet", "--dry-run", code=3).err


def test_export_writes_no_parquet(cli: Cli) -> None:
    done = cli("export", "--endpoint", "http://127.0.0.1:1", "--format", "parquet", code=2, BULKIMG_SESSION="x" * 32)
    assert "--format parquet: an export is CSV, TSV or JSONL" in done.err
