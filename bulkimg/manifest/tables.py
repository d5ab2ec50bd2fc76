"""Open tables whose cells a library reads. Their cells are texts like those of a CSV, so the rules of a CSV hold."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Protocol

from bulkimg.manifest.tabular import Record
from bulkimg.settings import Settings

# Format → the module with its `open_table(name, settings)`. It is imported only for that format.
LIBRARIES: Mapping[str, str] = {}


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


def open_table(kind: str, name: str, settings: Settings) -> Table:
    """Open a table of a format in LIBRARIES.

    Raises UsageError (a missing library, a wrong option), ManifestRefused (a missing file), and Unreadable.
    """
    opened: Callable[[str, Settings], Table] = import_module(LIBRARIES[kind]).open_table
    return opened(name, settings)
