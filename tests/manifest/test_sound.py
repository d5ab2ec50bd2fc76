"""The quick way and the general way read the same rows: sound lines, all other lines, and both in turn."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bulkimg.errors import UsageError
from bulkimg.layers import flags_layer, merge
from bulkimg.ledger import Ledger
from bulkimg.ledger.intake import add_rows
from bulkimg.manifest import Manifest, sound
from bulkimg.model import Row, SoundRow
from bulkimg.settings import Settings
from tests.conftest import corpus
from tests.manifest.test_tabular import uuid, write

COLUMNS = (
    "name",
    "description",
    "platform",
    "system",
    "userTags",
    "guestOsType",
    "if_name",
    "if_userTags",
    "if_system",
    "_note",
)
TEXTS = st.text(st.sampled_from("aZ09 -.,;|\t\"'\\\0\r\n\x7f\x85\u00a0\u3000\u200b\u2800\u3164镜é😀"), max_size=14)
WORDS = st.sampled_from([
    "", " ", "Linux", "linux", "Windows", "true", "No", "maybe", "<empty>", " <empty> ", "EMPTY VALUES", "null", "N/A", "#REF!",
    "approved by change 4711", "应用镜像", "env:prod;team:a", "['a']", '["a", "b"]', "=\"x\"", "x" * 255, "x" * 256, "镜" * 256,
    "d" * 2048, "😀" * 128, "plain text without end ", "\ttab in a plain text", "a\\b", "\ud800",
])  # fmt: skip
WORD = st.sampled_from(["image number 17", "web", "映像 17", "é", "", "x" * 255, "ends with a blank ", "EMPTY VALUES"])
SOUND = {
    "name": WORD,
    "description": st.one_of(WORD, st.just("<empty>")),
    "guestOsType": WORD,
    "platform": st.sampled_from(["Linux", " Windows ", ""]),
    "system": st.sampled_from(["true", "NO", "1", ""]),
    "userTags": st.sampled_from(["env::prod", "a b", ""]),
    "_note": st.one_of(WORD, st.just("null")),
}
UUIDS = st.one_of(
    st.integers(0, 3).map(uuid),
    st.sampled_from([
        "", "x", "A" * 32, "0A" * 16, "00000000-0000-4000-8000-00000000000a", " " + "1" * 32, "1" * 31 + " ", "1 " * 16,
        "1" * 31, "1" * 33, "-" * 32, "\uff11" * 32, "K" * 32, "\u212a" * 32,
    ]),
)  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {},
    {"strict": True},
    {"set": ["platform=Linux"]},
    {"set": ["name=null"]},
    {"set": ["description={name} again"]},
    {"map": ["name=description", "description=name"]},
    {"map": ["_note=mediaType"]},
    {"where": ["platform=Linux"]},
    {"skip_rows": 1, "max_rows": 2},
    {"tags_mode": "replace", "empty_token": "EMPTY VALUES"},
    {"allow_value": ["platform=linux"]},
    {"format": "tsv"},
]


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Draw a table's text, and options to read it with."""
    options = draw(st.sampled_from(OPTIONS))
    delimiter = "\t" if options.get("format") == "tsv" else draw(st.sampled_from(",;\t|"))
    names = draw(st.lists(st.sampled_from(COLUMNS), unique=True, min_size=1, max_size=4))
    names = [*dict.fromkeys((*names, "name", "description", "platform", "_note"))] if options else names
    at = draw(st.integers(0, len(names)))
    lines = [[*names[:at], "uuid", *names[at:]]]
    for _ in range(draw(st.integers(0, 6))):
        lines.append(draw(st.sampled_from([sound_rows, odd_rows]))(draw, names, at))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    return end.join(delimiter.join(line) for line in lines) + draw(st.sampled_from(["", end])), options


def sound_rows(draw: st.DrawFn, names: list[str], at: int) -> list[str]:
    """Draw rows that are sound except for at most one cell."""
    cells = [draw(SOUND[name.removeprefix("if_")]) for name in names]
    row = [*cells[:at], uuid(draw(st.integers(0, 3))), *cells[at:]]
    odd = draw(st.integers(0, 2 * len(names)))
    if odd <= len(names):
        row[odd] = draw(UUIDS if odd == at else WORDS)
    return row


