"""This file writes plan.html: every row of a plan, to be searched, filtered and turned page by page, also for 100,000 rows.

The rows are data in the page, one JSON array a line; the script shows a hundred of them at a time and only ever as text.
"""

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from bulkimg.ledger import Ledger, plans
from bulkimg.ledger.files import replacing

_DATA = "/*ROWS*/"
_HEAD = "/*HEAD*/"
_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make one for every row


def write_plan_page(ledger: Ledger, path: Path, title: str, target: str) -> None:
    """The whole page, replaced as a whole; memory does not grow with the plan. StorageError."""
    counts = plans.counts(ledger)
    head = {
        "title": title,
        "target": target,
        "digest": counts.digest,
        "surveyed": counts.surveyed,
        "manifest": ledger.meta("manifest"),
        "actions": dict(counts.actions),
        "fields": dict(counts.fields),
    }
    before, rest = resources.files("bulkimg.report").joinpath("plan.html").read_text("utf-8").split(_HEAD)
    between, after = rest.split(_DATA)
    with replacing(path) as file:
        file.write(before + _harmless(head) + between)
        for text in _rows(ledger):
            file.write(text)
        file.write(after)


def _rows(ledger: Ledger) -> Iterator[str]:
    """`[line, uuid, action, message, [[field, before, after], …]],` a row."""
    for row in plans.rows(ledger):
        changes = [[name, row.before.get(name), value] for name, value in row.send.items()]
        yield f"{_harmless([row.line, row.uuid, row.action, row.message, changes])},\n"


def _harmless(value: Any) -> str:
    """JSON that cannot end the script it stands in, whatever an image is called."""
    text = _json(value)  # ASCII, so U+2028 and its like are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
