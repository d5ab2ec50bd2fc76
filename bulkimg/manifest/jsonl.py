"""Read JSONL lines into objects, flat or in the API's own form. A bad line becomes a problem."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bulkimg.blank import is_blank, trim
from bulkimg.manifest.encoding import UNDECODABLE
from bulkimg.manifest.source import MAX_LINE
from bulkimg.model import Problem

NESTED = ("updateimage", "updateImage")


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """The keys of one line without the API's nested object, or what is wrong with the line."""

    line: int
    keys: dict[str, Any]
    problem: Problem | None = None


class _BadLineError(ValueError):
    def __init__(self, column: str, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.column, self.code, self.fix = column, code, fix


def read_objects(lines: Iterable[tuple[int, str | None]]) -> Iterator[JsonRecord]:
    """Yield the objects in order. Blank lines are skipped."""
    for number, text in lines:
        if text is not None and is_blank(text):
            continue
        try:
            yield JsonRecord(number, _flat(_decode(text)))
        except _BadLineError as bad:
            value = (text or "").strip()[:40]
            yield JsonRecord(number, {}, Problem(number, bad.column, value, bad.code, str(bad), bad.fix))


def _decode(text: str | None) -> Any:
    if text is None:
        raise _BadLineError("", "LINE_TOO_LONG", f"the line is longer than {MAX_LINE:,} characters", "split it")
    if (at := text.find(UNDECODABLE)) >= 0:
        fix = "save the file as UTF-8, or give its encoding with --encoding"
        raise _BadLineError(
            f"character {at + 1}", "ENCODING", "contains bytes that are not valid in this encoding", fix
        )
    try:
        return json.loads(trim(text), object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        at = text.find(trim(text)) + error.pos + 1
        raise _BadLineError(f"character {at}", "JSON_SYNTAX", f"is not JSON: {error.msg}", _fix(text)) from None
    except RecursionError:
        raise _BadLineError("", "JSON_SYNTAX", "is nested too deeply", "write one flat object on each line") from None
    except _BadLineError:
        raise
    except ValueError:  # an integer with more digits than Python converts
        raise _BadLineError(
            "", "JSON_SYNTAX", "contains a number with too many digits", "write it as a string"
        ) from None


def _fix(text: str) -> str:
    """Return what to do with a line that is part of an array, or of an object over several lines."""
    line = trim(text)
    if line.startswith("[") or (line.startswith("{") and line.endswith(("},", "}]"))):
        return "write one object on each line; jq -c '.[]' FILE converts an array"
    if line in ("{", "}", "},", "]") or line.startswith('"'):
        return "write each object on one line; jq -c . FILE converts the file"
    return "write one object on each line"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    pairs = [(trim(name), value) for name, value in pairs]
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _BadLineError(twice, "KEY_TWICE", "appears twice in one object", "keep one of them")
    return found


def _no_constant(name: str) -> Any:
    raise _BadLineError("", "JSON_SYNTAX", f"{name} is not JSON", "write a string, true or false")


def _flat(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        advice = "; jq -c '.[]' FILE converts an array" if isinstance(value, list) else ""
        fix = f'write one object on each line: {{"uuid": "…", "name": "…"}}{advice}'
        raise _BadLineError("", "JSON_SHAPE", "is not an object", fix)
    flat = dict(value)
    for key in NESTED:
        inner = flat.pop(key, None)
        if inner is None:
            continue
        if not isinstance(inner, dict):
            raise _BadLineError(key, "JSON_SHAPE", "is not an object", f'write {{"{key}": {{"name": "…"}}}}')
        if both := flat.keys() & inner.keys():
            raise _BadLineError(min(both), "KEY_TWICE", f"appears both inside and outside {key}", "keep one of them")
        flat |= inner
    return flat
