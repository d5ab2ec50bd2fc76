"""Check the text of a query before a database sees it: one statement that reads. The database refuses the rest itself."""

import re
from collections.abc import Iterator
from typing import Literal

from bulkimg.errors import UsageError

Dialect = Literal["sqlite", "postgresql", "mysql"]

_READS = ("select", "with", "values", "table")
_WRITES = frozenset({"insert", "update", "delete", "merge"})
_FIX = "write one statement that only reads: SELECT …"
_QUOTES = {"sqlite": "'\"`[", "postgresql": "'\"", "mysql": "'\"`"}
_WORD = re.compile(r"[^\W\d]\w*")
_DOLLAR = re.compile(r"\$(?:[^\W\d]\w*)?\$")


def check(text: str, dialect: Dialect, name: str) -> str:
    """Return the statement without what follows it. Raises UsageError if it is not one statement that reads.

    `name` is the query's file, for messages.
    """
    words: list[str] = []
    end = len(text)
    for at, found in _tokens(text, dialect, name):
        if end < len(text):
            raise UsageError(f"{name}:{_line(text, at)}: a second statement begins here; {_FIX}")
        if found == ";":
            end = at
        else:
            words.append(found.lower())
    if not words:
        raise UsageError(f"{name}: contains no statement; {_FIX}")
    if why := _why_not(words):
        raise UsageError(f"{name}: {why}; {_FIX}")
    return text[:end]


def _why_not(words: list[str]) -> str:
    """Return why a statement of these words and marks does not only read, or ""."""
    first = next((word for word in words if word != "("), "")
    if first not in _READS:
        return f"{first[:40].upper()} is not a query" if _WORD.fullmatch(first) else "the statement is not a query"
    for word, after, then in zip(words, [*words[1:], ""], [*words[2:], "", ""], strict=True):
        if word == "into":  # no column has this name: it is reserved everywhere
            return "SELECT … INTO and INSERT INTO write"
        if word == "for" and after in {"update", "share", "no", "key"}:
            return "FOR UPDATE and FOR SHARE lock rows"
        if (word, after, then) == ("lock", "in", "share"):
            return "LOCK IN SHARE MODE locks rows"
        if word == "(" and after in _WRITES and then not in {"(", ")"}:  # MySQL has a function INSERT()
            return f"the statement contains {after.upper()}, which changes rows"
    return ""


def _tokens(text: str, dialect: Dialect, name: str) -> Iterator[tuple[int, str]]:
    """Yield (place, token) of what is neither blank nor a comment. A quoted text is the token `'`."""
    at = 0
    while at < len(text):
        char, rest = text[at], text[at : at + 3]
        if char.isspace() or char == "\ufeff":
            at += 1
        elif _is_line_comment(rest, dialect):
            at = (text.find("\n", at) + 1) or len(text)
        elif rest.startswith("/*"):
            at = _after_comment(text, at, dialect, name)
        elif char in _QUOTES[dialect]:
            yield at, "'"
            at = _after_quoted(text, at, dialect, name)
        elif char == "$" and dialect == "postgresql" and (found := _DOLLAR.match(text, at)):
            yield at, "'"
            at = _after(text, found[0], found.end(), name, at)
        elif found := _WORD.match(text, at):
            yield at, found[0]
            at = found.end()
        else:
            yield at, char
            at += 1


def _is_line_comment(rest: str, dialect: Dialect) -> bool:
    """Return whether a comment to the end of the line begins here. MySQL needs a blank after `--`, and has `#` too."""
    if dialect == "mysql":
        return rest.startswith("#") or (rest.startswith("--") and (len(rest) == 2 or rest[2] <= " "))
    return rest.startswith("--")


def _after_comment(text: str, at: int, dialect: Dialect, name: str) -> int:
    """Return the place behind a comment. PostgreSQL's are nested. MySQL runs what is in some of them."""
    if text.startswith(("/*!", "/*M!", "/*+"), at):
        raise UsageError(f"{name}:{_line(text, at)}: the comment holds SQL that a server may run; remove the comment")
    if dialect != "postgresql":
        return _after(text, "*/", at + 2, name, at)
    depth, here = 1, at + 2
    while depth:
        opened, closed = text.find("/*", here), text.find("*/", here)
        if closed < 0:
            return _after(text, "*/", here, name, at)
        inner = 0 <= opened < closed
        depth += 1 if inner else -1
        here = (opened if inner else closed) + 2
    return here


def _after_quoted(text: str, at: int, dialect: Dialect, name: str) -> int:
    """Return the place behind a quoted text or name. A doubled quote is part of it; a backslash may quote the next."""
    quote = "]" if text[at] == "[" else text[at]
    has_escape = at > 0 and text[at - 1] in "eE" and not (at > 1 and (text[at - 2].isalnum() or text[at - 2] == "_"))
    escapes = (dialect == "mysql" and quote in "'\"") or (dialect == "postgresql" and quote == "'" and has_escape)
    here = at + 1
    while here < len(text):
        if escapes and text[here] == "\\":
            here += 2
        elif text[here] != quote:
            here += 1
        elif quote != "]" and text.startswith(quote, here + 1):
            here += 2
        else:
            return here + 1
    return _after(text, quote, len(text), name, at)


def _after(text: str, mark: str, begin: int, name: str, opened: int) -> int:
    found = text.find(mark, begin)
    if found < 0:
        raise UsageError(f"{name}:{_line(text, opened)}: a quote or comment opens here and is not closed; close it")
    return found + len(mark)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
