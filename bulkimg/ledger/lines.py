"""Make result lines from outcomes, equal to those that the view `result` in schema.sql makes from the ledger."""

import time
from functools import lru_cache

from pydantic_core import to_json

from bulkimg.cells import harmless
from bulkimg.model import Outcome

_BETWEEN = '","'
_NOTHING = '"code":"","message":"","hint":""'


def result_lines(o: Outcome) -> tuple[str, str]:
    """Return the line of results.jsonl and the line of results.csv.

    The CSV is spreadsheet-safe. A test compares both lines with the view.
    """
    started = "" if o.started_at is None else _iso(o.started_at)
    begun = f'"{started}"' if started else "null"
    before = "" if o.before is None else to_json(o.before).decode()
    after = "" if o.after is None else to_json(o.after).decode()
    changed = ",".join(o.changed)
    names = f'"{changed.replace(",", _BETWEEN)}"' if changed else ""
    status = "" if o.http_status is None else o.http_status
    took = "" if o.duration_ms is None else o.duration_ms
    said = (
        o.code or o.message or o.hint
    )  # most rows say nothing, and a call for each text would take as long as the rest
    exact = (
        f'{{"line":{o.line},"uuid":"{o.uuid}","status":"{o.status.value}",'
        + (f'"code":{_quoted(o.code)},"message":{_quoted(o.message)},"hint":{_quoted(o.hint)}' if said else _NOTHING)
        + f',"http_status":{"null" if status == "" else status},"attempts":{o.attempts},"job_uuid":"{o.job_uuid}",'
        f'"started_at":{begun},"duration_ms":{"null" if took == "" else took},'
        f'"changed":[{names}],"before":{before or "null"},"after":{after or "null"},"name":{_quoted(o.name)}}}\n'
    )
    cells = (
        f'{o.line},"{o.uuid}",{o.status.value},'
        + (f'"{_doubled(o.code)}","{_safe(o.message)}","{_safe(o.hint)}"' if said else '"","",""')
        + f',{status},{o.attempts},{o.job_uuid},{started},{took},"{changed}",'
        f'{_optional(before)},{_optional(after)},"{_safe(o.name)}"\n'
    )
    return exact, cells


def _quoted(text: str) -> str:
    return to_json(text).decode() if text else '""'


def _optional(text: str) -> str:
    return f'"{_doubled(text)}"' if text else ""


def _safe(text: str) -> str:
    return _doubled(harmless(text)) if text else ""


def _doubled(text: str) -> str:
    return text.replace('"', '""')


def _iso(seconds: float) -> str:
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{_second(whole)}.{ms:03d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
