"""Define the rules of `[[notify]]` and `[[hook]]`: whom to tell about a run, and which programs to run around it.

They hold names of files and commands, never an address or a secret.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from bulkimg.model import Status
from bulkimg.values import expanded, nearest, parse_duration

NotifyOn = Literal["failed", "recovered", "changed", "stopped", "started", "always"]
HookPoint = Literal["before-run", "before-send", "after-run"]
EVENTS: tuple[NotifyOn, ...] = ("failed", "recovered", "changed", "stopped", "started", "always")
POINTS: tuple[HookPoint, ...] = ("before-run", "before-send", "after-run")
WAYS = ("webhook", "apprise", "healthchecks")
LONGEST_TRY = 60.0  # seconds for one try of a message
MOST_ROWS = 100  # rows in a message
_LONGEST_SHOWN = 60  # characters of a wrong value
HOOK_VARIABLE = (
    "BULKIMG_HOOK"  # tells a hook, and a bulkimg that it starts, that the others below are facts, not options
)
HOOK_VARIABLES = (
    HOOK_VARIABLE,
    "BULKIMG_RUN_ID",
    "BULKIMG_RUN_DIR",
    "BULKIMG_JOB",
    "BULKIMG_TARGET",
    "BULKIMG_EXIT_CODE",
    *(f"BULKIMG_COUNTS_{status.name}" for status in Status),
)


class WrongEntry(ValueError):
    """An entry of a job file is wrong. `number` counts from 1; `key` is "" where the whole entry is wrong."""

    def __init__(self, number: int, key: str, message: str) -> None:
        super().__init__(message)
        self.number, self.key = number, key


# -- values -------------------------------------------------------------------------------------------------------------


def parse_file(value: Any) -> Any:
    """Refuse an address where the name of a file must stand."""
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError('is not the name of a file; write a text such as "hook.url"')
    if "://" in value:
        raise ValueError("is an address, and an address is a secret; write it in a file (chmod 600) and name the file")
    return expanded(value)


def parse_command(value: Any) -> Any:
    """Take a program and its arguments as a list. No shell reads them."""
    if isinstance(value, str):
        raise ValueError('is one text, and no shell reads it; write a list: ["program", "argument"]')
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise ValueError('is not a list of texts; write ["program", "argument"]')
    if not value or not value[0].strip():
        raise ValueError('names no program; write ["program", "argument"]')
    if value[0].startswith("~"):
        expanded(value[0])
    return tuple(value)


def parse_events(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError('is not a list of events; write ["failed", "recovered"]')
    for event in value:
        if not isinstance(event, str) or event not in EVENTS:
            raise ValueError(f"contains {written(event)}, which is no event{nearest(str(event), EVENTS)}")
    return tuple(value)


def parse_point(value: Any) -> Any:
    if not isinstance(value, str) or value not in POINTS:
        raise ValueError(f"is not a point of a run{nearest(str(value), POINTS)}")
    return value


def parse_try(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError:
        raise ValueError(f"is not a time; write 10s or 500ms, at most {LONGEST_TRY:g}s") from None
    if seconds > LONGEST_TRY:
        raise ValueError(f"is longer than one try may take; write at most {LONGEST_TRY:g}s")
    return seconds


def parse_rows(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_ROWS:
        raise ValueError(f"is not a number of rows; write 0 to {MOST_ROWS}")
    return value


def written(value: Any) -> str:
    """Return a value for a message as TOML writes it, and no address."""
    if "://" in str(value):
        return "an address"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        text = f"[{', '.join(map(written, value))}]"
    elif isinstance(value, str | bool):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


_File = Annotated[Path | None, BeforeValidator(parse_file, json_schema_input_type=str)]
_Command = Annotated[tuple[str, ...], BeforeValidator(parse_command, json_schema_input_type=list[str])]
_Time = str | float


class _Rule(BaseModel):
    """A rule, and where each of its keys is written, as `job.toml:7`; of a run that is resumed this is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _places: Mapping[str, str] = PrivateAttr(default_factory=dict)

    def name(self, number: int, key: str) -> str:
        """Return how a message names a key of the rule with this number. More words may follow the key."""
        kind = f"[[{KINDS[type(self)]}]]"
        place = self._places.get(key.partition(" ")[0]) or self._places.get("")
        return f"{place}: {kind} {key}" if place else f"{kind} {number}: {key}"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, _Rule) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(tuple(self.model_dump().values()))


