"""Read the many plain elements of a part without the parser, and everything else with it.

Nearly every row of a sheet looks the same. Where the parser is between two elements, and the text that follows is one
of these plain elements in full, its meaning is certain. The parser then does not need to see it. This is four times
faster.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING
from xml.parsers import expat

from bulkimg.manifest.xlsx.markup import LONGEST_TAG, MAIN, feed
from bulkimg.manifest.xlsx.refusal import DAMAGED, refused

if TYPE_CHECKING:
    from xml.parsers.expat import XMLParserType

# Characters that stand for themselves in XML. Others (such as & and CR) are left to the parser.
PLAIN_TEXT = r"[^<>&\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]*+"
_ENCODING = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([\w.-]+)""")
_UTF_8 = frozenset({b"utf-8", b"utf8", b"us-ascii", b"ascii"})
_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0", b"<\0")
_MOST_WAITING = 1 << 18  # characters without the end of an element


class Skim:
    """How to read the plain elements of a part.

    `closing` ends each of them, such as `</row>`. `is_between` tells whether the parser is between two of them.
    `take(text, at)` reads plain elements from a place on and returns the place behind the last one.
    """

    def __init__(self, closing: str, is_between: Callable[[], bool], take: Callable[[str, int], int]) -> None:
        self.closing, self.is_between, self.take = closing, is_between, take


def skim(parser: "XMLParserType", part: str, chunks: Iterable[bytes], how: Skim) -> Iterator[None]:
    """Read a part, and return now and then. Raises Unreadable if it is not XML."""
    rest = iter(chunks)
    first = next(rest, b"")
    if _is_utf_8(first):
        yield from _skim(parser, part, _decoded(part, chain((first,), rest)), how)
    else:
        yield from feed(parser, part, chain((first,), rest))


def _is_utf_8(first: bytes) -> bool:
    if first.startswith(_MARKS):
        return False
    declared = _ENCODING.match(first.removeprefix(codecs.BOM_UTF8))
    return declared is None or declared[1].lower() in _UTF_8


def _decoded(part: str, chunks: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        for chunk in chunks:
            yield decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise refused(DAMAGED, f"{part[:80]} is not valid UTF-8: {error.reason}") from None


class _Default:
    """Watch what a name without a prefix means: it must mean the same, a name of the format, in the whole part."""

    def __init__(self, parser: "XMLParserType") -> None:
        self.is_main = False
        self._declared = 0
        parser.StartNamespaceDeclHandler = self._declare

    def _declare(self, prefix: str | None, uri: str | None) -> None:
        if prefix is None:
            self._declared += 1
            self.is_main = self._declared == 1 and uri in MAIN


def _skim(parser: "XMLParserType", part: str, texts: Iterable[str], how: Skim) -> Iterator[None]:
    pieces = _Pieces(parser, part)
    waiting = ""
    try:
        for more in texts:
            waiting = _read(waiting + more if waiting else more, pieces, how)
            if len(waiting) > _MOST_WAITING:
                pieces.parse(waiting)
                waiting = ""
            yield
        parser.Parse(waiting, True)
        yield
    except expat.ExpatError as error:
        raise refused(DAMAGED, f"{part[:80]} is not valid XML: {expat.ErrorString(error.code)}") from None


def _read(text: str, pieces: "_Pieces", how: Skim) -> str:
    """Read the elements that are complete. Returns the rest of the text."""
    at = 0
    while True:
        if pieces.are_certain and how.is_between():
            at = how.take(text, at)
        end = text.find(how.closing, at)
        if end < 0:
            return text[at:]
        end += len(how.closing)
        pieces.parse(text[at:end])
        at = end


class _Pieces:
    """Give pieces of the text to the parser, and know whether what follows can be read without it."""

    def __init__(self, parser: "XMLParserType", part: str) -> None:
        self._parser = parser
        self._default = _Default(parser)
        self._unfinished = _Unfinished(parser, part)
        self._is_first, self._is_plain = True, True

    @property
    def are_certain(self) -> bool:
        """Return whether an element between two pieces is what it seems to be.

        A comment may hold an end that is none. So from the first one on, the parser reads everything.
        """
        return self._is_plain and self._default.is_main

    def parse(self, piece: str) -> None:
        """Let the parser read a piece."""
        self._is_plain = self._is_plain and "<!" not in piece and piece.find("<?", 1 if self._is_first else 0) < 0
        self._is_first = False
        self._parser.Parse(piece, False)
        self._unfinished.add(len(piece))


class _Unfinished:
    """Refuse a tag that never ends. The parser would keep it and read it again and again."""

    def __init__(self, parser: "XMLParserType", part: str) -> None:
        self._parser, self._part = parser, part
        self._index, self._size = -1, 0

    def add(self, size: int) -> None:
        """Count what the parser was given."""
        index = self._parser.CurrentByteIndex
        self._size = 0 if index != self._index else self._size + size
        self._index = index
        if self._size > LONGEST_TAG:
            raise refused(DAMAGED, f"{self._part[:80]} contains a tag that is longer than {LONGEST_TAG:,} bytes")
