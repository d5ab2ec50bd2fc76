"""Warn of values that are allowed but rarely intended (docs/reference/manifest.md). `--strict` makes them problems. Pure."""

import re
from collections.abc import Iterator, Mapping

from bulkimg.blank import has_invisible_end
from bulkimg.model import SERVER_TRIMS, TAGS, Problem, Value

TEXTS = ("name", "description", "guestOsType")
# Words of other programs for nothing (SQL, Python, R, JavaScript, pandas, MySQL's \N), and a spreadsheet's errors.
_NOTHING = frozenset(
    [
        "null",
        "none",
        "nan",
        "nil",
        "nat",
        "na",
        "n/a",
        "<na>",
        "<null>",
        "<none>",
        "(null)",
        "(none)",
        "[null]",
        "undefined",
        "\\n",
        "#n/a",
    ]
)
_LONGEST_WORD = max(map(len, _NOTHING))
_ERROR = re.compile(r"#(?:REF|NAME|VALUE|NUM|NULL|DIV/0|SPILL|CALC|FIELD|BLOCKED|UNKNOWN|CONNECT|BUSY|ERROR|N/A|NV)[!?]?", re.IGNORECASE)  # fmt: skip
_BREAK = re.compile("[\t\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_QUOTED = re.compile("(?:=\"(.*)\"|'(.*)'|\"(.*)\"|[\u201c\u201d\u201e\u00ab](.*)[\u201d\u201c\u00bb]|[\u2018\u2019](.*)[\u2019\u2018])", re.DOTALL)  # fmt: skip
_ODD_IN_TAG = re.compile(r",|\||\['|\[\"|\uff1b|\uff0c|^\{.*\}$")


def doubts(line: int, fields: Mapping[str, Value]) -> Iterator[Problem]:
    """Return a warning for each value of a row that looks like a mistake. Its `code` tells the kind."""
    for name, value in fields.items():
        if name in TAGS and isinstance(value, list):
            for tag in value:
                yield from _of_tag(line, name, tag)
        elif name in TEXTS and isinstance(value, str):
            yield from _of_text(line, name, value.strip(SERVER_TRIMS))


def is_plain(text: str) -> bool:
    """Return whether the text certainly has none of the marks below, like nearly every text. False: check it."""
    return len(text) > _LONGEST_WORD and text.isascii() and text.isprintable() and text[0].isalnum()


def _of_text(line: int, name: str, text: str) -> Iterator[Problem]:
    if is_plain(text):
        return
    if text.casefold() in _NOTHING or _ERROR.fullmatch(text):
        message = "is what other programs write for no value or an error"
        yield _warning(line, name, text, "FOREIGN_WORD", message, "leave the cell blank to keep the present value")
    if has_invisible_end(text):
        yield _warning(line, name, text, "INVISIBLE_END", "starts or ends with invisible characters", "remove them")
    if name == "name" and (found := _BREAK.search(text)):
        what = "a tab" if found.group() == "\t" else "a line break"
        yield _warning(
            line, name, text, "BROKEN_NAME", f"contains {what} at character {found.start() + 1}", "remove it"
        )
    if len(text) > 1 and _QUOTED.fullmatch(text):
        message = "is in quotation marks, which are part of the value"
        yield _warning(line, name, text, "QUOTED_VALUE", message, "remove them unless they belong to the value")


def _of_tag(line: int, name: str, tag: str) -> Iterator[Problem]:
    if tag.strip().casefold() in _NOTHING or _ERROR.fullmatch(tag.strip()):
        message = "is what other programs write for no value or an error"
        yield _warning(line, name, tag, "FOREIGN_WORD", message, "leave the cell blank to keep the present tags")
    if found := _ODD_IN_TAG.search(tag):
        what = found.group() if len(found.group()) < 3 else "{…}"
        message = f"is one tag that contains {what}"
        yield _warning(line, name, tag, "ODD_TAG", message, "separate tags with ; in a cell")
    if has_invisible_end(tag.strip(SERVER_TRIMS)):
        yield _warning(line, name, tag, "INVISIBLE_END", "starts or ends with invisible characters", "remove them")


def _warning(line: int, name: str, text: str, code: str, message: str, fix: str) -> Problem:
    shown = text if len(text) <= 60 else f"{text[:59]}…"
    return Problem(line, name, shown, code, message, fix)
