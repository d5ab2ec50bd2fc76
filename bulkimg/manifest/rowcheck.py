"""Make the Row of one record: its values checked, `--set` applied, changed by plugins, doubted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from bulkimg.manifest.check import Checker
from bulkimg.manifest.columns import Columns
from bulkimg.manifest.doubts import doubts
from bulkimg.model import Fields, Problem, Row


class Altered(Protocol):
    """What plugins made of a row: its fields as in JSONL, which plugin set each changed one, why the row is refused."""

    @property
    def fields(self) -> Mapping[str, Any]: ...
    @property
    def by(self) -> Mapping[str, str]: ...
    @property
    def problems(self) -> Sequence[Problem]: ...


# Takes line, uuid, fields, expectations and cells by column. Returns None for a row that stays as it is.
Alter = Callable[[int, str, Fields, Fields, Mapping[str, str]], Altered | None]
Said = tuple[Any, dict[str, Any], dict[str, Any] | None]  # the uuid as written, the fields to set, the expectations


class RowCheck:
    """Makes rows. `alter` may change or refuse each that has an image; what it makes is checked too."""

    def __init__(self, checker: Checker, columns: Columns, alter: Alter | None, *, strict: bool) -> None:
        self._checker = checker
        self._columns = columns
        self._alter = alter
        self._is_strict = strict

    def row(self, line: int, said: Said, texts: dict[str, str], cells: tuple[str, ...] | None) -> Row:
        """Return a Row of the record with its values checked. `cells` is None for JSONL."""
        written, asked, expected = said
        is_cells = cells is not None
        uuid, problems = self._checker.uuid(line, written, cells=is_cells)
        expects: Fields = {}
        if expected:
            expects, wrong = self._checker.expects(line, expected, cells=is_cells)
            problems += wrong
        constants: dict[str, Any] = {}
        if self._columns.templates:
            problems += self._columns.apply_templates(line, texts, constants)
            asked = {name: value for name, value in asked.items() if name not in constants}
        fields, refused = self._checker.fields(line, asked, cells=is_cells)
        if constants:
            more, wrong = self._checker.fields(line, constants, cells=True)
            fields |= more
            refused += wrong
        if self._alter and uuid and (found := self._alter(line, uuid, fields, expects, texts)):
            fields, refused = self._after_plugins(line, found, fields, refused)
        problems += refused
        target, wrong = self._columns.target_of(line, texts)
        problems += wrong
        kept = "" if uuid or not isinstance(written, str) else written
        warnings = tuple(doubts(line, fields))
        if self._is_strict:
            problems, warnings = [*problems, *warnings], ()
        return Row(line, uuid, fields, expects, cells or (), tuple(problems), kept, warnings, target)

    def _after_plugins(
        self, line: int, found: Altered, fields: Fields, refused: list[Problem]
    ) -> tuple[Fields, list[Problem]]:
        """Return the fields and their problems after the plugins, checked like values of JSONL.

        Plugins may correct a value that was refused. It stays refused if they leave its field out.
        """
        if found.problems:
            return fields, [*refused, *found.problems]
        made, wrong = self._checker.fields(line, found.fields, cells=False)
        still = [problem for problem in refused if problem.column not in found.fields]
        return made, [*still, *(_set_by(found.by.get(problem.column, ""), problem) for problem in wrong)]


def _set_by(plugin: str, problem: Problem) -> Problem:
    """Return the problem, naming the plugin that set the value."""
    return replace(problem, message=f"{problem.message} (set by plugin {plugin})") if plugin else problem
