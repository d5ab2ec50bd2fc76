"""This file turns flags, environment, job file and profile into one Settings object, in that order of precedence.

A wrong value is a UsageError that names the place it came from.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bulkimg.errors import UsageError
from bulkimg.settings import Settings
from bulkimg.values import nearest

_OPTIONS = {field.alias or name: name for name, field in Settings.model_fields.items()}
_FROM_JOB_ONLY = frozenset({"manifest", "job_name"})
_ENVIRONMENT = {f"BULKIMG_{option.upper()}": option for option in _OPTIONS if option not in _FROM_JOB_ONLY}


def variables() -> tuple[str, ...]:
    """The names of all options in the environment."""
    return tuple(_ENVIRONMENT)


PACE = (
    "rate",
    "concurrency",
    "adaptive",
    "processes",
    "timeout",
    "job_timeout",
    "max_duration",
    "window",
    "max_outage",
    "retries",
)

# A job file's tables, and the option each key sets (PRODUCT.md §7).
_JOB_KEYS: Mapping[str, Mapping[str, str]] = {
    "job": {"name": "job_name"}
    | {
        key: key
        for key in (
            "manifest",
            "format",
            "encoding",
            "empty_token",
            "skip_invalid",
            "skip_rows",
            "max_rows",
            "where",
            "tags",
            "tags_mode",
            "note",
        )
    },
    "target": {key: key for key in ("profile", "endpoint", "base_path", "ca_file", "require_tls", "action_key")},
    "pace": {key: key for key in PACE},
    "guard": {key: key for key in ("max_errors", "max_changes", "allow_field", "canary", "survey")},
    "results": {"path": "results"},
}
_JOB_PATHS = frozenset({"manifest", "results", "ca_file"})


@dataclass(frozen=True, slots=True)
class Layer:
    """Options from one place; `label(option)` says where an option was set, for messages."""

    options: Mapping[str, Any]
    label: Callable[[str], str]


def flag(option: str) -> str:
    """The option as a command line shows it."""
    return f"--{option.replace('_', '-')}"


def flags_layer(flags: Mapping[str, Any]) -> Layer:
    """What was given on the command line; None means not given."""
    return Layer({key: value for key, value in flags.items() if value is not None}, flag)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """`BULKIMG_<OPTION>`; an empty variable counts as not set."""
    options = {option: environ[name] for name, option in _ENVIRONMENT.items() if environ.get(name)}
    return Layer(options, lambda option: f"BULKIMG_{option.upper()}")


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables; UsageError with line and column where it is not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from None


def job_layer(path: Path) -> tuple[Layer, str | None]:
    """A job file's options, and the profile it names. Paths in it are relative to the file."""
    options: dict[str, Any] = {}
    for table, content in read_toml(path).items():
        if table in {"map", "set"}:
            options[table] = content
            continue
        if table not in _JOB_KEYS or not isinstance(content, dict):
            raise UsageError(
                f"{_place(path, table)}: unknown table [{table}]{nearest(table, [*_JOB_KEYS, 'map', 'set'])}"
            )
        for key, value in content.items():
            if key not in _JOB_KEYS[table]:
                raise UsageError(
                    f"{_place(path, key)}: unknown option {key!r} in [{table}]{nearest(key, _JOB_KEYS[table])}"
                )
            option = _JOB_KEYS[table][key]
            options[option] = (
                path.parent / value if option in _JOB_PATHS and isinstance(value, str) and value != "-" else value
            )
    if "manifest" not in options:
        raise UsageError(f'{path}: [job] names no manifest; add manifest = "FILE"')
    profile = options.pop("profile", None)
    if not isinstance(profile, str | None):
        raise UsageError(f"{_place(path, 'profile')}: profile {profile!r} is not a name")
    return Layer(options, lambda option: f"{path}: {option}"), profile


def _place(path: Path, key: str) -> str:
    """`file:line` of a key; tomllib does not tell positions, so the first line that begins with the key is named."""
    for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
        if re.match(rf"\s*\[?\s*[\"']?{re.escape(key)}\b", text):
            return f"{path}:{number}"
    return str(path)


def config_file(environ: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/bulkimg/config.toml`, by default under ~/.config."""
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".config"
    return Path(home) / "bulkimg" / "config.toml"


def read_profile(name: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """The table `[profile.NAME]` of the configuration file, credentials included; {} when no profile is asked for."""
    if not name:
        return {}
    path = config_file(environ)
    if not path.exists():
        raise UsageError(f"--profile {name}: there is no {path}; create it with a table [profile.{name}]")
    profiles = read_toml(path).get("profile", {})
    if not isinstance(profiles, dict) or not isinstance(profiles.get(name), dict):
        known = profiles if isinstance(profiles, dict) else ()
        raise UsageError(f"{path}: has no table [profile.{name}]{nearest(name, known)}")
    return dict(profiles[name])


def profile_layer(name: str | None, table: Mapping[str, Any], path: Path) -> Layer:
    """A profile's options, with an unknown key refused."""
    for key in table:
        if key not in _OPTIONS or key in _FROM_JOB_ONLY:
            raise UsageError(f"{_place(path, key)}: unknown option {key!r} in [profile.{name}]{nearest(key, _OPTIONS)}")
    return Layer(table, lambda option: f"{path}: [profile.{name}] {option}")


def merge(*layers: Layer) -> Settings:
    """The first layer that sets an option wins; UsageError names the option's place when its value is wrong."""
    options: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for layer in layers:
        for option, value in layer.options.items():
            if option not in options:
                options[option], labels[option] = value, layer.label(option)
    try:
        settings = Settings.model_validate(options)
    except ValidationError as error:
        raise UsageError("\n".join(_sentence(item, labels) for item in error.errors())) from None
    if settings.require_tls and settings.is_readable_on_the_way:
        raise UsageError(
            f"{labels['endpoint']} {settings.endpoint!r} is plain http to another machine, and {labels['require_tls']} "
            "forbids that; write https://"
        )
    return settings


def _sentence(item: Any, labels: Mapping[str, str]) -> str:
    option = str(item["loc"][0])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "literal_error":
        message = f"is not one of {item['ctx']['expected']}"
    elif item["type"] != "value_error":
        message = f"is not valid: {message[0].lower()}{message[1:]}"
    given = item["input"]
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    shown = re.sub(r"//.*@", "//…@", repr(given), flags=re.DOTALL) if option == "endpoint" else repr(given)
    return f"{labels.get(option, flag(option))} {shown[:200]} {message}"
