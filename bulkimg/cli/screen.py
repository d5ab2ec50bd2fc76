"""Print everything: documents to standard output, all else to standard error, both without control characters.

No other module prints. Standard error is text or, with `--log-format json`, one JSON object a line. With `--quiet` it
is kept back until the exit code is known. Questions go to the terminal itself.
"""

import contextlib
import getpass
import io
import json
import os
import re
import shutil
import sys
import termios
import textwrap
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from bulkimg.errors import UsageError

# What a terminal obeys instead of showing: C0 without newline, DEL, C1, and the bidirectional overrides.
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
HELD_BACK = 10_000  # lines that --quiet keeps for a run that does not end well


@dataclass
class _State:
    """How this process prints."""

    as_json: bool = False  # of standard error
    wants_document: bool = False  # standard output is one JSON document
    quiet: bool = False
    held: deque[str] = field(default_factory=lambda: deque(maxlen=HELD_BACK))
    has_document: bool = False
    last_error: str = ""


_state = _State()


def clean(text: str) -> str:
    """Return the text with everything that a terminal or a log would obey escaped, such as `\\x1b`."""
    return _OBEYED.sub(lambda found: ascii(found.group())[1:-1], text)


def one_line(text: str) -> str:
    """Return `clean`, with newlines escaped too: one event is one line."""
    return clean(text).replace("\n", "\\n")


# -- how to print -------------------------------------------------------------------------------------------------------


def set_up(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Set up printing before the command line is parsed, so that an error in it is printed in the requested form.

    A character that the terminal's encoding does not have is escaped and does not end the program. Closed streams stay
    empty.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # otherwise the next opened file would get this number, and with it what others write to it
            os.open(os.devnull, os.O_RDWR)
    # A closed stream is None, and print would use the other one instead.
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
    """Set how to print from now on, from flags, environment, job file and profile."""
    _state.as_json, _state.wants_document, _state.quiet = as_json, wants_document, quiet


def speak_json() -> None:
    """Write standard error as JSON from now on."""
    _state.as_json = True


def is_quiet() -> bool:
    """Return whether standard error is kept back."""
    return _state.quiet


def wants_document() -> bool:
    """Return whether standard output must be one JSON document."""
    return _state.wants_document


def finish(exit_code: int) -> None:
    """Print what --quiet kept back if the run did not end well, and the one document that --json promises."""
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
    """Print a document or a result to standard output."""
    print(clean(text), flush=True)


def out_json(document: Any, *, indent: int | None = 2) -> None:
    """Print one JSON document. It is ASCII with escapes, so it is exact and harmless."""
    _state.has_document = True
    print(json.dumps(document, indent=indent), flush=True)


class _Output(io.TextIOWrapper):
    """Standard output. If its reader goes away, the exit code does not change and the rest is dropped."""

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


def out_bytes(file: BinaryIO) -> None:
    """Copy a file to standard output. If its reader goes away, the rest is dropped."""
    sys.stdout.flush()
    try:
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # also for what is left in the buffer


def has_reader() -> bool:
    """Return whether standard output still has a reader, as far as it was tried."""
    return getattr(sys.stdout, "has_reader", True)


def change(name: str, before: str | None, after: str) -> None:
    """Print one field of a difference, red and green on a terminal with colours unless NO_COLOR is set."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    red, green, plain = ("\x1b[31m", "\x1b[32m", "\x1b[0m") if coloured else ("", "", "")
    was = "" if before is None else f"{red}{one_line(before)}{plain} → "
    print(f"    {one_line(name)}: {was}{green}{one_line(after)}{plain}", flush=True)


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return lines with aligned columns. The last column keeps its length."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)] if rows else []
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def fitted(rows: Sequence[tuple[str, ...]], spare: Sequence[str]) -> str:
    """Return a table as wide as the terminal.

    `spare` are the headings of columns that may be left out; the last of them goes first. The last column is cut. The
    table is whole if standard output is no terminal.
    """
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
    """Return the width of all columns but the last, and a few characters of that."""
    return sum(max(len(row[at]) for row in rows) + 2 for at in range(len(rows[0]) - 1)) + 8


# -- standard error -----------------------------------------------------------------------------------------------------


def note(text: str, event: str = "message") -> None:
    """Print a message. `event` is its kind, for programs. A closed or full standard error does not disturb the run."""
    _say(
        json.dumps({"schema": 1, "at": time.time(), "event": event, "message": text}) if _state.as_json else clean(text)
    )


def note_json(document: Any) -> None:
    """Print a message as one JSON line, whatever the format of the others."""
    _say(json.dumps(document))


def warning(text: str) -> None:
    """Warn of something that is allowed and may be a mistake."""
    note(text if _state.as_json else f"bulkimg: warning: {one_line(text)}", "warning")


def error(text: str) -> None:
    """Print an error: a sentence that says what, where and what to do next."""
    _state.last_error = text
    note(text if _state.as_json else f"bulkimg: {text}", "error")


def bug(text: str) -> None:
    """Print the traceback of a bug."""
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
    """Return the text with lines broken between words. A line with a command stays whole, to be copied."""
    width = _columns()
    return "\n".join(line if line.startswith(_COMMANDS) else _filled(line, width) for line in text.split("\n"))


def _columns(descriptor: int = 2) -> int:
    """Return the terminal's width. shutil would always ask standard output."""
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


class _Notes(io.TextIOBase):
    """Make a message of each line that is written."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str, /) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            note(one_line(line))
        return len(text)

    def close(self) -> None:
        if not self.closed and self._begun:
            self.write("\n")
        super().close()


@contextlib.contextmanager
def prints_of_plugins(names: Sequence[str]) -> Iterator[None]:
    """Show what plugins print as messages: standard output belongs to results and documents."""
    if not names:
        yield
        return
    with _Notes() as notes, contextlib.redirect_stdout(notes):
        yield


# -- questions ----------------------------------------------------------------------------------------------------------


def can_ask() -> bool:
    """Return whether standard input is a terminal, wherever the outputs go."""
    return sys.stdin is not None and sys.stdin.isatty()


def prompt(question: str, shown: str, *, is_new: bool = False) -> None:
    """Print a question on the terminal itself; `typed` reads the answer. Raises OSError if the terminal takes no text.

    `shown` is what a person must have seen. Unless it is new, standard error has shown it if that is the terminal too.
    """
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
    """Open the terminal of standard input for writing."""
    try:
        return os.open(os.ttyname(0), os.O_WRONLY | os.O_NOCTTY)
    except OSError:  # in another namespace it has no name
        return os.dup(0)


def forget_typed() -> None:
    """Drop what was typed and not read yet."""
    with contextlib.suppress(termios.error):  # standard input is no terminal
        termios.tcflush(0, termios.TCIFLUSH)


def typed() -> str:
    """Read the line that was typed, in lower case.

    A terminal gives one line; Python would also keep what was typed ahead.
    """
    return os.read(0, 4096).decode("utf-8", "replace").strip().lower()


def secret(question: str) -> str:
    """Read what is typed on the terminal without showing it. Raises UsageError if nothing was typed."""
    typed = getpass.getpass(clean(question))
    if not typed or not typed.isprintable():
        raise UsageError("no password was typed; nothing was sent")
    return typed
