"""This file is the only place that prints: documents to standard output, everything else to standard error, all of it clean."""

import json
import re
import sys
from typing import Any

# What a terminal would obey instead of show: C0 but newline, DEL, C1, and the bidirectional overrides.
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with everything a terminal or a log would obey written out, such as `\\x1b`."""
    return _OBEYED.sub(lambda found: ascii(found.group())[1:-1], text)


def one_line(text: str) -> str:
    """`clean`, and newlines written out too: one event is one line."""
    return clean(text).replace("\n", "\\n")


def out(text: str) -> None:
    """A document or a result."""
    print(clean(text), flush=True)


def out_json(document: Any, *, indent: int | None = 2) -> None:
    """One JSON document. Escapes keep it exact and harmless at once."""
    print(json.dumps(document, indent=indent), flush=True)


def note(text: str) -> None:
    """A message beside the results."""
    print(clean(text), file=sys.stderr, flush=True)


def note_json(document: Any) -> None:
    """A message as one JSON line."""
    print(json.dumps(document), file=sys.stderr, flush=True)


def error(text: str) -> None:
    """A sentence that says what, where and what to do next."""
    note(f"bulkimg: {text}")


def ask(question: str) -> bool:
    """Ask on the terminal; only a plain yes is one."""
    print(clean(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def can_ask() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns lined up, the last one left as long as it is."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)] if rows else []
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )
