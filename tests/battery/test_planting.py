"""Planting: symbols are found by name, code by what it says; anything that is not there exactly once is refused."""

import ast
from pathlib import Path

import pytest

from tests.battery.planting import Package, Unplantable

CODE = '''
LIMIT: int = 5  # a constant
QUERY = """
  SELECT a
  FROM b
"""


class Gate:
    MOST = 1

    def passed(self, n: int) -> bool:
        if n > LIMIT:
            self.log(n)
            return False
        if (
            n
            and self.MOST  # a comment
        ):
            return True
        return self.ask(n, "q", why=n > 1)


def passed(n):
    return n
'''
SCRIPT = "CREATE TABLE t (a);\nCREATE VIEW seen AS\n  SELECT a\n  FROM t;\nCREATE VIEW also AS SELECT a FROM t;\n"


@pytest.fixture
def package(tmp_path: Path) -> Package:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "gate.py").write_text(CODE, "utf-8")
    (tmp_path / "room" / "schema.sql").write_text(SCRIPT, "utf-8")
    return Package(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "shows"),
    [
        ("LIMIT", "", "7", "LIMIT: int = 7"),
        ("Gate.MOST", "", "2", "    MOST = 2"),
        ("QUERY", "a FROM", "c FROM", "SELECT c FROM b"),
        ("gate.passed", "", "return 0", "def passed(n):\n    return 0"),
        ("Gate.passed", "n and self.MOST", "n", "if n:\n            return True"),
        (
            "Gate.passed",
            "if n > LIMIT: ...",
            "if True: ...",
            "if True:\n            self.log(n)\n            return False",
        ),
        ("Gate.passed", "self.log(n)\nreturn False", "return True", "if n > LIMIT:\n            return True"),
        ("Gate.passed", "self.log(n)", "None", "None\n            return False"),
        ("Gate.passed", "self.ask(n, ..., why=...)", "self.tell(..., why=...)", "return self.tell('q', why=n > 1)"),
        ("room.gate.Gate", "False", "True", "            return True"),
        ("schema.seen", "SELECT a FROM", "SELECT b FROM", "AS\n  SELECT b FROM t;"),
    ],
)
def test_a_symbol_is_changed_wherever_and_however_it_is_written(
    package: Package, name: str, old: str, new: str, shows: str
) -> None:
    package.check(name, old, new)
    path, text = package.changed(name, old, new)
    assert shows in text.replace("\\n", " ").replace("  ", " ") if name == "QUERY" else shows in text
    if path.suffix == ".py":
        ast.parse(text)


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("passed", ""),  # two functions
        ("gate.Gate.missed", ""),
        ("ate.passed", ""),  # half a name
        ("Gate.passed", "n"),
        ("Gate.passed", "n > 2"),
        ("Gate.passed", "if n > LIMIT: return False"),
        ("QUERY", "SELECT b"),
        ("schema.seen", "FROM x"),
        ("also", "CREATE TABLE"),
    ],
)
def test_what_is_not_there_exactly_once_is_refused(package: Package, name: str, old: str) -> None:
    with pytest.raises(Unplantable):
        package.check(name, old, "None")
    with pytest.raises(Unplantable):
        package.changed(name, old, "None")
