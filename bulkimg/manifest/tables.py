"""Open tables whose cells a library reads. Their cells are texts like those of a CSV, so the rules of a CSV hold."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Protocol, runtime_checkable

from bulkimg.manifest.tabular import Record
from bulkimg.model import Problem
from bulkimg.settings import Settings

# Format → the module with its `open_table(name, settings)`. It is imported only for that format.
LIBRARIES: Mapping[str, str] = {
    "parquet": "bulkimg.manifest.parquet",
    "sql": "bulkimg.manifest.sql",
    "xlsx": "bulkimg.manifest.xlsx.table",
}


class Table(Protocol):
    """A table that is read once, from its first record to its last. A blank cell is ""."""

    header: Record

    @property
    def sha256(self) -> str:
        """Return the digest that identifies the table, after the last record."""
        ...

    def records(self) -> Iterator[Record]:
        """Yield the records below the header, in order. Raises Unreadable where nothing can be read from there on."""
        ...

    def close(self) -> None:
        """Close what was opened. It may be called at any time."""
        ...


@runtime_checkable
class CellTable(Table, Protocol):
    """A table whose cells have names of their own, such as `Sheet1!B7`, and types that matter by what a column sets."""

    skipped: int  # records that an option left out

    def place(self, line: int, at: int) -> str:
        """Return the name of a cell by its line and the position of its column, from 0."""
        ...

    def bind(self, targets: Sequence[str], used: Collection[str]) -> list[Problem]:
        """Say what each column sets ("" for nothing), and which other names the options use.

        Returns problems with these columns. It is called before `records`.
        """
        ...

    def problems(self) -> list[Problem]:
        """Return the problems of the table as a whole, after the last record."""
        ...

    def warnings(self) -> list[Problem]:
        """Return the warnings about the table as a whole, after the last record."""
        ...

    def remarks(self) -> list[str]:
        """Return what else there is to say about it, one sentence each, after the last record."""
        ...


class CellNames:
    """Add the names of cells to problems."""

    def __init__(self, table: CellTable, names: list[str], targets: list[str]) -> None:
        self._table = table
        self._at = {name: at for at, name in reversed(list(enumerate(names))) if name}
        self._at |= {target: at for at, target in reversed(list(enumerate(targets))) if target}
        self._nameless = {f"column {at}": at - 1 for at, name in enumerate(names, 1) if not name}

    def named(self, problem: Problem) -> Problem:
        """Return the problem with its cell, where it has one."""
        if (at := self._nameless.get(problem.column)) is not None:
            return replace(problem, column="", cell=self._table.place(problem.line, at))
        if problem.cell or (at := self._at.get(problem.column)) is None:
            return problem
        return replace(problem, cell=self._table.place(problem.line, at))


def open_table(kind: str, name: str, settings: Settings) -> Table:
    """Open a table of a format in LIBRARIES.

    Raises UsageError (a missing library, a wrong option), ManifestRefused (a missing file), and Unreadable.
    """
    opened: Callable[[str, Settings], Table] = import_module(LIBRARIES[kind]).open_table
    return opened(name, settings)
