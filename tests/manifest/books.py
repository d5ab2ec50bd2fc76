"""Make workbooks part by part: what no library writes, but a user may have."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
STRICT_OFFICE = "http://purl.oclc.org/ooxml/officeDocument/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"

Parts = dict[str, str | bytes]


def text(place: str, value: str, attributes: str = "") -> str:
    """Return a cell with a text of its own."""
    return f'<c r="{place}" t="inlineStr"{attributes}><is><t xml:space="preserve">{escape(value)}</t></is></c>'


def row(number: int, *cells: str, attributes: str = "") -> str:
    """Return a row: texts become cells from column A on, and what begins with `<` is taken as it is."""
    made = [
        cell if cell.startswith("<c") or not cell else text(f"{chr(65 + at)}{number}", cell)
        for at, cell in enumerate(cells)
    ]
    return f'<row r="{number}"{attributes}>{"".join(made)}</row>'


def sheet(*rows: str, before: str = "", after: str = "", main: str = MAIN) -> str:
    """Return the part of a sheet."""
    return f'<worksheet xmlns="{main}">{before}<sheetData>{"".join(rows)}</sheetData>{after}</worksheet>'


def strings(*items: str, main: str = MAIN) -> str:
    """Return a table of shared strings: texts, or items as they are."""
    made = [item if item.startswith("<si") else f"<si><t>{escape(item)}</t></si>" for item in items]
    return f'<sst xmlns="{main}">{"".join(made)}</sst>'


def styles(*codes: str | int) -> str:
    """Return styles: number 0 is General, and each further one has this format, by its code or its number."""
    own = [code for code in codes if isinstance(code, str)]
    numbers = [code if isinstance(code, int) else 164 + own.index(code) for code in codes]
    formats = "".join(f'<numFmt numFmtId="{164 + at}" formatCode="{escape(code, {chr(34): "&quot;"})}"/>' for at, code in enumerate(own))  # fmt: skip
    cells = "".join(f'<xf numFmtId="{number}"/>' for number in (0, *numbers))
    return f'<styleSheet xmlns="{MAIN}"><numFmts>{formats}</numFmts><cellXfs>{cells}</cellXfs></styleSheet>'


def relations(found: Mapping[str, tuple[str, str]], office: str = OFFICE) -> str:
    """Return relations: id → (kind, target)."""
    made = [f'<Relationship Id="{key}" Type="{office}/{kind}" Target="{target}"/>' for key, (kind, target) in found.items()]  # fmt: skip
    return f'<Relationships xmlns="{PACKAGE}">{"".join(made)}</Relationships>'


def parts(
    sheets: Sequence[tuple[str, str]] | Mapping[str, str] | str,
    *,
    shared: str = "",
    style: str = "",
    states: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    calculation: str = "",
    main: str = MAIN,
    office: str = OFFICE,
) -> Parts:
    """Return the parts of a workbook with these sheets: name and part. One alone is called Sheet1."""
    named = [("Sheet1", sheets)] if isinstance(sheets, str) else list(dict(sheets).items())
    made: Parts = {"_rels/.rels": relations({"rId1": ("officeDocument", "xl/workbook.xml")}, office)}
    listed, found = "", {}
    for number, (name, part) in enumerate(named, 1):
        state = f' state="{states[name]}"' if states and name in states else ""
        listed += f'<sheet name="{escape(name)}" sheetId="{number}" r:id="s{number}"{state}/>'
        found[f"s{number}"] = ((kinds or {}).get(name, "worksheet"), f"worksheets/sheet{number}.xml")
        made[f"xl/worksheets/sheet{number}.xml"] = part
    made["xl/workbook.xml"] = (
        f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets>{calculation}</workbook>'
    )
    if shared:
        made["xl/sharedStrings.xml"] = shared
        found["strings"] = ("sharedStrings", "sharedStrings.xml")
    if style:
        made["xl/styles.xml"] = style
        found["styles"] = ("styles", "/xl/styles.xml")
    made["xl/_rels/workbook.xml.rels"] = relations(found, office)
    return made


def zipped(made: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return the parts as an archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, part in made.items():
            archive.writestr(name, part)
    return content.getvalue()
