"""Read the rows of a sheet: the plain ones quickly, the others with the parser."""

from collections.abc import Iterable, Iterator

from bulkimg.manifest.xlsx.layout import Layout
from bulkimg.manifest.xlsx.markup import new_parser
from bulkimg.manifest.xlsx.plainrows import PlainRows
from bulkimg.manifest.xlsx.rowparser import RowParser
from bulkimg.manifest.xlsx.rows import SheetRow
from bulkimg.manifest.xlsx.skim import Skim, skim


def read_rows(part: str, name: str, chunks: Iterable[bytes], layout: Layout) -> Iterator[SheetRow]:
    """Yield the rows in order, and fill the layout. `name` is the sheet's. Raises Unreadable if it is damaged."""
    rows: list[SheetRow] = []
    general = RowParser(part, name, layout, rows)
    plain = PlainRows(layout)

    def take(text: str, at: int) -> int:
        at, general.number = plain.take(text, at, general.number, rows)
        return at

    parser = new_parser()
    general.follow(parser)
    for _ in skim(parser, part, chunks, Skim("</row>", general.is_between, take)):
        if rows:
            yield from rows
            rows.clear()
