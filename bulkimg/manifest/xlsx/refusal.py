"""Refuse a workbook as a whole."""

from bulkimg.manifest.source import Unreadable
from bulkimg.model import Problem

DAMAGED = "WORKBOOK_DAMAGED"
TOO_LARGE = "WORKBOOK_TOO_LARGE"
SAVE_AGAIN = "open it in a spreadsheet program and save it as .xlsx again"


def refused(code: str, message: str, fix: str = SAVE_AGAIN, *, place: str = "", line: int = 1) -> Unreadable:
    """Return the error that ends the reading. `place` names a sheet or a cell."""
    return Unreadable(Problem(line, "", "", code, message, fix, fatal=True, cell=place))