class NotifyRule(_Rule):
    """Whom to tell (one address), and on which events."""

    on: Annotated[tuple[NotifyOn, ...], BeforeValidator(parse_events, json_schema_input_type=list[NotifyOn])] = (
        "failed",
        "recovered",
    )
    webhook_file: _File = None
    webhook_command: _Command = ()
    apprise_file: _File = None
    apprise_command: _Command = ()
    healthchecks_file: _File = None
    healthchecks_command: _Command = ()
    secret_file: _File = None
    secret_command: _Command = ()
    rows: Annotated[int, BeforeValidator(parse_rows, json_schema_input_type=int), Field(ge=0, le=MOST_ROWS)] = 0
    timeout: Annotated[float, BeforeValidator(parse_try, json_schema_input_type=_Time)] = 10.0

    @property
    def way(self) -> str:
        """Return how the address is reached: webhook, apprise or healthchecks."""
        return next(way for way in WAYS if getattr(self, f"{way}_file") or getattr(self, f"{way}_command"))

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        places = [f"{way}_{how}" for way in WAYS for how in ("file", "command") if getattr(self, f"{way}_{how}")]
        if not places:
            raise ValueError("has no address; add webhook_file, apprise_file or healthchecks_file (or …_command)")
        if len(places) > 1:
            raise ValueError(f"has {places[0]} and {places[1]}; give each address a [[notify]] of its own")
        if self.secret_file and self.secret_command:
            raise ValueError("has secret_file and secret_command; keep one")
        if (self.secret_file or self.secret_command) and self.way != "webhook":
            raise ValueError(f"has a secret, which only signs webhooks, and {places[0]}; remove the secret")
        if self.way == "healthchecks" and "on" in self.model_fields_set:
            raise ValueError("has on and healthchecks_…, which hears of every start and end; remove on")
        return self


class Hook(_Rule):
    """A program to run at a point of the run."""

    at: Annotated[HookPoint, BeforeValidator(parse_point, json_schema_input_type=HookPoint)]
    run: Annotated[_Command, Field(min_length=1)]  # for the schema; parse_command says it better
    timeout: Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=_Time)] = 60.0


# -- entries of a file --------------------------------------------------------------------------------------------------

ENTRIES: Mapping[str, type[_Rule]] = {"notify": NotifyRule, "hook": Hook}
KINDS: Mapping[type[_Rule], str] = {model: kind for kind, model in ENTRIES.items()}
_FILES = tuple(name for name in NotifyRule.model_fields if name.endswith("_file"))
_COMMANDS = (*(name for name in NotifyRule.model_fields if name.endswith("_command")), "run")
_EXAMPLES = {"at": " or ".join(f'"{point}"' for point in POINTS), "run": '["program", "argument"]'}
_SAID_WITHOUT_VALUE = (*_FILES, *_COMMANDS, "on")

Where = Callable[[int, str], str]  # the place of a key of an entry, "" for the entry itself, as `job.toml:7`


def read_entries(kind: str, entries: Any, base: Path, where: Where = lambda number, key: "") -> tuple[_Rule, ...]:
    """Return the rules of a job file or a profile. Paths are relative to `base`. Raises WrongEntry."""
    if isinstance(entries, Mapping):
        raise WrongEntry(1, "", f"[{kind}] is one table, and there may be several; write [[{kind}]]")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise WrongEntry(1, "", f"{kind} is not a list of tables; write [[{kind}]]")
    return tuple(_entry(kind, number, entry, base, where) for number, entry in enumerate(entries, 1))


def _entry(kind: str, number: int, entry: Mapping[str, Any], base: Path, where: Where) -> _Rule:
    for key, value in entry.items():
        if key not in ENTRIES[kind].model_fields:
            raise WrongEntry(number, key, _unknown(kind, key, value))
    try:
        rule = ENTRIES[kind].model_validate({key: _placed(key, value, base) for key, value in entry.items()})
    except ValidationError as error:
        raise _wrong(kind, number, error) from None
    rule._places = {key: where(number, key) for key in ("", *entry)}
    return rule


def _unknown(kind: str, key: str, value: Any) -> str:
    way = next((way for way in (*WAYS, "secret") if key in {way, f"{way}_url"}), "")
    if way or (isinstance(value, str) and "://" in value):
        what = "a secret" if way == "secret" else "an address, and an address is a secret"
        return f"{key} would hold {what}; write it in a file (chmod 600) and name the file: {way or 'webhook'}_file"
    if other := next((name for name, model in ENTRIES.items() if key in model.model_fields), ""):
        return f"{key!r} is in [[{kind}]] but belongs in [[{other}]]; move it there"
    shown = "that is an address" if "://" in key else repr(key)
    return f"unknown key {shown} in [[{kind}]]{nearest(key, ENTRIES[kind].model_fields)}"


def _placed(key: str, value: Any, base: Path) -> Any:
    """Return paths as absolute ones. A program without a slash is searched for in PATH."""
    try:
        if key in _FILES and isinstance(found := parse_file(value), Path):
            return (base / found).absolute()
        if key in _COMMANDS and isinstance(value, list | tuple) and "/" in (words := parse_command(value))[0]:
            return [str((base / expanded(words[0])).absolute()), *words[1:]]
    except ValueError:
        pass  # validating the entry says why
    return value


def _wrong(kind: str, number: int, error: ValidationError) -> WrongEntry:
    found = error.errors(include_url=False)[0]
    key = str(found["loc"][0]) if found["loc"] else ""
    if found["type"] == "missing":
        return WrongEntry(number, "", f"[[{kind}]] has no {key}; add {key} = {_EXAMPLES[key]}")
    shown = "" if key in ("", *_SAID_WITHOUT_VALUE) else f" = {written(found['input'])}"
    message = found["msg"].removeprefix("Value error, ")
    return WrongEntry(number, key, f"[[{kind}]] {key}{shown} {message}".replace("  ", " "))
