"""Make the rows that undo a run: the old values, and what must still be there. Pure."""

from collections.abc import Iterator

from bulkimg.ledger.plans import Written
from bulkimg.model import HIDDEN, MAY_BE_EMPTY, TAGS, Fields, Problem, Row, Seen, Value
from bulkimg.planner.diff import BOOT_MODE


def undo_row(written: Written, *, replace_tags: bool = False) -> Row:
    """The row that puts the old values back, only where the present ones are still what the run wrote.

    Tags that could not be read before are left out, with a warning. `replace_tags`: how the run treated tags. A field that had no value before cannot have none again (docs/dev/protocol.md §1): such a row is a problem, unless it may be empty.
    """
    fields: Fields = {}
    expects: Fields = {}
    problems = []
    warnings = []
    for name, sent in written.send.items():
        was = written.before.get(name)
        if name in TAGS and name not in written.before:
            why = "could not be read before the run, so it is left unchanged"
            warnings.append(Problem(written.line, name, "", "NOT_RESTORED", why, _BY_HAND))
            continue
        if why := _irretrievable(name, was):
            problems.append(Problem(written.line, name, "", "CANNOT_RESTORE", why, _BY_HAND))
            continue
        fields[name] = was if was is not None else [] if name in TAGS else ""
        expects[name] = _left_tags(written, name, sent, replace_tags) if name in TAGS else sent
    _boot_mode(written, fields, expects)
    if warnings and not fields:
        problems, warnings = [*problems, *warnings], []
    return Row(written.line, written.uuid, fields, expects, (), tuple(problems), warnings=tuple(warnings))


_BY_HAND = "set a value with another manifest"


def _irretrievable(name: str, was: Value | None) -> str:
    """Why an old value cannot be put back, or an empty text."""
    if was is None and name not in TAGS and name not in MAY_BE_EMPTY:
        return "had no value before, and the API cannot remove a value"
    if any(HIDDEN in text for text in (was if isinstance(was, list) else [was]) if isinstance(text, str)):
        return "contained one of your credentials before, which was redacted"
    return ""


def _left_tags(written: Written, name: str, sent: Value, replace_tags: bool) -> Value:
    """The tags that the run left, by what it saw and what it did: any other tag is another client's."""
    before = written.before.get(name)
    had = before if isinstance(before, list) and not replace_tags else []
    return sorted({*had, *(sent if isinstance(sent, list) else ())})


def _boot_mode(written: Written, fields: Fields, expects: Fields) -> None:
    """System tags that changed with the architecture go back with it."""
    before = written.aside.get("systemTags")
    if not isinstance(before, list) or "architecture" not in fields:
        return
    left = boot_mode_after(before, written.send, written.aside)
    if sorted(left) != sorted(before):
        fields["systemTags"], expects["systemTags"] = before, left


def boot_mode_after(tags: list[str], send: Fields, aside: Seen) -> list[str]:
    """The system tags once the server has taken the architecture (ImageBase.java:913-925, docs/dev/protocol.md §5.2)."""
    architecture = send.get("architecture")
    system = send.get("system", aside.get("system"))
    mode = "UEFI" if architecture == "aarch64" else "Legacy" if architecture == "x86_64" and system else None
    if mode is None:
        return tags
    return sorted([*(tag for tag in tags if not tag.startswith(BOOT_MODE)), f"{BOOT_MODE}{mode}"])


def undo_rows(written: Iterator[Written], *, replace_tags: bool) -> Iterator[Row]:
    """One row for each image that the run has changed or may have changed."""
    for item in written:
        yield undo_row(item, replace_tags=replace_tags)
