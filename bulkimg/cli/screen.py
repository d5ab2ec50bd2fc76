"""The only place that prints: documents to standard output, everything else to standard error, all of it clean.

Standard error is text or, with `--log-format json`, one JSON object a line; with `--quiet` it is held back until the exit code
is known. Questions go to the terminal itself.
"""

import contextlib
import getpass
import io
import json
import os
import re
import sys
import textwrap
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bulkimg.errors import UsageError

# What a terminal would obey instead of show: C0 but newline, DEL, C1, and the bidirectional overrides.
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
HELD_BACK = 10_000  # lines that --quiet keeps for a run that does not end well


@dataclass
class _State:
    """How this process prints."""

    as_json: bool = False  # standard error
    wants_document: bool = False  # standard output carries one JSON document
    quiet: bool = False
    held: deque[str] = field(default_factory=lambda: deque(maxlen=HELD_BACK))
    has_document: bool = False
    last_error: str = ""


_state = _State()


def clean(text: str) -> str:
    """The text with everything a terminal or a log would obey written out, such as `\\x1b`."""
    return _OBEYED.sub(lambda found: ascii(found.group())[1:-1], text)


def one_line(text: str) -> str:
    """`clean`, and newlines written out too: one event is one line."""
    return clean(text).replace("\n", "\\n")


# -- how to print -------------------------------------------------------------------------------------------------------