def odd_rows(draw: st.DrawFn, names: list[str], at: int) -> list[str]:
    width = draw(st.sampled_from([len(names)] * 9 + [len(names) + 1]))
    cells = [draw(st.one_of(WORDS, TEXTS)) for _ in range(width)]
    return [*cells[:at], draw(UUIDS), *cells[at:]]


def stored(place: Path, rows: list[Row | SoundRow]) -> list[list[tuple[Any, ...]]]:
    """Return what a ledger stores of the rows."""
    ledger = Ledger.create(place)
    empty = add_rows(ledger, 1, rows)
    found = [
        ledger.db.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall() for table in ("row", "problem", "warning")
    ]
    ledger.close()
    place.unlink()
    return [*found, [(empty,)]]


def both_ways(place: Path, path: Path, options: dict[str, Any]) -> int:
    """Compare both ways. Returns how many rows went the quick way."""
    chosen = merge(flags_layer(options)) if options else Settings()
    general, quick = Manifest(str(path), chosen), Manifest(str(path), chosen)
    try:
        rows = list(general.rows())
    except UsageError as error:
        with pytest.raises(UsageError, match=re.escape(str(error))):
            list(quick.stored_rows())
        return 0
    quickly = list(quick.stored_rows())
    assert stored(place / "quick.db", quickly) == stored(place / "general.db", list(rows))
    for name in ("columns", "problems", "has_expectations", "left_out", "blank_records", "first_blank", "sha256"):
        assert getattr(quick, name) == getattr(general, name), name
    return sum(not isinstance(row, Row) for row in quickly)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
@example((f"uuid,description\n{uuid(1)},EMPTY VALUES\n", {"empty_token": "EMPTY VALUES"}))
@example((f"uuid,name\n{'1 ' * 16},image number 1\n", {}))
@example((f"uuid,name\n{uuid(1)},{'x' * 256}\n", {}))
@example((f'uuid,name\n{uuid(1)},first of the rows\n{uuid(2)},"second\nrow\n{uuid(3)},third of the rows\n', {}))
def test_both_ways_give_the_same_rows(tmp_path: Path, table: tuple[str, dict[str, Any]]) -> None:
    text, options = table
    path = write(tmp_path / "m.csv", text.encode("utf-8", "surrogatepass"))
    both_ways(tmp_path, path, {"format": "csv", **options})


@pytest.mark.parametrize("options", OPTIONS)
def test_both_ways_read_naughty_strings_alike(tmp_path: Path, options: dict[str, Any]) -> None:
    naughty = [text for text in json.loads(corpus("blns/blns.json").read_text("utf-8")) if "\n" not in text]
    lines = [f"{uuid(n)},{text},Linux,{text},\n" for n, text in enumerate(naughty)]
    body = "uuid,name,platform,description,_note\n" + "".join(lines)
    both_ways(tmp_path, write(tmp_path / "m.csv", body), {**options, "format": "csv"})


@pytest.mark.parametrize(
    ("header", "cells", "count"),
    [
        ("uuid,name,description", "image {n},approved by change 4711", 100),
        ("uuid,name,platform,userTags,system", "映像 {n},Linux,env:prod;team:a,true", 100),
        ("uuid,name,_note,if_name", "image number {n},,old", 100),
        ("uuid,name", "", 100),
        ("uuid,name", "null", 0),
        ("uuid,description", '"quoted, {n}"', 0),
    ],
)
def test_sound_lines_go_the_quick_way(tmp_path: Path, header: str, cells: str, count: int) -> None:
    lines = [f"{uuid(n)},{cells.replace('{n}', str(n))}\n" for n in range(100)]
    assert both_ways(tmp_path, write(tmp_path / "m.csv", header + "\n" + "".join(lines)), {}) == count


def test_a_column_remembers_so_many_values_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values beyond the limit are checked again: both ways still agree."""
    monkeypatch.setattr(sound, "REMEMBERED", 3)
    body = "".join(f"{uuid(n)},{('a', 'b', 'null', 'é', 'c', 'd')[n % 6]}{n % 7}\n" for n in range(100))
    assert both_ways(tmp_path, write(tmp_path / "m.csv", "uuid,name\n" + body), {}) == 100
