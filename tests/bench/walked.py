"""Note every call of bulkimg's functions in this process, and cut the notes between two rows."""

import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import FrameType
from typing import Any, NamedTuple

PACKAGE = "bulkimg"
_CAUSE = 3  # the bits of RESUME's argument with its reason: 0 is the start of a function
_RESUME = 151  # the opcode, in Python 3.11


class Entry(NamedTuple):
    """A function of bulkimg that began, or a coroutine or generator of it that continued."""

    module: str
    function: str
    begins: bool
    from_outside: bool
    thread: str

    @property
    def name(self) -> str:
        return f"{self.module}.{self.function}"


class Notes:
    """The entries so far, of all threads, in the order of the interpreter's lock."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.commits: list[int] = []  # number of entries at each commit of SQLite

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take notes in this thread, and in those that are started within the block."""
        connect = sqlite3.connect
        sqlite3.connect = partial(connect, factory=self._connection())  # type: ignore[assignment]
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            sqlite3.connect = connect

    def _connection(self) -> type[sqlite3.Connection]:
        """Return a connection that notes its commits."""
        notes = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                before = self.in_transaction, self.total_changes
                cursor = super().execute(sql, *values)
                if not self.in_transaction and before != (False, self.total_changes):
                    notes.commits.append(len(notes.entries))
                return cursor

        return Connection

    def _see(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not _is_ours(frame):
            return
        code, module = frame.f_code, str(frame.f_globals["__name__"])
        caller = frame.f_back
        from_outside = caller is None or not _is_ours(caller)
        thread = "loop" if threading.current_thread() is threading.main_thread() else "thread"
        self.entries.append(Entry(module, code.co_qualname, _begins(frame), from_outside, thread))


def _is_ours(frame: FrameType) -> bool:
    """Decide by the module of its globals, because the methods of a dataclass have no file."""
    name = str(frame.f_globals.get("__name__"))
    return name == PACKAGE or name.startswith(PACKAGE + ".")


def _begins(frame: FrameType) -> bool:
    code, at = frame.f_code.co_code, frame.f_lasti
    return at < 0 or code[at] != _RESUME or code[at + 1] & _CAUSE == 0


@dataclass(frozen=True)
class Cycle:
    """The entries from one cut to the next. `claimed` rows were claimed in this time."""

    entries: Sequence[Entry]
    claimed: int
    durable: int = 0  # number of entries before the last commit

    def to_durable(self) -> "Cycle":
        """Return the cycle without what follows the commit until the next row: result lines and observers."""
        rest = self.entries[self.durable :]
        begin = next((at for at, entry in enumerate(rest) if entry == self.entries[0]), len(rest))
        later = [entry for entry in rest[begin:] if entry.thread == "loop"]
        return Cycle([*self.entries[: self.durable], *later], self.claimed, self.durable)

    @cached_property
    def kind(self) -> frozenset[tuple[Entry, int]]:
        """The key of a cycle. It is equal for cycles that differ only in the order of two threads."""
        return frozenset(Counter(self.entries).items())

    @property
    def calls(self) -> int:
        return sum(entry.begins for entry in self.entries)

    @property
    def resumptions(self) -> int:
        return len(self.entries) - self.calls

    @property
    def callbacks(self) -> Counter[str]:
        return Counter(entry.name for entry in self.entries if entry.from_outside)

    @property
    def modules(self) -> set[str]:
        return {entry.module for entry in self.entries}


@dataclass
class Walk:
    """One row's way: the cycle that most rows had, and a row's share of claims for many rows."""

    cycles: Sequence[Cycle]
    usual: Cycle = field(init=False)
    alike: int = field(init=False)

    def __post_init__(self) -> None:
        self.usual, self.alike = _most_common(self.cycles)

    @cached_property
    def claims(self) -> list[Cycle]:
        """The cycles in which many rows were claimed, if not every cycle has a claim."""
        return [cycle for cycle in self.cycles if cycle.claimed > self.usual.claimed]

    @cached_property
    def claim(self) -> Cycle | None:
        """The most frequent of them."""
        return _most_common(self.claims)[0] if self.claims else None

    @property
    def calls_of_claim(self) -> float:
        return (self.claim.calls - self.usual.calls) / self.claim.claimed if self.claim else 0.0

    @property
    def entries_of_claim(self) -> float:
        """The entries from outside."""
        if self.claim is None:
            return 0.0
        return (self.claim.callbacks.total() - self.usual.callbacks.total()) / self.claim.claimed

    @property
    def modules(self) -> list[str]:
        """The modules of the usual cycle and of the claim."""
        return sorted(self.usual.modules | (self.claim.modules if self.claim else set()))


def _most_common(cycles: Sequence[Cycle]) -> tuple[Cycle, int]:
    """Return the first of the most frequent equal cycles, and how many there are."""
    kind, number = Counter(cycle.kind for cycle in cycles).most_common(1)[0]
    return next(cycle for cycle in cycles if cycle.kind == kind), number
