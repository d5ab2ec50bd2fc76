"""Keep the shared strings of a workbook. A sheet's cells point to them by number."""

import re
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from bulkimg.manifest.xlsx.markup import DEEPEST, SPACE, Attributes, main_names, new_parser, too_deep
from bulkimg.manifest.xlsx.refusal import DAMAGED, TOO_LARGE, refused
from bulkimg.manifest.xlsx.skim import PLAIN_TEXT, Skim, skim

if TYPE_CHECKING:
    from xml.parsers.expat import XMLParserType

MOST = 1 << 24  # strings
MOST_BYTES = 1 << 29  # of all of them
LONGEST = 32_767  # characters of a cell, by Excel's limits
PRESERVE = ' xml:space="preserve"'
WHITE = " \t\r\n"
_NAMES = main_names("sst", "si", "r", "t", "rPh")
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
_PLAIN = re.compile(rf"<si><t({PRESERVE})?>({PLAIN_TEXT})</t></si>")
_PLAIN_RUN = re.compile(rf"(?:<si><t(?:{PRESERVE})?>{PLAIN_TEXT}</t></si>)++")
_REMEMBERED = 5000  # strings that are kept decoded
_SHORT = 255  # characters of each of them


def unescaped(text: str) -> str:
    """Return the text with `_x000D_` and the like replaced by their characters, as ECMA-376 (ST_Xstring) has it."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def as_written(text: str, attributes: Attributes) -> str:
    """Return the text of a `t` element. White space at its ends counts only with xml:space="preserve"."""
    return text if attributes.get(SPACE) == "preserve" else text.strip(WHITE)


class SharedStrings:
    """The strings in their order, in one block of UTF-8: half the memory of a list."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._ends = array("Q", [0])
        self._known: dict[str, str] = {}

    def extend(self, texts: Sequence[str]) -> None:
        """Add the next strings. Raises Unreadable if there are too many."""
        if len(self) + len(texts) > MOST or len(self._block) > MOST_BYTES:
            message = f"has more than {MOST:,} texts, or more than {MOST_BYTES >> 20} MiB of them"
            raise refused(TOO_LARGE, message, "split the table into several workbooks")
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = accumulate(map(len, encoded), initial=len(self._block))
        next(ends)
        self._ends.extend(ends)
        self._block += b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def find(self, number: str) -> str:
        """Return the string of a number as a cell has it. Raises Unreadable if there is none."""
        if (known := self._known.get(number)) is not None:
            return known
        try:
            at = int(number) if number.isdecimal() else len(self)
            text = self._block[self._ends[at] : self._ends[at + 1]].decode("utf-8", "surrogatepass")
        except (ValueError, IndexError, OverflowError):
            raise refused(DAMAGED, f"the sheet is damaged: it has no shared text {number[:20]!r}") from None
        if len(self._known) < _REMEMBERED and len(text) <= _SHORT:
            self._known[number] = text
        return text


def read_strings(part: str, chunks: Iterable[bytes]) -> SharedStrings:
    """Read the table of shared strings: plain ones, and rich text without its phonetic readings."""
    strings = SharedStrings()
    general = _StringParser(part, strings)
    parser = new_parser()
    general.follow(parser)
    for _ in skim(parser, part, chunks, Skim("</si>", general.is_between, lambda text, at: _take(strings, text, at))):
        pass
    return strings


def _take(strings: SharedStrings, text: str, at: int) -> int:
    """Add the plain strings from a place on. Returns the place behind the last one."""
    found = _PLAIN_RUN.match(text, at)
    if found is None:
        return at
    plain = [text if preserve else text.strip(WHITE) for preserve, text in _PLAIN.findall(found[0])]
    strings.extend(list(map(unescaped, plain)) if "_x" in found[0] else plain)
    return found.end()


class _StringParser:
    """Follow the parser through the strings that are not plain."""

    def __init__(self, part: str, strings: SharedStrings) -> None:
        self._part, self._strings = part, strings
        self._level = 0  # of elements in each other
        self._phonetic = 0  # the level of an open phonetic reading
        self._runs: list[str] = []  # the finished runs of the present string
        self._pieces: list[str] | None = None  # of the present run
        self._size = 0
        self._written: Attributes = {}

    def follow(self, parser: "XMLParserType") -> None:
        """Set the parser's handlers."""
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data

    def is_between(self) -> bool:
        """Return whether the parser is between two strings."""
        return self._level == 1

    def _start(self, element: str, found: Attributes) -> None:
        self._level += 1
        if self._level > DEEPEST:
            raise too_deep(self._part)
        name = _NAMES.get(element)
        if self._level == 1 and name != "sst":
            raise refused(DAMAGED, f"{self._part[:80]} is not a table of strings")
        if self._phonetic:
            return
        if name == "rPh":
            self._phonetic = self._level
        elif name == "t":
            self._pieces, self._written = [], found
        elif name == "si":
            self._runs, self._size = [], 0

    def _data(self, data: str) -> None:
        if self._pieces is not None and not self._phonetic:
            self._pieces.append(data)
            self._size += len(data)
            if self._size > 7 * LONGEST:  # as long as a cell where every character is escaped
                raise refused(DAMAGED, f"shared text {len(self._strings)} is longer than a cell can be")

    def _end(self, element: str) -> None:
        self._level -= 1
        if self._phonetic:
            self._phonetic = 0 if self._level < self._phonetic else self._phonetic
            return
        name = _NAMES.get(element)
        if name == "t" and self._pieces is not None:
            self._runs.append(unescaped(as_written("".join(self._pieces), self._written)))
            self._pieces = None
        elif name == "si":
            self._strings.extend(("".join(self._runs),))
