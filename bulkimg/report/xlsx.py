"""Write texts as an .xlsx workbook, row by row, in bounded memory. Every cell is a text, so no cell can run.

XlsxWriter is not used for this: with `constant_memory` it writes a text such as `<r>…</r>` as XML without escaping it
(3.3.1), so a value could add a formula to the sheet. It also needs four times as long. A test reads what is written here
with another library, and compares the parts with those that XlsxWriter writes.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from bulkimg.model import utf16_length

MOST_ROWS = 1_048_576  # a sheet's limits in Excel
MOST_COLUMNS = 16_384
LONGEST = 32_767  # UTF-16 units of a cell
_LEVEL = 4  # of zlib: a third quicker than 6, and a tenth larger
_TEXT = 49  # Excel's own number format `@`
_TOGETHER = 200  # rows a write
_NEEDS_ZIP64 = (1 << 31) - 1  # bytes of a part. Smaller parts are written without, because not every reader knows it


class Style(NamedTuple):
    """How a row looks. Colours are six hexadecimal digits; "" is the program's own."""

    fill: str = ""
    ink: str = ""
    bold: bool = False


Line = tuple[int, Sequence[str]]  # the number of its style, and its texts


class Sheet(NamedTuple):
    """One sheet. `lines` yields it from its first row each time. `widths` are in characters.

    `is_table`: the first row is a header, which stays in view and has filters.
    """

    name: str
    lines: Callable[[], Iterator[Line]]
    widths: Sequence[float]
    is_table: bool = False


def fitted(text: str) -> str:
    """Return the text as a cell holds it: the same text, unless it is too long or no reader would bring it back.

    Characters that XML cannot hold are written out, such as `\\ud800`. A text that is cut says so at its end.
    """
    if _LOST.search(text):
        text = _LOST.sub(lambda found: ascii(found.group())[1:-1], text)
    if 2 * len(text) <= LONGEST or (length := utf16_length(text)) <= LONGEST:
        return text
    mark = f"… (cut: it has {length:,} characters)"
    room = LONGEST - len(mark) - 1  # one is left for a caller's own mark
    return text.encode("utf-16-le")[: 2 * room].decode("utf-16-le", "ignore") + mark


# A reader brings control characters back from Excel's escapes, but not these.
_LOST = re.compile("[\ufffe\uffff\ud800-\udfff]")


def write_workbook(file: BinaryIO, sheets: Sequence[Sheet], styles: Sequence[Style]) -> None:
    """Write a workbook into an empty file. Every text must be `fitted`."""
    try:
        _write(file, sheets, styles, is_large=False)
    except _TooLarge:
        file.seek(0)
        file.truncate()
        _write(file, sheets, styles, is_large=True)


class _TooLarge(Exception):
    """A part is larger than a zip file without zip64 can hold."""


def _write(file: BinaryIO, sheets: Sequence[Sheet], styles: Sequence[Style], *, is_large: bool) -> None:
    with ZipFile(file, "w", ZIP_DEFLATED, compresslevel=_LEVEL) as package:
        package.writestr(ZipInfo("[Content_Types].xml"), _content_types(len(sheets)), ZIP_DEFLATED)
        package.writestr(ZipInfo("_rels/.rels"), _relationships([("officeDocument", "xl/workbook.xml")]), ZIP_DEFLATED)
        parts = [("worksheet", f"worksheets/sheet{number}.xml") for number in range(1, len(sheets) + 1)]
        relationships = _relationships([*parts, ("styles", "styles.xml")])
        package.writestr(ZipInfo("xl/_rels/workbook.xml.rels"), relationships, ZIP_DEFLATED)
        package.writestr(ZipInfo("xl/styles.xml"), _styles(styles), ZIP_DEFLATED)
        ranges = []
        for number, sheet in enumerate(sheets, 1):
            part = ZipInfo(f"xl/worksheets/sheet{number}.xml")
            part.compress_type = ZIP_DEFLATED
            with package.open(part, "w", force_zip64=is_large) as entry:
                ranges.append(_write_sheet(_Part(entry.write, is_large=is_large), sheet, is_first=number == 1))
        package.writestr(ZipInfo("xl/workbook.xml"), _workbook(sheets, ranges), ZIP_DEFLATED)


class _Part:
    """Write one part, and stop before it is too large."""

    def __init__(self, write: Callable[[bytes], object], *, is_large: bool) -> None:
        self._write = write
        self._room = _NEEDS_ZIP64 if not is_large else 1 << 62

    def write(self, text: str) -> None:
        data = text.encode()
        self._room -= len(data)
        if self._room < 0:
            raise _TooLarge
        self._write(data)


def _write_sheet(part: _Part, sheet: Sheet, *, is_first: bool) -> str:
    """Write a sheet. Returns the range of its cells."""
    pane = '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/><selection pane="bottomLeft"/>'
    selected = ' tabSelected="1"' if is_first else ""
    widths = "".join(
        f'<col min="{at}" max="{at}" width="{width}" style="1" customWidth="1"/>'
        for at, width in enumerate(sheet.widths, 1)
    )
    part.write(
        f'{_DECLARATION}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView{selected} workbookViewId="0">'
        f"{pane if sheet.is_table else ''}</sheetView></sheetViews>"
        f'<sheetFormatPr defaultRowHeight="15"/><cols>{widths}</cols><sheetData>'
    )
    rows = _write_lines(part, sheet)
    last = f"{column_name(len(sheet.widths))}{max(1, rows)}"
    filters = f'<autoFilter ref="A1:{last}"/>' if sheet.is_table else ""
    part.write(
        f'</sheetData>{filters}<pageMargins left="0.7" right="0.7" top="0.75" bottom="0.75" header="0.3" footer="0.3"/>'
        f'<ignoredErrors><ignoredError sqref="A1:{last}" numberStoredAsText="1"/></ignoredErrors></worksheet>'
    )
    return f"$A$1:${column_name(len(sheet.widths))}${max(1, rows)}"


