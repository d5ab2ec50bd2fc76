"""This file reads CSV and TSV: numbered lines → a header and records, with every damaged record found and none swallowed."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from bulkimg.manifest.source import MAX_LINE, UNDECODABLE
from bulkimg.model import Problem

DELIMITERS = ",;\t|"
Line = tuple[int, str | None]


@dataclass(frozen=True, slots=True)
class Record:
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


def find_delimiter(sample: list[str], wanted: set[str]) -> str:
    """The delimiter whose first line holds one of the wanted names; what csv.Sniffer says where none does, or a comma."""
    try:
        sniffed = str(csv.Sniffer().sniff("".join(sample), delimiters=DELIMITERS).delimiter)
    except csv.Error:  # a single column has no delimiter to find
        sniffed = ","
    for delimiter in dict.fromkeys((sniffed, *DELIMITERS)):
        names = {name.strip().strip('"').casefold() for name in sample[0].split(delimiter)}
        if delimiter in sample[0] and names & wanted:
            return delimiter
    return sniffed if sniffed in sample[0] else ","


def read_records(lines: Lines, delimiter: str) -> Iterator[Record]:
    """Records in order; blank lines are passed over.

    The csv module runs strictly, on one record at a time. When a record breaks, it is blamed on the line it began on
    and its other lines are read again as records of their own: an unclosed quote costs its own row and no other.
    """
    csv.field_size_limit(MAX_LINE)
    for first in lines:
        taken = [first]
        problem = _unfit(first)
        cells: list[str] = []
        if problem is None:
            try:
                cells = next(csv.reader(_feed(lines, taken), delimiter=delimiter, strict=True))
            except (csv.Error, _RecordTooLongError) as error:
                problem = _broken(taken, error)
                lines.put_back(taken[1:])
        if problem or cells:
            yield Record(first[0], cells, problem)


class _RecordTooLongError(Exception):
    pass


def _feed(lines: Lines, taken: list[Line]) -> Iterator[str]:
    """The text of the line already taken, then of as many more as the csv module asks for, each noted in `taken`."""
    size = 0
    text = taken[0][1]
    while text is not None:
        size += len(text)
        yield text
        if size > MAX_LINE:
            raise _RecordTooLongError
        line = next(lines, None)
        if line is None:
            return
        taken.append(line)
        text = None if _unfit(line) else line[1]
    raise _RecordTooLongError


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
