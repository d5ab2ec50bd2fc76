"""Read XML in bounded memory. No document type is allowed, so no entity is expanded and nothing else is fetched."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from xml.parsers import expat

from bulkimg.manifest.xlsx.refusal import DAMAGED, refused

if TYPE_CHECKING:
    from xml.parsers.expat import XMLParserType

LONGEST_TAG = 1 << 20  # bytes
DEEPEST = 200  # elements in each other
LONGEST_TEXT = 1 << 20  # characters

# The two forms of the format: transitional, as all programs write it by default, and strict.
MAIN = ("http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://purl.oclc.org/ooxml/spreadsheetml/main")
RELATION_IDS = (
    "http://schemas.openxmlformats.org/officeDocument/2006/relationships id",
    "http://purl.oclc.org/ooxml/officeDocument/relationships id",
)
SPACE = "http://www.w3.org/XML/1998/namespace space"

Attributes = dict[str, str]


class Element(NamedTuple):
    """A start tag. `name` is its namespace, a blank and its name. `path` holds the names around it, without these."""

    name: str
    attributes: Attributes
    path: tuple[str, ...]


def new_parser() -> "XMLParserType":
    """Return a parser that knows namespaces and refuses a document type."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_doctype
    return parser


def _refuse_doctype(*_: Any) -> NoReturn:
    raise refused(DAMAGED, "contains a document type declaration, which no spreadsheet program writes")


def feed(parser: "XMLParserType", part: str, chunks: Iterable[bytes]) -> Iterator[None]:
    """Parse the chunks, and return after each of them. Raises Unreadable if they are not XML."""
    fed = 0
    try:
        for chunk in chunks:
            parser.Parse(chunk, False)
            fed += len(chunk)
            if fed - parser.CurrentByteIndex > LONGEST_TAG + len(chunk):
                raise refused(DAMAGED, f"{part[:80]} contains a tag that is longer than {LONGEST_TAG:,} bytes")
            yield
        parser.Parse(b"", True)
        yield
    except expat.ExpatError as error:
        raise refused(DAMAGED, f"{part[:80]} is not valid XML: {expat.ErrorString(error.code)}") from None


def elements(part: str, chunks: Iterable[bytes]) -> Iterator[Element]:
    """Yield the start tags of a part that is small."""
    found: list[Element] = []
    path: list[str] = []

    def start(name: str, attributes: Attributes) -> None:
        found.append(Element(name, attributes, tuple(path)))
        path.append(name.rpartition(" ")[2])
        if len(path) > DEEPEST:
            raise too_deep(part)

    parser = new_parser()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: path.pop()
    for _ in feed(parser, part, chunks):
        yield from found
        found.clear()


def too_deep(part: str) -> Exception:
    return refused(DAMAGED, f"{part[:80]} has more than {DEEPEST} elements in each other")


def main_names(*names: str) -> dict[str, str]:
    """Return the names of elements by what the parser calls them, in both forms of the format."""
    return {f"{space} {name}": name for space in MAIN for name in names}
