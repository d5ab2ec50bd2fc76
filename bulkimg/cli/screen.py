"""This file is the only place that prints: documents to standard output, everything else to standard error, all of it clean."""

import contextlib
import io
import json
import os
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
    """A message beside the results. Nobody has to listen: a closed or full standard error does not disturb the run."""
    try:
        print(clean(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # so that the flush at exit finds somebody
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def note_json(document: Any) -> None:
    """A message as one JSON line."""
    note(json.dumps(document))


def set_up() -> None:
    """What the terminal's encoding cannot show is written out, instead of ending the program; what is closed stays empty."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # or the next file of ours would get this number, and whatever others write to it
            os.open(os.devnull, os.O_RDWR)
    # What was closed is None, and print would take the other one instead.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def error(text: str) -> None:
    """A sentence that says what, where and what to do next."""
    note(f"bulkimg: {text}")


def prompt(question: str) -> None:
    """Ask on the terminal; `said_yes` reads the answer."""
    print(clean(f"{question} [y/N] "), end="", file=sys.stderr, flush=True)


def said_yes() -> bool:
    """Only a plain yes is one. A terminal gives one line at a time; Python would keep what was typed ahead to itself."""
    assert sys.stdin is not None, "can_ask() was asked first"
    return os.read(sys.stdin.fileno(), 4096).decode("utf-8", "replace").strip().lower() in {"y", "yes"}


def change(name: str, before: str | None, after: str) -> None:
    """One field of a difference: red and green on a terminal that shows colours, unless NO_COLOR says otherwise."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    red, green, plain = ("\x1b[31m", "\x1b[32m", "\x1b[0m") if coloured else ("", "", "")
    was = "" if before is None else f"{red}{one_line(before)}{plain} → "
    print(f"    {one_line(name)}: {was}{green}{one_line(after)}{plain}", flush=True)


def can_ask() -> bool:
    """Whether there is somebody to ask."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns lined up, the last one left as long as it is."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)] if rows else []
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )
