"""Read workbooks in tests with code that is independent of bulkimg: calamine for the texts, expat for the XML."""

import io
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from python_calamine import CalamineWorkbook

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def texts(file: Path | io.BytesIO, sheet: str = "results") -> list[list[str]]:
    """Return the cells of a sheet. A blank one is ""."""
    rows = CalamineWorkbook.from_object(file).get_sheet_by_name(sheet).to_python(skip_empty_area=False)
    for row in rows:
        for cell in row:
            assert type(cell) is str, f"{cell!r} is no text"
    return rows  # type: ignore[return-value] # as was just checked


def xml(file: Path | io.BytesIO, part: str) -> ElementTree.Element:
    """Return a part of the package."""
    with zipfile.ZipFile(file) as package:
        assert package.testzip() is None
        return ElementTree.fromstring(package.read(part))


def tags(root: ElementTree.Element) -> set[str]:
    """Return the names of all elements."""
    return {element.tag.removeprefix(MAIN) for element in root.iter()}


def children(root: ElementTree.Element) -> list[str]:
    """Return the names of the elements right below."""
    return [element.tag.removeprefix(MAIN) for element in root]
