"""The quick way checks a value once per column, for each column by itself, and keeps no more of them than it may."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bulkimg.manifest import sound
from bulkimg.manifest.check import Checker
from bulkimg.manifest.sound import SoundLines
from bulkimg.manifest.tabular import Lines
from bulkimg.model import Fields, Problem, SoundRow
from tests.manifest.test_tabular import uuid


class Counting(Checker):
    """A checker that notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Mapping[str, Any]] = []

    def fields(self, line: int, asked: Mapping[str, Any], *, cells: bool) -> tuple[Fields, list[Problem]]:
        if asked:
            self.asked.append(dict(asked))
        return super().fields(line, asked, cells=cells)


def read(checker: Checker, columns: Sequence[str], *rows: Sequence[str]) -> list[SoundRow]:
    lines = Lines((n, f"{uuid(n)},{','.join(row)}\n") for n, row in enumerate(rows, 2))
    return list(SoundLines(",", ("uuid", *columns), checker, {}).rows(lines))


def test_a_value_is_checked_once_per_column() -> None:
    checker = Counting()
    assert len(read(checker, ("platform", "system"), *[("Linux", "true"), ("Windows", "true")] * 50)) == 100
    assert checker.asked == [{"platform": "Linux"}, {"system": "true"}, {"platform": "Windows"}]


def test_what_is_sound_in_one_column_is_checked_in_another() -> None:
    checker = Counting()
    rows = read(checker, ("platform", "architecture", "name"), ("Linux", "x86_64", "x86_64"), ("x86_64", "x86_64", "n"))
    assert [row[2] for row in rows] == ['{"platform":"Linux","architecture":"x86_64","name":"x86_64"}']
    assert checker.asked == [
        {"platform": "Linux"},
        {"architecture": "x86_64"},
        {"name": "x86_64"},
        {"platform": "x86_64"},
    ]


def test_no_more_values_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "REMEMBERED", 2)
    checker = Counting()
    read(checker, ("system",), ("true",), ("no",), ("1",), ("1",), ("true",), ("no",))
    assert [asked["system"] for asked in checker.asked] == ["true", "no", "1", "1"]


@pytest.mark.parametrize("cell", ["a\u200bb", "a\x7fb", "a\ud800b", "x" * 256])
def test_a_value_that_may_not_be_sound_is_left_to_the_general_way(cell: str) -> None:
    assert read(Checker(), ("name",), ("fine",), (cell,), ("fine",))[1:] == []
