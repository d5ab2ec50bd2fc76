"""Find the sheets of a workbook, and choose the one to read."""

from collections.abc import Sequence
from typing import NamedTuple

from bulkimg.errors import UsageError
from bulkimg.manifest.xlsx.markup import RELATION_IDS, Element, main_names
from bulkimg.manifest.xlsx.package import Package, Relation
from bulkimg.manifest.xlsx.refusal import DAMAGED, refused
from bulkimg.values import nearest
from bulkimg.words import count

_NAMES = main_names("workbook", "sheet", "calcPr")
_TRUE = frozenset({"1", "true", "on"})
_BINARY = ".bin"


class Sheet(NamedTuple):
    """A sheet. `kind` is worksheet, or chartsheet and others without cells."""

    name: str
    is_visible: bool
    kind: str
    part: str


class Workbook(NamedTuple):
    """The sheets in their order, and the parts that all of them share ("" for none).

    `is_stale`: the formulas were not calculated when the workbook was saved, so their stored values are not theirs.
    """

    sheets: Sequence[Sheet]
    strings: str
    styles: str
    is_stale: bool


def is_true(value: str | None) -> bool:
    """Return the truth value of an attribute."""
    return value in _TRUE


def read_workbook(package: Package) -> Workbook:
    """Read the list of sheets. Raises Unreadable if this is not an Excel workbook."""
    main = [relation.part for relation in package.relations("").values() if relation.kind == "officeDocument"]
    if len(main) != 1:
        raise _no_workbook(package)
    if main[0].lower().endswith(_BINARY):
        raise refused("OTHER_FORMAT", "is a binary Excel workbook (.xlsb)", "save it as .xlsx")
    relations = package.relations(main[0])
    sheets: list[Sheet] = []
    is_stale = False
    for at, element in enumerate(package.elements(main[0])):
        name = _NAMES.get(element.name)
        if at == 0 and name != "workbook":
            raise _no_workbook(package)
        if name == "sheet" and element.path == ("workbook", "sheets"):
            sheets.append(_sheet(element, relations))
        elif name == "calcPr":
            is_stale |= _is_stale(element)
    return Workbook(sheets, _shared(relations, "sharedStrings"), _shared(relations, "styles"), is_stale)


def _sheet(element: Element, relations: dict[str, Relation]) -> Sheet:
    found = element.attributes
    key = next((found[name] for name in RELATION_IDS if name in found), "")
    relation = relations.get(key)
    if relation is None:
        raise refused(DAMAGED, f"does not contain its sheet {found.get('name', '')[:80]!r}")
    return Sheet(found.get("name", ""), found.get("state", "visible") == "visible", relation.kind, relation.part)


def _is_stale(calculation: Element) -> bool:
    """Return whether the program that wrote the workbook left the calculation to the next one that opens it."""
    found = calculation.attributes
    by_hand = found.get("calcMode") == "manual" and found.get("calcOnSave") in ("0", "false")
    return is_true(found.get("fullCalcOnLoad")) or found.get("calcCompleted") in ("0", "false") or by_hand


def _shared(relations: dict[str, Relation], kind: str) -> str:
    return next((relation.part for relation in relations.values() if relation.kind == kind), "")


def _no_workbook(package: Package) -> Exception:
    if "META-INF/manifest.xml" in package:
        return refused("OTHER_FORMAT", "is an OpenDocument file (.ods), whatever its name says", "save it as .xlsx")
    if "Index/Document.iwa" in package or "Index.zip" in package:
        return refused("OTHER_FORMAT", "is a Numbers document, whatever its name says", "export it as Excel (.xlsx)")
    return refused("OTHER_FORMAT", "is a zip archive, but not an Excel workbook", "save the table as .xlsx")


OURS = ["results", "summary"]  # the sheets of our own workbooks (report/workbook.py); the first is a manifest again


def choose_sheet(name: str, sheets: Sequence[Sheet], wanted: str | None) -> Sheet:
    """Return the sheet that `--sheet` names, or the only visible one. `name` is the workbook's, for messages.

    Raises UsageError if --sheet is needed or names no sheet, and Unreadable if the sheet is hidden.
    """
    tables = [sheet for sheet in sheets if sheet.kind == "worksheet"]
    visible = [sheet for sheet in tables if sheet.is_visible]
    if wanted is not None:
        return _named(name, sheets, wanted)
    if len(visible) == 1 or [sheet.name for sheet in visible] == OURS:
        return visible[0]
    if visible:
        shown = ", ".join(repr(sheet.name) for sheet in visible[:10]) + (" …" if len(visible) > 10 else "")
        raise UsageError(f"{name}: has {count(len(visible), 'visible sheet')} ({shown}); choose one with --sheet NAME")
    if tables:
        raise refused(
            "HIDDEN_SHEET", "all its sheets are hidden", "show the sheet with the table", place=tables[0].name
        )
    raise refused("NO_ROWS", "has no sheet with cells", "put the table into a worksheet")


def _named(name: str, sheets: Sequence[Sheet], wanted: str) -> Sheet:
    """Return the sheet of this name. As in Excel, upper and lower case do not matter."""
    found = [sheet for sheet in sheets if sheet.name == wanted] or [
        sheet for sheet in sheets if sheet.name.casefold() == wanted.casefold()
    ]
    if not found:
        known = [sheet.name for sheet in sheets if sheet.is_visible and sheet.kind == "worksheet"]
        others = nearest(wanted, known) or (f"; it has {', '.join(map(repr, known[:10]))}" if known else "")
        raise UsageError(f"--sheet {wanted!r}: {name} has no such sheet{others}")
    if len(found) > 1:
        raise refused(DAMAGED, f"has two sheets with the name {wanted!r}")
    sheet = found[0]
    if sheet.kind != "worksheet":
        raise UsageError(f"--sheet {wanted!r}: is a {sheet.kind}, which has no cells; name a worksheet")
    if not sheet.is_visible:
        message = "the sheet is hidden, and a hidden sheet is never read"
        raise refused("HIDDEN_SHEET", message, "show it in a spreadsheet program, and save", place=sheet.name)
    return sheet
