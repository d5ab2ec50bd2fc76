"""Read CSV and TSV lines into a header and records. Every damaged record is found and does not damage others."""

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from bulkimg.blank import PADDING, is_blank, trim
from bulkimg.manifest.encoding import UNDECODABLE
from bulkimg.manifest.source import MAX_LINE
from bulkimg.model import Problem

DELIMITERS = ",;\t|"
MAX_HEADER = 4096  # most characters that are searched for the delimiter
Line = tuple[int, str | None]


class Record(NamedTuple):
    """The cells of a record and the line it begins on, or what is wrong with it.

    `bad` holds problems of single cells with the positions of their columns (-1: of none, but of the record). The
    other cells are checked too.
    """

    line: int
    cells: list[str]
    problem: Problem | None = None
    bad: tuple[tuple[int, Problem], ...] = ()


class Lines:
    """Lines that can be put back: the later lines of a damaged record are read again."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._back: list[Line] = []

    def __iter__(self) -> Iterator[Line]:
        while True:
            while self._back:
                yield self._back.pop()
            line = next(self._lines, None)
            if line is None:
                return
            yield line

    def __next__(self) -> Line:
        return self._back.pop() if self._back else next(self._lines)

    def put_back(self, lines: list[Line]) -> None:
        """Put lines back: they come next, in this order."""
        self._back.extend(reversed(lines))

    def peek(self, count: int) -> list[Line]:
        """Return the next lines without taking them."""
        ahead = list(islice(self, count))
        self.put_back(ahead)
        return ahead


def find_delimiter(header: str, wanted: set[str]) -> str:
    """Return the delimiter that splits a wanted name off the header, else csv.Sniffer's, else a comma."""
    header = header[:MAX_HEADER]
    for delimiter in DELIMITERS:
        names = {trim(trim(name).strip('"')).casefold() for name in header.split(delimiter)}
        if delimiter in header and names & wanted:
            return delimiter
    try:
        return str(csv.Sniffer().sniff(header, delimiters=DELIMITERS).delimiter)
    except csv.Error:  # a single column has no delimiter
        return ","


_SEP = re.compile(r'\ufeff?"?sep=([,;\t|])?"?[,;\t|\s]*', re.IGNORECASE)
_TYPE = re.compile(r'\ufeff?"?#TYPE\b', re.IGNORECASE)


def skip_preamble(lines: Lines) -> str | None:
    """Skip what programs write above the header: blank lines, Excel's `sep=;`, PowerShell's `#TYPE …`.

    Returns the delimiter that `sep=` names, if there is one.
    """
    delimiter = None
    while ahead := lines.peek(1):
        text = ahead[0][1]
        if text is None:
            break
        if found := _SEP.fullmatch(text):
            delimiter = found[1]
        elif not _TYPE.match(text) and not is_blank(re.sub('[,;|"]', "", text)):
            break
        next(lines)
    return delimiter


def read_records(lines: Lines, delimiter: str) -> Iterator[Record]:
    """Yield the records in order. Empty lines are skipped.

    Blanks between a delimiter and an opening quote are skipped too; by RFC 4180 they would make the quotes data. The
    csv module runs strictly. A damaged record is reported on its first line, and its other lines are read again as
    records. So an unclosed quote damages only its own row.
    """
    csv.field_size_limit(MAX_LINE)
    feed = _Feed(lines, delimiter)
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
    """A line that no record can hold, or one line more than a record may have."""


class _Feed:
    """Pass lines to the csv module, and keep the lines of the present record."""

    def __init__(self, lines: Lines, delimiter: str) -> None:
        self._lines = lines
        self._quotes = _OpeningQuotes(delimiter)
        self.taken: list[Line] = []
        self._size = 0

    def begin(self) -> None:
        """Begin a record with the next line."""
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
        return self._quotes.moved(text, inside=len(self.taken) > 1)  # only an open quote needs another line


class _OpeningQuotes:
    """Remove the blanks before an opening quote, and no other character."""

    def __init__(self, delimiter: str) -> None:
        blanks = "[" + re.escape("".join(char for char in PADDING if char not in f"{delimiter}\r\n")) + "]+"
        mark = re.escape(delimiter)
        self._candidate = re.compile(f'(?:^|{mark}){blanks}"')
        self._blanks = re.compile(f'{blanks}(?=")')
        self._quoted = re.compile('(?:[^"]|"")*("?)')
        self._rest = re.compile(f"[^{mark}]*(?:{mark}|$)")

    def moved(self, text: str, *, inside: bool) -> str:
        """Return the line for the csv module. With `inside` it begins in a quoted cell."""
        if '"' not in text or not self._candidate.search(text):
            return text
        made, at = [], 0
        while at < len(text):
            if not inside and (found := self._blanks.match(text, at)):
                at = found.end()
            begin = at
            if inside or text.startswith('"', at):
                found = self._quoted.match(text, at if inside else at + 1)
                assert found
                at, inside = found.end(), False
            found = self._rest.match(text, at)
            assert found
            at = found.end() if found.end() > begin else len(text)
            made.append(text[begin:at])
        return "".join(made)


def _unfit(line: Line) -> Problem | None:
    """Return why a line cannot be read: its length, a NUL, or bytes that are not of the encoding."""
    number, text = line
    if text is None:
        return Problem(number, "", "", "LINE_TOO_LONG", f"the line is longer than {MAX_LINE:,} characters", "split it")
    if (at := text.find("\0")) >= 0:
        return Problem(number, f"character {at + 1}", "", "UNFIT_TEXT", "is a NUL character", "remove it")
    if (at := text.find(UNDECODABLE)) >= 0:
        return Problem(
            number,
            f"character {at + 1}",
            "",
            "ENCODING",
            "contains bytes that are not valid in this encoding",
            "save the file as UTF-8, or give its encoding with --encoding",
        )
    return None


def _broken(taken: list[Line], error: Exception) -> Problem:
    number, text = taken[0]
    start = (text or "").strip()[:40]
    if len(taken) > 1 or "unexpected end of data" in str(error):
        message, fix = (
            "a quote opens here and is not closed correctly",
            'close the quote, or write "" for a quote inside a cell',
        )
    else:
        message, fix = f"is not CSV: {error}", 'put a cell that contains quotes in quotes, and write "" for each quote'
    return Problem(number, "", start, "CSV_SYNTAX", message, fix)
