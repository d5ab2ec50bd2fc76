"""Write plan.html: every row of a plan, to search, filter and page through, also for 100,000 rows.

The header and the first rows are HTML, so the page says the same if scripts are blocked. All rows are also data in the
page, one JSON array a line. The script shows a hundred of them at a time, always as text. The page's policy lets no
other script run.
"""

import json
import os.path
from collections.abc import Iterator
from itertools import chain
from typing import Any

from markupsafe import Markup

from bulkimg.ledger import Ledger, RunDirectory, plans
from bulkimg.ledger.files import replacing
from bulkimg.model import TAGS, PlanCounts
from bulkimg.report import render
from bulkimg.report.difference import clean, common, shown, units
from bulkimg.report.escaping import code

STATIC = 100  # rows in the HTML; the script shows as many at a time
LABELS = {"update": "changes", "unchanged": "unchanged", "conflict": "conflict", "missing": "no such image"}
_json = json.JSONEncoder(separators=(",", ":")).encode  # made once, because json.dumps makes one for every row


def write_plan_page(
    ledger: Ledger, directory: RunDirectory, target: str, refused: str = "", *, is_open: bool = True
) -> None:
    """Write the page and replace it as a whole. Memory does not grow with the plan. Raises StorageError.

    `refused` is why a guard would refuse the plan's apply, or "". `is_open`: it can still be applied.
    """
    counts = plans.counts(ledger)
    added = added_fields(ledger)
    checksum = f" --checksum {counts.digest[:16]}" if counts.digest else ""
    pieces = render.page(
        "plan.html",
        styles=("page.css", "plan.css"),
        script="plan.js",
        run=directory.run_id,
        facts=list(_facts(ledger, counts, target)),
        counts=counts,
        refused=refused,
        is_open=is_open,
        apply=f"bulkimg apply {directory.words}{checksum}",
        labels=LABELS,
        added=added,
        transitions=transitions(counts),
        shown=_rows_shown(counts.images),
        rows=((row, _changes(row)) for row in plans.rows(ledger, limit=STATIC)),
        data=map(Markup, chain([_head(counts, added)], _data(ledger), ["]}"])),
    )
    with replacing(directory.path / "plan.html") as file:
        for piece in pieces:
            file.write(piece)


def added_fields(ledger: Ledger) -> tuple[str, ...]:
    """Return the fields whose values are added to the image's own."""
    return TAGS if ledger.meta("settings", {}).get("tags_mode") == "add" else ()


def transitions(counts: PlanCounts) -> list[tuple[list[Any], int]]:
    """Return the most frequent changes as (change, images)."""
    return [(changed(name, before, after), images) for name, before, after, images in counts.transitions]


# -- the header -----------------------------------------------------------------------------------------------------------


def _facts(ledger: Ledger, counts: PlanCounts, target: str) -> Iterator[tuple[str, str | Markup]]:
    """Yield what, where, who, when and why, as far as they are known."""
    manifest, by = ledger.meta("manifest") or "", ledger.meta("by") or {}
    yield "Target", code(target) or ""
    if manifest:
        yield "Manifest", os.path.normpath(manifest)
    if who := "@".join(str(by[key]) for key in ("user", "host") if by.get(key)):
        yield "Planned by", who
    if begun := ledger.meta("started_at") or ledger.meta("created_at"):
        yield "Planned at", render.moment(begun)
    if note := ledger.meta("note"):
        yield "Note", note
    yield "Images", "read before planning" if counts.surveyed else "not read; each row is sent as the manifest has it"
    if counts.digest:
        yield "Plan checksum", code(counts.digest) or ""


def _rows_shown(count: int) -> str:
    if count <= STATIC:
        return f"{count:,} {'row' if count == 1 else 'rows'}"
    return f"The first {STATIC} of {count:,} rows. The rest is in plan.csv."


# -- the rows as data -----------------------------------------------------------------------------------------------------


def _changes(row: plans.PlannedRow) -> list[list[Any]]:
    return [changed(name, row.before.get(name), value) for name, value in row.send.items()]


def changed(name: str, before: Any, after: Any) -> list[Any]:
    """Return `[field, before, after]`. If the texts are similar, add the lengths of their common beginning and end.

    This is computed here and not in the script, because scripts and Python disagree on what one character is.
    """
    before, after = clean(before), clean(after)
    old, new = shown(before), shown(after)
    if isinstance(before, bool) or not (cut := common(old, new)):
        return [name, before, after]
    return [name, before, after, units(new[: cut[0]]), units(new[len(new) - cut[1] :])]


def _head(counts: PlanCounts, added: tuple[str, ...]) -> str:
    head = {"surveyed": counts.surveyed, "added": added, "labels": LABELS, "fields": dict(counts.fields)}
    return f'{{"head":{_harmless(head)},\n"rows":['


def _data(ledger: Ledger) -> Iterator[str]:
    """Yield a row as `[line, uuid, action, message, [[field, before, after, …], …]]`."""
    between = "\n"
    for row in plans.rows(ledger):
        yield f"{between}{_harmless([row.line, row.uuid, row.action, clean(row.message), _changes(row)])}"
        between = ",\n"


def _harmless(value: Any) -> str:
    """Return JSON that cannot end its HTML element, whatever an image's name is."""
    text = _json(value)  # ASCII, so U+2028 and similar characters are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
