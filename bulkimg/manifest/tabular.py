"""This file reads CSV and TSV: numbered lines → a header and records, with every damaged record found and none swallowed."""

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from bulkimg.manifest.source import MAX_LINE, UNDECODABLE
from bulkimg.model import Problem

DELIMITERS = ",;\t|"
MAX_HEADER = 4096  # characters that the delimiter is looked for in
Line = tuple[int, str | None]


class Record(NamedTuple):
    """The cells of a record and the line it begins on; or what is wrong with it."""

    line: int
    cells: list[str]
    problem: Problem | None = None


class Lines:
    """Lines that can be put back: a record that turns out to be damaged gives its later lines back to be read afresh."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._back: list[Line] = []

    def __iter__(self) -> Iterator[Line]:
        return self

    def __next__(self) -> Line:
        return self._back.pop() if self._back else next(self._lines)

    def put_back(self, lines: list[Line]) -> None:
        """The lines come again, in this order, before any other."""
        self._back.extend(reversed(lines))

    def peek(self, count: int) -> list[Line]:
        """The next lines, which stay."""
        ahead = list(islice(self, count))
        self.put_back(ahead)
        return ahead


def find_delimiter(header: str, wanted: set[str]) -> str:
    """The delimiter that splits one of the wanted names off the header; what csv.Sniffer says where none does, or a comma."""
    header = header[:MAX_HEADER]
    for delimiter in DELIMITERS:
        names = {name.strip().strip('"').casefold() for name in header.lstrip("\ufeff").split(delimiter)}
        if delimiter in header and names & wanted:
            return delimiter
    try:
        return str(csv.Sniffer().sniff(header, delimiters=DELIMITERS).delimiter)
    except csv.Error:  # a single column has no delimiter to find
        return ","


def read_records(lines: Lines, delimiter: str) -> Iterator[Record]:
    """Records in order; blank lines are passed over.

    The csv module runs strictly. When a record breaks, it is blamed on the line it began on and its other lines are
    read again as records of their own: an unclosed quote costs its own row and no other.
    """
    csv.field_size_limit(MAX_LINE)
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, _BadLine) as error:
            taken = feed.taken
            lines.put_back(taken[1:])
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
            yield Record(taken[0][0], [], _unfit(taken[0]) or _broken(taken, error))
        else:
            if cells:
                yield Record(feed.taken[0][0], cells)


class _BadLine(Exception):
    """A line that no record can hold, or one more than a record may have."""


class _Feed:
    """Hands lines to the csv module, and knows which of them make up the present record."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.taken: list[Line] = []
        self._size = 0

    def begin(self) -> None:
        """The next line begins a record."""
        self.taken.clear()
        self._size = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        text = line[1]
        if text is None or _unfit(line) or (self._size and self._size + len(text) > MAX_LINE):
            raise _BadLine
        self._size += len(text)
        return text


def _unfit(line: Line) -> Problem | None:
    """What makes a line unreadable as such: its length, a NUL, bytes that are not of the encoding."""
    number, text = line
    if text is None:
        return Problem(number, "", "", "LINE_TOO_LONG", f"the line is longer than {MAX_LINE:,} characters", "split it")
    if (at := text.find("\0")) >= 0:
        return Problem(number, f"character {at + 1}", "", "UNFIT_TEXT", "a NUL character", "remove it")
    if (at := text.find(UNDECODABLE)) >= 0:
        return Problem(
            number,
            f"character {at + 1}",
            "",
            "ENCODING",
            "bytes that are not of the encoding",
            "save the file as UTF-8, or name its encoding with --encoding",
        )
    return None


def _broken(taken: list[Line], error: Exception) -> Problem:
    number, text = taken[0]
    start = (text or "").strip()[:40]
    if len(taken) > 1 or "unexpected end of data" in str(error):
        message, fix = (
            "a quote is opened here and not closed properly",
            'close the quote, or write "" for a quote in a cell',
        )
    else:
        message, fix = f"is not CSV: {error}", 'put a cell that holds quotes in quotes, and write "" for each'
    return Problem(number, "", start, "CSV_SYNTAX", message, fix)
