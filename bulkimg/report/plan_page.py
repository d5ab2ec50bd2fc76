"""Write plan.html: every row of a plan, to search, filter and page through, also for 100,000 rows.

The header and the first rows are HTML, so the page says the same if scripts are blocked. All rows are also data in the
page, one JSON array a line. The script shows a hundred of them at a time, always as text. The page's policy lets no
other script run.
"""

import json
import os.path
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from html import escape
from importlib import resources
from itertools import chain
from typing import Any

from bulkimg.ledger import Ledger, RunDirectory, plans
from bulkimg.ledger.files import replacing
from bulkimg.model import TAGS, PlanCounts, iso_utc
from bulkimg.report.difference import clean, common, shown, units

STATIC = 100  # rows in the HTML; the script shows as many at a time
LABELS = {"update": "changes", "unchanged": "unchanged", "conflict": "conflict", "missing": "no such image"}
_json = json.JSONEncoder(separators=(",", ":")).encode  # made once, because json.dumps makes one for every row


def write_plan_page(ledger: Ledger, directory: RunDirectory, target: str, refused: str = "") -> None:
    """Write the page and replace it as a whole. Memory does not grow with the plan. Raises StorageError.

    `refused` is why a guard would refuse the plan's apply, or "".
    """
    counts = plans.counts(ledger)
    added = _added(ledger)
    style, script = _file("plan.css"), _file("plan.js")
    pieces: Mapping[str, Iterable[str]] = {
        "policy": [_policy(style, script)],
        "run": [_text(directory.run_id)],
        "style": [style],
        "facts": _facts(ledger, counts, target),
        "apply": [_how_to_apply(counts, directory.words, refused)],
        "tiles": (_tile(name, count) for name, count in counts.actions.items()),
        "panels": chain(_by_field(counts), _transitions(counts, added)),
        "shown": [_rows_shown(counts.images)],
        "rows": (_row(row, counts.surveyed, added) for row in plans.rows(ledger, limit=STATIC)),
        "data": chain([_head(counts, added)], _data(ledger), ["]}"]),
        "script": [script],
    }
    with replacing(directory.path / "plan.html") as file:
        for at, part in enumerate(re.split(r"\{\{(\w+)\}\}", _file("plan.html"))):
            for text in pieces[part] if at % 2 else (part,):
                file.write(text)


