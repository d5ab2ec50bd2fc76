"""Make result lines from outcomes, equal to those that the view `result` in schema.sql makes from the ledger."""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic_core import to_json

from bulkimg.cells import harmless
from bulkimg.model import Outcome

_BETWEEN = '","'


def result_lines(o: Outcome) -> tuple[str, str]:
    """Return the line of results.jsonl and the line of results.csv.

    The CSV is spreadsheet-safe. A test compares both lines with the view.
    """
    started = "" if o.started_at is None else _iso(o.started_at)
    before, after = _json(o.before), _json(o.after)
    changed = ",".join(o.changed)
    names = f'"{changed.replace(",", _BETWEEN)}"' if changed else ""
    exact = (
        f'{{"line":{o.line},"uuid":"{o.uuid}","status":"{o.status.value}","code":{_quoted(o.code)},'
        f'"message":{_quoted(o.message)},"hint":{_quoted(o.hint)},"http_status":{_number(o.http_status)},'
        f'"attempts":{o.attempts},"job_uuid":"{o.job_uuid}","started_at":{_quoted(started) if started else "null"},'
        f'"duration_ms":{_number(o.duration_ms)},"changed":[{names}],'
        f'"before":{before or "null"},"after":{after or "null"},"name":{_quoted(o.name)}}}\n'
    )
    cells = (
        f'{o.line},"{o.uuid}",{o.status.value},"{_doubled(o.code)}","{_safe(o.message)}","{_safe(o.hint)}",'
        f'{_cell(o.http_status)},{o.attempts},{o.job_uuid},{started},{_cell(o.duration_ms)},"{changed}",'
        f'{_optional(before)},{_optional(after)},"{_safe(o.name)}"\n'
    )
    return exact, cells


def _json(seen: Mapping[str, Any] | None) -> str:
    return "" if seen is None else to_json(seen).decode()


def _quoted(text: str) -> str:
    return to_json(text).decode() if text else '""'


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)


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
