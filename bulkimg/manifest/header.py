"""Decide what the columns of a table are for: once, from its header."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from bulkimg.blank import trim
from bulkimg.manifest.columns import Columns
from bulkimg.manifest.tabular import Record, find_delimiter
from bulkimg.model import FIELDS, Problem

_NO_ROW_IS_READ = frozenset({"EMPTY_COLUMN", "COLUMN_TWICE", "BAD_TYPE"})


class Bound:
    """A header's targets by position, so that the meaning of each column is decided only once."""

    def __init__(self, names: list[str], targets: list[str]) -> None:
        self.names = names
        self.targets = targets
        self.uuid = targets.index("uuid")
        self.fields = [(name, at) for at, name in enumerate(targets) if name in FIELDS]
        self.expects = [(name[3:], at) for at, name in enumerate(targets) if name.startswith("if_")]


class Header(NamedTuple):
    """What a header says. `bound` is None if no row can be read; `problems` then say why.

    `names` are the manifest's own columns, or None if the record is no header of a manifest.
    """

    problems: list[Problem]
    names: list[str] | None = None
    has_expectations: bool = False
    bound: Bound | None = None


def bind_header(
    header: Record, columns: Columns, above: Callable[[list[str]], Problem | None] = lambda names: None
) -> Header:
    """Decide what each column is for.

    `above` gets the names, and may know a better reason for a header without known names.
    """
    if header.problem:
        return Header([fatal(header.problem)])
    names = [trim(name) for name in header.cells]
    if found := columns.file_of_a_run(header.line, names):
        return Header([found])
    targets, problems = columns.bind(header.line, names)
    if problems and (advice := above(names)):
        problems = [advice]
    problems += [problem for _, problem in header.bad]
    # Without a valid header, every row would have its problem.
    is_valid = "uuid" in targets and not any(problem.code in _NO_ROW_IS_READ for problem in problems)
    expects = any(target.startswith("if_") for target in targets)
    return Header(list(map(fatal, problems)), names, expects, Bound(names, targets) if is_valid else None)


def above_the_header(line: int, names: list[str], ahead: list[str], delimiter: str, wanted: set[str]) -> Problem | None:
    """Return the one problem of a file whose header is below a title or a comment, else None."""
    if wanted & {name.casefold() for name in names}:
        return None
    for further, text in enumerate(ahead[1:], 1):
        found = find_delimiter(text, wanted)
        if wanted & {trim(trim(name).strip('"')).casefold() for name in text.split(found)}:
            shown = delimiter.join(names)[:40]
            message = f"this line is not the header, but line {line + further} looks like it"
            return Problem(line, "", shown, "NO_UUID_COLUMN", message, "remove the lines above the header")
    return None


def fatal(problem: Problem) -> Problem:
    """Return a problem of the manifest as a whole."""
    return replace(problem, fatal=True)
