"""Keep image names in the house's form: lower case, one dash between words. Names that begin with `tmp-` are refused."""

import re
from collections import Counter

import bulkimg
from bulkimg.plugins import Problem, Row, hookimpl

FORBIDDEN = "tmp-"
counts: Counter[str] = Counter()  # rows by status, of the runs of this process


@hookimpl
def bulkimg_row(row: Row) -> Row | Problem | None:
    """Return the row with a normal name, or why it is refused."""
    name = row.fields.get("name")
    if not isinstance(name, str):
        return None  # the row sets no name
    normal = re.sub(r"[\s_-]+", "-", name.strip()).lower()
    if normal.startswith(FORBIDDEN):
        return Problem(f"begins with {FORBIDDEN}, which is kept for the build machines", "name", "choose another name")
    return row.with_fields(name=normal)


@hookimpl
def bulkimg_event(event: bulkimg.Event) -> None:
    """Count the outcomes, and print them at the end."""
    if isinstance(event, bulkimg.Settled):
        counts.update(outcome.status.value for outcome in event.outcomes)
    elif isinstance(event, bulkimg.Summary):
        counted = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
        print(f"house-names counted {counted or 'no rows'}")