def _write_lines(part: _Part, sheet: Sheet) -> int:
    columns = [column_name(number) for number in range(1, len(sheet.widths) + 1)]
    number, waiting = 0, []
    for number, (style, texts) in enumerate(sheet.lines(), 1):
        begin, middle = f'{number}" s="{style}" t="inlineStr"><is>', "</is></c>"
        cells = "".join(
            [
                f'<c r="{column}{begin}{_shown(text)}{middle}'
                for column, text in zip(columns, texts, strict=True)
                if text
            ]
        )
        waiting.append(f'<row r="{number}" s="{style}" customFormat="1">{cells}</row>')
        if len(waiting) == _TOGETHER:
            part.write("".join(waiting))
            waiting.clear()
    part.write("".join(waiting))
    return number


_UNUSUAL = re.compile("[\x00-\x08\x0b-\x1f<>&\ufffe\uffff\ud800-\udfff]|_(?=x[0-9A-Fa-f]{4}_)|\\A[ \t\n]|[ \t\n]\\Z")
_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;", " ": " ", "\t": "\t", "\n": "\n"}


def _shown(text: str) -> str:
    """Return the text as the content of a cell (ECMA-376, 22.9.2.19: `_x0001_` is a character that XML cannot hold).

    A text that holds such an escape itself has its underscore escaped.
    """
    if not _UNUSUAL.search(text):
        return f"<t>{text}</t>"
    escaped = _UNUSUAL.sub(lambda found: _MARKUP.get(found.group()) or f"_x{ord(found.group()):04X}_", text)
    return f'<t xml:space="preserve">{escaped}</t>'


def column_name(number: int) -> str:
    """Return the letters of a column that is counted from 1."""
    name = ""
    while number:
        number, letter = divmod(number - 1, 26)
        name = chr(ord("A") + letter) + name
    return name


# -- the small parts ----------------------------------------------------------------------------------------------------

_DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_CONTENT = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def _content_types(sheets: int) -> str:
    parts = {"xl/styles.xml": "styles", "xl/workbook.xml": "sheet.main"}
    parts |= {f"xl/worksheets/sheet{number}.xml": "worksheet" for number in range(1, sheets + 1)}
    overrides = "".join(
        f'<Override PartName="/{name}" ContentType="{_CONTENT}.{kind}+xml"/>' for name, kind in parts.items()
    )
    return (
        f'{_DECLARATION}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{overrides}</Types>'
    )


def _relationships(targets: Sequence[tuple[str, str]]) -> str:
    found = "".join(
        f'<Relationship Id="rId{number}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    return f'{_DECLARATION}<Relationships xmlns="{_PACKAGE}/relationships">{found}</Relationships>'


def _workbook(sheets: Sequence[Sheet], ranges: Sequence[str]) -> str:
    """Return the list of sheets. `_FilterDatabase` is how Excel itself names the range of the filters."""
    named = "".join(
        f'<sheet name="{sheet.name}" sheetId="{number}" r:id="rId{number}"/>' for number, sheet in enumerate(sheets, 1)
    )
    filters = "".join(
        f'<definedName name="_xlnm._FilterDatabase" localSheetId="{at}" hidden="1">{sheet.name}!{cells}</definedName>'
        for at, (sheet, cells) in enumerate(zip(sheets, ranges, strict=True))
        if sheet.is_table
    )
    names = f"<definedNames>{filters}</definedNames>" if filters else ""
    return (
        f'{_DECLARATION}<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><bookViews><workbookView xWindow="240" yWindow="15" '
        f'windowWidth="24000" windowHeight="12000"/></bookViews><sheets>{named}</sheets>{names}</workbook>'
    )


def _styles(styles: Sequence[Style]) -> str:
    """Return the styles. Number 0 is the program's own; number 1 and the following are `styles`, as text.

    A cell that is edited stays a text, so `0012` does not become a number.
    """
    face = '<sz val="11"/>{}<name val="Calibri"/><family val="2"/>'
    fonts = [f"<font>{face.format('')}</font>"]
    fills = ['<fill><patternFill patternType="none"/></fill>', '<fill><patternFill patternType="gray125"/></fill>']
    formats = ['<xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>']
    for style in styles:
        ink = f'<color rgb="FF{style.ink}"/>' if style.ink else ""
        fonts.append(f"<font>{'<b/>' if style.bold else ''}{face.format(ink)}</font>")
        if style.fill:
            colour = f'<fgColor rgb="FF{style.fill}"/><bgColor indexed="64"/>'
            fills.append(f'<fill><patternFill patternType="solid">{colour}</patternFill></fill>')
        fill = len(fills) - 1 if style.fill else 0
        formats.append(
            f'<xf numFmtId="{_TEXT}" fontId="{len(fonts) - 1}" fillId="{fill}" borderId="0" xfId="0" applyNumberFormat="1" '
            'applyFont="1" applyFill="1" applyAlignment="1"><alignment vertical="top"/></xf>'
        )
    return (
        f'{_DECLARATION}<styleSheet xmlns="{_MAIN}"><fonts count="{len(fonts)}">{"".join(fonts)}</fonts>'
        f'<fills count="{len(fills)}">{"".join(fills)}</fills>'
        '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
        '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
        f'<cellXfs count="{len(formats)}">{"".join(formats)}</cellXfs>'
        '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>'
    )
