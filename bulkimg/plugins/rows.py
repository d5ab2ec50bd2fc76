"""Pass a row through the row hooks. What a hook returns is checked for its shape; its values are checked later."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

from bulkimg.blank import is_blank
from bulkimg.errors import UsageError
from bulkimg.model import FIELDS, FLAGS, TAGS, Fields
from bulkimg.model import Problem as RowProblem
from bulkimg.plugins.loading import HookFailed, Plugin
from bulkimg.plugins.shapes import Problem, Row
from bulkimg.values import nearest

LONGEST = 500  # characters of what a plugin says about a row
_PLAIN = (dict, MappingProxyType)
_KEPT = (
    "line",
    "uuid",
    "expects",
    "cells",
)  # what a plugin cannot change: they say which row this is, and when it runs


class Altered(NamedTuple):
    """What the plugins made of a row: its fields, which plugin set each changed one, and why the row is refused."""

    fields: Mapping[str, Any]
    by: Mapping[str, str]
    problems: Sequence[RowProblem]


class RowHooks:
    """The row hooks of the named plugins, in the order of their names."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._plugins = [plugin for plugin in plugins if "bulkimg_row" in plugin.hooks]

    def __bool__(self) -> bool:
        return bool(self._plugins)

    def alter(self, line: int, uuid: str, fields: Fields, expects: Fields, cells: Mapping[str, str]) -> Altered | None:
        """Return what the plugins made of the row, or None if all of them left it as it is.

        The first plugin that refuses the row is the last one to see it. Raises UsageError if a hook fails.
        """
        row = Row(line, uuid, _fixed(fields), _fixed(expects), MappingProxyType(dict(cells)))
        by: dict[str, str] = {}
        for plugin in self._plugins:
            found = _called(plugin, row)
            if problems := _refused(plugin, row, found):
                return Altered(row.fields, by, problems)
            if isinstance(found, Row):
                values = _fixed(found.fields)
                changed = {name for name in {*values, *row.fields} if values.get(name) != row.fields.get(name)}
                by |= dict.fromkeys(changed, plugin.name)
                row = Row(line, uuid, values, row.expects, row.cells)
        if not by:
            return None
        return Altered({name: _plain(value) for name, value in row.fields.items()}, by, ())


def _called(plugin: Plugin, row: Row) -> Any:
    """Return what the hook returned. Fields are a plain mapping then, whatever the plugin made them of."""
    try:
        found = plugin.call("bulkimg_row", row=row)
    except HookFailed as failed:
        raise _stopped(plugin, row, str(failed)) from None
    if isinstance(found, Row) and type(found.fields) not in _PLAIN and isinstance(found.fields, Mapping):
        try:
            return replace(found, fields=dict(found.fields))
        except Exception as error:  # a mapping of the plugin's own
            raise _stopped(plugin, row, f"bulkimg_row returned fields that raise {type(error).__name__}") from None
    return found


def _stopped(plugin: Plugin, row: Row, why: str) -> UsageError:
    return UsageError(f"{plugin.label}: line {row.line}: {why}; nothing was sent; fix the plugin, or leave it out")


def _refused(plugin: Plugin, row: Row, found: Any) -> list[RowProblem]:
    """Return why the row is refused: what the plugin says, or what is wrong with what it returned."""
    if found is None:
        return []
    if isinstance(found, Row):
        return [_wrong(plugin, row, column, why) for column, why in _faults(row, found)]
    given = [found] if isinstance(found, Problem) else found
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return [_wrong(plugin, row, "", f"returned {_a(found)}, not a Row, a Problem, a list of them or None")]
    return [_problem(plugin, row, item) for item in given]


def _problem(plugin: Plugin, row: Row, item: Any) -> RowProblem:
    if not isinstance(item, Problem):
        return _wrong(plugin, row, "", f"returned a list with {_a(item)}, which is not a Problem")
    texts = (item.message, item.field, item.fix)
    if not all(isinstance(text, str) for text in texts) or not item.message.strip():
        return _wrong(plugin, row, "", "returned a Problem whose message is empty or whose texts are no texts")
    message, column, fix = (plugin.hide(" ".join(text.split())[:LONGEST]) for text in texts)
    value = row.fields.get(column, row.cells.get(column, ""))
    return RowProblem(row.line, column, _short(value), "PLUGIN", f"{message} (plugin {plugin.name})", fix)


def _faults(row: Row, found: Row) -> list[tuple[str, str]]:
    """Return (column, what is wrong) for a row that a plugin must not return."""
    if changed := [name for name in _KEPT if getattr(row, name) != getattr(found, name)]:
        return [("", f"changed {changed[0]} of the row, which a plugin cannot")]
    if not isinstance(found.fields, Mapping):
        return [("", f"returned a row whose fields are {_a(found.fields)}, not a mapping")]
    faults = []
    for name, value in found.fields.items():
        if name not in FIELDS:
            faults.append(("", f"sets {str(name)[:60]!r}, which is no field{nearest(str(name), FIELDS, whole=False)}"))
        elif name in FLAGS and type(value) is not bool:
            faults.append((name, f"sets {_a(value)}, not True or False"))
        elif name in TAGS and not _is_tags(value):
            faults.append((name, f"sets {_a(value)}, not a list of texts"))
        elif name not in (*FLAGS, *TAGS) and type(value) is not str:
            faults.append((name, f"sets {_a(value)}, not a text"))
        elif _is_invisible(value):
            faults.append((name, "sets a blank text, and None is what leaves a field as it is"))
    return faults


def _wrong(plugin: Plugin, row: Row, column: str, why: str) -> RowProblem:
    message = f"{plugin.label} {why}" if not column else f"{why} (plugin {plugin.name})"
    return RowProblem(row.line, column, "", "PLUGIN", message, "fix the plugin, or leave it out")


def _a(value: Any) -> str:
    """Return what kind of thing a value is."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _is_invisible(value: Any) -> bool:
    """Return whether a value is a blank text. In a manifest it means None; from a plugin it is rather a mistake."""
    return isinstance(value, str) and value != "" and is_blank(value)


def _is_tags(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(tag) is str for tag in value)


def _fixed(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields that cannot be changed in place."""
    return MappingProxyType({name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else ";".join(value) if isinstance(value, tuple) else str(value).lower()
    return text if len(text) <= 60 else f"{text[:59]}…"