def set_up(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Before the command line is parsed: an error in it is already printed in the form that it asks for.

    What the terminal's encoding cannot show is written out, instead of ending the program; what is closed stays empty.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # or the next file of ours would get this number, and whatever others write to it
            os.open(os.devnull, os.O_RDWR)
    # What was closed is None, and print would take the other one instead.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115, PTH123
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, lines = sys.stdout.encoding, sys.stdout.line_buffering
        sys.stdout = _Output(sys.stdout.detach(), encoding, "backslashreplace", line_buffering=lines)
    ours = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    log_format = environ.get("BULKIMG_LOG_FORMAT", "")
    for at, word in enumerate(ours):
        if word.startswith("--log-format"):
            log_format = word.partition("=")[2] or "".join(ours[at + 1 : at + 2])
    use(
        as_json=log_format.strip() == "json",
        wants_document="--json" in ours or _is_true(environ.get("BULKIMG_JSON")),
        quiet="--quiet" in ours or any(re.fullmatch("-[a-zA-Z]*q[a-zA-Z]*", word) for word in ours)
        or _is_true(environ.get("BULKIMG_QUIET")),
    )  # fmt: skip


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() in {"1", "true", "yes", "on", "t", "y"}


def use(*, as_json: bool, wants_document: bool, quiet: bool) -> None:
    """Print like this from now on: what flags, environment, job file and profile say together."""
    _state.as_json, _state.wants_document, _state.quiet = as_json, wants_document, quiet


def speak_json() -> None:
    """Standard error is JSON from now on."""
    _state.as_json = True


def is_quiet() -> bool:
    """Whether standard error is held back."""
    return _state.quiet


def wants_document() -> bool:
    """Whether standard output is to carry one JSON document."""
    return _state.wants_document


def finish(exit_code: int) -> None:
    """The last words: what --quiet held back of a run that did not end well, and the one document that --json promises."""
    if _state.wants_document and not _state.has_document and (exit_code or _state.last_error):
        what, _, to_do = _state.last_error.partition("; ")
        found = {"code": _CODES.get(exit_code, "ERROR"), "message": what or "the command failed", "hint": to_do}
        out_json({"schema": 1, "exit_code": exit_code, "error": found})
    held, _state.quiet = list(_state.held), False
    _state.held.clear()
    if exit_code:
        for line in held:
            _print(line)


_CODES = {
    1: "NOT_FINE", 2: "USAGE", 3: "MANIFEST", 4: "ERROR_LIMIT", 5: "TARGET", 6: "TIME_BOX", 7: "REFUSED", 8: "STORAGE",
    130: "INTERRUPTED", 143: "TERMINATED",
}  # fmt: skip


# -- standard output ----------------------------------------------------------------------------------------------------


def out(text: str) -> None:
    """A document or a result."""
    print(clean(text), flush=True)


def out_json(document: Any, *, indent: int | None = 2) -> None:
    """One JSON document. Escapes keep it exact and harmless at once."""
    _state.has_document = True
    print(json.dumps(document, indent=indent), flush=True)


class _Output(io.TextIOWrapper):
    """Standard output. A reader that goes away changes no exit code: what is left goes nowhere."""

    has_reader = True

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._give_up()
            super().flush()

    def _give_up(self) -> None:
        self.has_reader = False
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def has_reader() -> bool:
    """Whether standard output still has a reader, as far as it has been tried."""
    return getattr(sys.stdout, "has_reader", True)


def change(name: str, before: str | None, after: str) -> None:
    """One field of a difference: red and green on a terminal that shows colours, unless NO_COLOR says otherwise."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    red, green, plain = ("\x1b[31m", "\x1b[32m", "\x1b[0m") if coloured else ("", "", "")
    was = "" if before is None else f"{red}{one_line(before)}{plain} → "
    print(f"    {one_line(name)}: {was}{green}{one_line(after)}{plain}", flush=True)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns lined up, the last one left as long as it is."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)] if rows else []
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def fitted(rows: Sequence[tuple[str, ...]], spare: Sequence[str]) -> str:
    """A table as wide as the terminal: `spare` are the headings of columns that may be left out, the last to go first; the last
    column is cut. Whole where standard output is no terminal."""
    width = _columns(1) if sys.stdout.isatty() else 0
    shown = list(rows)
    for heading in reversed(spare):
        if not width or _width(shown) <= width:
            break
        at = shown[0].index(heading)
        shown = [(*row[:at], *row[at + 1 :]) for row in shown]
    lines = table(shown).split("\n")
    return "\n".join(line if not width or len(line) <= width else f"{line[: width - 1]}…" for line in lines)


def _width(rows: Sequence[tuple[str, ...]]) -> int:
    """The columns of a table but its last one, and a few characters of that."""
    return sum(max(len(row[at]) for row in rows) + 2 for at in range(len(rows[0]) - 1)) + 8


# -- standard error -----------------------------------------------------------------------------------------------------


def note(text: str, event: str = "message") -> None:
    """A message; `event` is its kind, for programs. A closed or full standard error does not disturb the run."""
    _say(
        json.dumps({"schema": 1, "at": time.time(), "event": event, "message": text}) if _state.as_json else clean(text)
    )


def note_json(document: Any) -> None:
    """A message as one JSON line, whatever the format of the others."""
    _say(json.dumps(document))


def warning(text: str) -> None:
    """Something that is allowed, and perhaps not meant."""
    note(text if _state.as_json else f"bulkimg: warning: {one_line(text)}", "warning")


def error(text: str) -> None:
    """A sentence that says what, where and what to do next."""
    _state.last_error = text
    note(text if _state.as_json else f"bulkimg: {text}", "error")


def bug(text: str) -> None:
    """A traceback of ours."""
    _state.last_error = text.strip().rsplit("\n", 1)[-1]
    note(text, "bug")


def _say(line: str) -> None:
    if _state.quiet:
        _state.held.append(line)
    else:
        _print(line)


def _print(line: str) -> None:
    if not _state.as_json and sys.stderr.isatty():
        line = _wrapped(line)
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # so that the flush at exit has a target
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _wrapped(text: str) -> str:
    """Lines broken between words where the terminal would break inside one. A line that holds a command stays whole, to be copied."""
    width = _columns()
    return "\n".join(line if line.startswith(_COMMANDS) else _filled(line, width) for line in text.split("\n"))


def _columns(descriptor: int = 2) -> int:
    """The terminal's width; shutil would always ask standard output."""
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return 80


_COMMANDS = ("next:", "check:", "results:", "review:")


def _filled(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    wrapped = textwrap.wrap(
        line, max(width, 20), subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrapped) or line


# -- questions ----------------------------------------------------------------------------------------------------------


def can_ask() -> bool:
    """Whether standard input is a terminal, wherever the outputs go."""
    return sys.stdin is not None and sys.stdin.isatty()


def prompt(question: str, shown: str, *, is_new: bool = False) -> None:
    """Ask on the terminal itself; `typed` reads the answer. `shown`: what a person must have seen; unless it is new, standard
    error has shown it, where that is the terminal too. OSError where the terminal takes no text."""
    seen = sys.stderr.isatty() and not _state.quiet and not is_new
    text = clean(
        f"{question} [y/N, d shows the differences] "
        if seen
        else f"{shown}\n{question} [y/N, d shows the differences] "
    )
    descriptor = _terminal()
    try:
        os.write(descriptor, text.encode(errors="backslashreplace"))
    finally:
        os.close(descriptor)


def _terminal() -> int:
    """The terminal of standard input, open for writing."""
    try:
        return os.open(os.ttyname(0), os.O_WRONLY | os.O_NOCTTY)
    except OSError:  # in another namespace it has no name here
        return os.dup(0)


def typed() -> str:
    """The line that was typed, in lower case. A terminal gives one line at a time; Python would keep what was typed ahead."""
    return os.read(0, 4096).decode("utf-8", "replace").strip().lower()


def secret(question: str) -> str:
    """What is typed on the terminal, without showing it. UsageError where nothing was typed."""
    typed = getpass.getpass(clean(question))
    if not typed or not typed.isprintable():
        raise UsageError("no password was typed; nothing was sent")
    return typed
