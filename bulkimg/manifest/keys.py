"""Decide what each key of a JSONL object sets."""

from typing import Any

from bulkimg.manifest.columns import Columns
from bulkimg.manifest.jsonl import JsonRecord
from bulkimg.manifest.rowcheck import Said
from bulkimg.model import Problem


def said_by(record: JsonRecord, columns: Columns) -> tuple[Said, list[Problem]]:
    """Return what the object says, and the problems of its keys."""
    asked: dict[str, Any] = {}
    problems = []
    for key, value in record.keys.items():
        target = columns.target(key)
        if target is None:
            problems.append(columns.unknown(record.line, key))
        elif target in asked:
            message = f"sets {target}, as another key does"
            problems.append(Problem(record.line, key, "", "KEY_TWICE", message, "keep one of them"))
        elif target:
            asked[target] = value
    written = asked.pop("uuid", None)
    expected = {name[3:]: asked.pop(name) for name in list(asked) if name.startswith("if_")}
    return (written, asked, expected), problems


def as_text(value: Any) -> str:
    """Return a JSON value as the text that templates and conditions use."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(map(str, value))
    return "" if value is None else str(value)
