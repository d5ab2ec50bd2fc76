"""Say what is wrong with a damaged record: too few or too many cells, or cells that cannot be used."""

from bulkimg.blank import is_blank
from bulkimg.cells import REFUSED_CELL
from bulkimg.manifest.header import Bound
from bulkimg.manifest.tabular import DELIMITERS, Record
from bulkimg.model import Problem, Row

_FULL_WIDTH = "\uff0c\uff1b\u3001\uff5c"  # what a Chinese keyboard types for , ; and |


def cell_count(line: int, cells: list[str], wanted: int) -> Problem:
    """Return the problem of a record with too few or too many cells, with the fix for this mistake."""
    message = f"has {len(cells)} {'cell' if len(cells) == 1 else 'cells'}, but the header has {wanted}"
    missing, more = wanted - len(cells), len(cells) - wanted
    if any(char in cells[0] for char in _FULL_WIDTH) and missing > 0:
        fix = "replace the full-width commas or semicolons with plain ones"
    elif missing > 0 and any(mark in cells[0] and cells[0].count(mark) + 1 >= wanted for mark in DELIMITERS):
        fix = "use the same delimiter as the header"
    elif missing > 0:
        fix = f"add {_delimiters(missing)} at the end of the line (a blank cell leaves the field unchanged)"
    elif all(is_blank(cell) for cell in cells[wanted:]):
        fix = f"remove the {_delimiters(more)} at the end of the line"
    else:
        fix = "quote cells that contain the delimiter"
    return Problem(line, "", "", "CELL_COUNT", message, fix)


def _delimiters(count: int) -> str:
    return f"{count} {'delimiter' if count == 1 else 'delimiters'}"


def with_bad_cells(row: Row, record: Record, bound: Bound) -> Row:
    """Return the row with the problems of its cells in place of what the checks say about their texts."""
    bad = {bound.targets[at] or bound.names[at] for at, _ in record.bad if at >= 0}
    is_blank_otherwise = all(map(is_blank, record.cells))
    others = () if is_blank_otherwise else [problem for problem in row.problems if problem.column not in bad]
    row.problems = (*(problem for _, problem in record.bad), *others)
    row.warnings = tuple(warning for warning in row.warnings if warning.column not in bad)
    row.cells = _still_refused(record, bound)
    return row


def _still_refused(record: Record, bound: Bound) -> tuple[str, ...]:
    """Return the cells as a workbook of results keeps them: the bad ones end with a mark that no field accepts.

    Their texts alone do not say why they were refused: "46327" was a date, and would be taken as a name.
    """
    places = {at if at >= 0 else bound.uuid for at, _ in record.bad}
    # The mark alone would be blank.
    marked = (("?" if is_blank(cell) else cell.rstrip(REFUSED_CELL)) + REFUSED_CELL for cell in record.cells)
    return tuple(
        mark if at in places else cell for at, (cell, mark) in enumerate(zip(record.cells, marked, strict=True))
    )