def _file(name: str) -> str:
    return resources.files("bulkimg.report").joinpath(name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Return the content policy: only this script and style may be used, and nothing is loaded.

    An injected script never runs.
    """
    return f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _added(ledger: Ledger) -> tuple[str, ...]:
    """Return the fields whose values are added to the image's own."""
    return TAGS if ledger.meta("settings", {}).get("tags_mode") == "add" else ()


# -- the header -----------------------------------------------------------------------------------------------------------


def _facts(ledger: Ledger, counts: PlanCounts, target: str) -> Iterator[str]:
    """Yield what, where, who, when and why, one line each, as far as they are known."""
    manifest, by = ledger.meta("manifest") or "", ledger.meta("by") or {}
    yield _fact("Target", f"<code>{_text(target)}</code>")
    if manifest:
        yield _fact("Manifest", _text(os.path.normpath(manifest)))
    who = "@".join(str(by[key]) for key in ("user", "host") if by.get(key))
    if who:
        yield _fact("Planned by", _text(who))
    if begun := ledger.meta("started_at") or ledger.meta("created_at"):
        stamp = iso_utc(begun)
        yield _fact("Planned at", f'<time datetime="{stamp}">{stamp[:10]} {stamp[11:19]} UTC</time>')
    if note := ledger.meta("note"):
        yield _fact("Note", _text(note))
    yield _fact(
        "Images", "read before planning" if counts.surveyed else "not read; each row is sent as the manifest has it"
    )
    if counts.digest:
        yield _fact("Plan checksum", f"<code>{_text(counts.digest)}</code>")


def _fact(name: str, value: str) -> str:
    return f"<div><dt>{name}</dt><dd>{value}</dd></div>\n"


def _how_to_apply(counts: PlanCounts, run: str, refused: str) -> str:
    """Return the command that applies the plan, if there are changes and no guard refuses it."""
    if not counts.actions["update"]:
        return '<p class="apply">Nothing to apply: the plan changes no image.</p>'
    if refused:
        return f'<p class="apply refused"><strong>bulkimg apply would refuse this plan:</strong> {_text(refused)}.</p>'
    checksum = f" --checksum {counts.digest[:16]}" if counts.digest else ""
    return (
        '<div class="apply"><h2>Apply this plan</h2>'
        f'<div class="command"><code id="command">{_text(f"bulkimg apply {run}{checksum}")}</code>'
        '<button id="copy" type="button" hidden>Copy</button></div><span id="copied" role="status"></span></div>'
    )


def _tile(action: str, count: int) -> str:
    return f'<div class="tile {action}" data-action="{action}"><b>{count:,}</b><span>{LABELS[action]}</span></div>\n'


def _by_field(counts: PlanCounts) -> Iterator[str]:
    if counts.fields:
        yield '<section><h2>Changes by field</h2><ul class="fields">\n'
        for name, images in counts.fields.items():
            yield f'<li><span class="field">{_text(name)}</span><span class="count">{_images(images)}</span></li>\n'
        yield "</ul></section>\n"


def _transitions(counts: PlanCounts, added: tuple[str, ...]) -> Iterator[str]:
    if counts.transitions:
        yield '<section><h2>Most frequent changes</h2><ul class="transitions">\n'
        for name, before, after, images in counts.transitions:
            change = _change(_changed(name, before, after), surveyed=True, added=added)
            yield f'<li>{change}<span class="count">{_images(images)}</span></li>\n'
        yield "</ul></section>\n"


def _images(count: int) -> str:
    return f"{count:,} {'image' if count == 1 else 'images'}"


def _rows_shown(count: int) -> str:
    if count <= STATIC:
        return f"{count:,} {'row' if count == 1 else 'rows'}"
    return f"The first {STATIC} of {count:,} rows. The rest is in plan.csv."


# -- the rows as HTML; plan.js makes the same of the data -----------------------------------------------------------------


def _row(row: plans.PlannedRow, surveyed: bool, added: tuple[str, ...]) -> str:
    begin, middle, end = row.uuid[:8], row.uuid[8:-4], row.uuid[-4:]
    changes = "".join(_change(change, surveyed, added) for change in _changes(row))
    return (
        f'<tr role="row"><td class="line" role="cell">{row.line}</td>'
        f'<td class="image" role="cell"><code title="{row.uuid}">{begin}<span>{middle}</span>{end}</code></td>'
        f'<td class="action {row.action}" role="cell">{LABELS[row.action]}</td>'
        f'<td class="what" role="cell">{changes or f"<p>{_text(row.message)}</p>"}</td></tr>\n'
    )


def _change(change: list[Any], surveyed: bool, added: tuple[str, ...]) -> str:
    name, before, after, *cut = change
    values = _value("ins", after, cut)
    if name in added:
        had = f"<span>{_text(shown(before))}</span>" if before else ""
        values = f'{had} <span class="sign">+</span> {values}'
    elif surveyed:
        values = f'{_value("del", before, cut)} <span class="sign">→</span> {values}'
    return f'<div class="change"><span class="field">{_text(name)}</span><div class="values">{values}</div></div>'


def _value(tag: str, value: Any, cut: list[int]) -> str:
    if value is None or value in ("", []):
        return f'<{tag} class="none">{"no value" if value is None else "empty"}</{tag}>'
    text = shown(value)
    if not cut:
        return f"<{tag}>{escape(text)}</{tag}>"
    raw = text.encode("utf-16-le")
    head, tail = cut[0] * 2, len(raw) - cut[1] * 2
    begin, middle, end = (escape(part.decode("utf-16-le")) for part in (raw[:head], raw[head:tail], raw[tail:]))
    return f'<{tag} class="part">{begin}{f"<mark>{middle}</mark>" if middle else ""}{end}</{tag}>'


def _text(value: Any) -> str:
    return escape(str(clean(str(value))))


# -- the rows as data -----------------------------------------------------------------------------------------------------


def _changes(row: plans.PlannedRow) -> list[list[Any]]:
    return [_changed(name, row.before.get(name), value) for name, value in row.send.items()]


def _changed(name: str, before: Any, after: Any) -> list[Any]:
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
