"""Merge flags, environment, job file and profile into one Settings object, in that order of precedence.

A wrong value is a UsageError that names the place it came from.
"""

import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bulkimg.errors import UsageError
from bulkimg.notifications import ENTRIES, HOOK_VARIABLE, HOOK_VARIABLES, WrongEntry, read_entries
from bulkimg.place import cluster_beside
from bulkimg.query import SqlSource, read_source
from bulkimg.settings import PLAN_SHAPE, Settings
from bulkimg.values import LONGEST_RUN_ID, expanded, nearest, parse_path

_OPTIONS = {field.alias or name: name for name, field in Settings.model_fields.items()}
_CAMPAIGN = ("target_column", "every_target")  # keys of [job] that say which target a row is for
_FROM_JOB_ONLY = frozenset(
    {"manifest", "source", "job_name", "keep", "encoding_is_configured", "target_names", *_CAMPAIGN}
)
_ENVIRONMENT = {f"BULKIMG_{option.upper()}": option for option in _OPTIONS if option not in {*_FROM_JOB_ONLY, *ENTRIES}}


def variables() -> tuple[str, ...]:
    """Return the names of all options in the environment."""
    return tuple(_ENVIRONMENT)


PACE = (
    "rate",
    "concurrency",
    "adaptive",
    "timeout",
    "job_timeout",
    "max_duration",
    "window",
    "max_outage",
    "retries",
)

# A job file's tables, and the option each key sets (docs/reference/jobs.md).
_JOB_KEYS: dict[str, Mapping[str, str]] = {
    "job": {"name": "job_name", "keep": "keep"}
    | {
        key: key
        for key in (
            "manifest",
            "format",
            "sheet",
            "hidden_rows",
            "encoding",
            "empty_token",
            "skip_invalid",
            "strict",
            "skip_rows",
            "max_rows",
            "where",
            "plugins",
            "tags",
            "tags_mode",
            "note",
            "run_id",
            *_CAMPAIGN,
        )
    },
    "target": {key: key for key in ("profile", "endpoint", "base_path", "ca_file", "require_tls", "action_key")},
    "pace": {key: key for key in PACE},
    "guard": {
        key: key
        for key in ("max_errors", "max_changes", "allow_field", "canary", "survey", "allow_overlap", "lock_wait")
    },
    "results": {"path": "results"},
}
# [run] takes every other option that a flag can set.
_JOB_KEYS["run"] = {
    option: option
    for option in _OPTIONS
    if option not in {*_FROM_JOB_ONLY, *ENTRIES, "map", "set", "profile"}
    and not any(option in keys.values() for keys in _JOB_KEYS.values())
}
# A table [targets.NAME] takes what may differ between servers.
TARGET_KEYS: Mapping[str, str] = {
    **_JOB_KEYS["target"],
    **_JOB_KEYS["pace"],
    **{key: key for key in ("max_errors", "max_changes", "allow_field", "canary")},
}
_TARGET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", re.ASCII)
REMOVED = {"processes": "was removed, as one process is faster now; delete it"}  # options of earlier versions
JOB_SCHEMA = 1  # the version of job files that bulkimg reads


def job_tables() -> Mapping[str, Mapping[str, str]]:
    """Return the tables of a job file that have fixed keys: key → option, by table."""
    return _JOB_KEYS


_JOB_PATHS = frozenset({"manifest", "results", "ca_file", "runs_dir", "metrics_file"})


@dataclass(frozen=True, slots=True)
class Layer:
    """The options from one place. `label(option)` tells where an option was set, for messages."""

    options: Mapping[str, Any]
    label: Callable[[str], str]


def flag(option: str) -> str:
    """Return the option as a command line writes it."""
    return "--plugin" if option == "plugins" else f"--{option.replace('_', '-')}"  # one name each time


def flags_layer(flags: Mapping[str, Any]) -> Layer:
    """Return the options of the command line, without those that were not given (None)."""
    return Layer({key: value for key, value in flags.items() if value is not None}, flag)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Return the options in variables `BULKIMG_<OPTION>`. Empty variables and line ends are ignored."""
    facts = HOOK_VARIABLES if environ.get(HOOK_VARIABLE) else ()  # a hook starts bulkimg: these are about its own run
    names = {name: option for name, option in _ENVIRONMENT.items() if name not in facts}
    given = {option: environ.get(name, "").rstrip("\r\n") for name, option in names.items()}
    options = {option: value for option, value in given.items() if value}
    for option, why in REMOVED.items():
        if environ.get(name := f"BULKIMG_{option.upper()}"):
            raise UsageError(f"{name} {why}")
    return Layer(options, lambda option: f"BULKIMG_{option.upper()}")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file with or without a byte order mark. Raises UsageError with line and column if it is not TOML."""
    try:
        return tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not TOML: {error}") from None


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = "UTF-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "not UTF-8"
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}:{line}: the file is {what}; save it as UTF-8") from None


def job_layer(path: Path, target: str = "") -> tuple[Layer, str | None]:
    """Return a job file's options, and the profile that it names. Its paths are relative to the file.

    `target` names a table [targets.NAME]. Its options win over those of the other tables.
    """
    job = _Job(path)
    declared: Mapping[str, Any] = {}
    for table, content in read_toml(path).items():
        if table == "schema" and content == JOB_SCHEMA:
            continue
        if table == "targets":
            declared = job.declared(content)
        elif table in {"map", "set", "source", *ENTRIES}:
            job.options[table] = _entries(path, table, table, content)
            job.tables[table] = table
        elif table not in _JOB_KEYS or not isinstance(content, dict):
            raise UsageError(f"{place(path, '', table)}: {_unknown_table(table)}")
        else:
            job.take(table, content, _JOB_KEYS[table])
    _check_one_manifest(path, job.options)
    _refuse_nameless_keep(path, job.options)
    job.check_campaign(declared)
    if target:
        job.take(f"targets.{target}", declared[target], TARGET_KEYS)
    profile = job.options.pop("profile", None)
    if not isinstance(profile, str | None):
        raise UsageError(
            f"{place(path, job.tables['profile'], 'profile')}: profile {profile!r} is not a string; "
            "write the name of a profile"
        )
    return Layer(job.options, job.label), profile


class _Job:
    """The options of a job file while it is read, and the table of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.options: dict[str, Any] = {}
        self.tables: dict[str, str] = {}

    def take(self, table: str, content: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Add the keys of a table. Raises UsageError for an unknown one."""
        for key, value in content.items():
            if key not in known:
                raise UsageError(f"{place(self._path, table, key)}: {_unknown_key(table, key)}")
            option = known[key]
            if option == "cluster":
                self.options[option] = cluster_beside(self._path, value)
            elif option in _JOB_PATHS:
                self.options[option] = _relative_to(self._path, table, key, value)
            else:
                self.options[option] = value
            self.tables[option] = table

    def declared(self, content: Any) -> Mapping[str, Any]:
        """Return the tables [targets.NAME] by name. Raises UsageError for what is none."""
        if not isinstance(content, dict) or not content:
            raise UsageError(f"{place(self._path, '', 'targets')}: targets is no table; write [targets.NAME]")
        for name, table in content.items():
            where = place(self._path, "", f"targets.{name}")
            if not isinstance(table, dict):
                raise UsageError(
                    f"{place(self._path, 'targets', name)}: {name!r} is outside a target; write [targets.NAME]"
                )
            if not _TARGET_NAME.fullmatch(name):
                raise UsageError(f"{where}: {name!r} is not a target's name; use up to 40 letters, digits, _ and -")
            for key in table:
                if key not in TARGET_KEYS:
                    raise UsageError(
                        f"{place(self._path, f'targets.{name}', key)}: {_unknown_key(f'targets.{name}', key)}"
                    )
        self.options["target_names"] = tuple(content)
        self.tables["target_names"] = "targets"
        return content

    def check_campaign(self, declared: Mapping[str, Any]) -> None:
        """Raise UsageError unless exactly one rule says which target a row is for."""
        given = [key for key in _CAMPAIGN if self.options.get(key)]
        if declared and not given:
            raise UsageError(
                f"{place(self._path, '', f'targets.{next(iter(declared))}')}: there are targets, but nothing says which rows are "
                'for which; add target_column = "COLUMN" or every_target = true to [job]'
            )
        if len(given) > 1:
            raise UsageError(
                f"{place(self._path, 'job', given[1])}: [job] has target_column and every_target; keep one of them"
            )
        if given and not declared:
            raise UsageError(
                f"{place(self._path, 'job', given[0])}: [job] {given[0]} needs targets; add a table [targets.NAME] for each server"
            )

    def label(self, option: str) -> str:
        """Return where an option was set: `job.toml:12: [pace] rate =`."""
        table = self.tables.get(option, "")
        known = TARGET_KEYS if table.startswith("targets.") else _JOB_KEYS.get(table, {})
        key = next((name for name, meant in known.items() if meant == option), option)
        shown = f"[{table}]" if table in {"map", "set"} else f"[{table}] {key} ="
        return f"{place(self._path, '' if table in {'map', 'set'} else table, key)}: {shown}"


def _check_one_manifest(path: Path, options: Mapping[str, Any]) -> None:
    """Raise UsageError unless the job says in one place what it changes."""
    if "manifest" in options and "source" in options:
        where = place(path, "job", "manifest")
        raise UsageError(f"{where}: [job] has a manifest, and [source] takes its place; keep one of them")
    if "manifest" not in options and "source" not in options:
        raise UsageError(f'{path}: [job] has no manifest; add manifest = "FILE", or the table [source]')


def _refuse_nameless_keep(path: Path, options: Mapping[str, Any]) -> None:
    if "keep" in options and not options.get("job_name"):
        raise UsageError(f'{place(path, "job", "keep")}: [job] keep removes runs of one name; add name = "NAME"')


def _entries(path: Path, kind: str, header: str, content: Any) -> Any:
    """Return a table whose keys are its own, read where it has a model. Raises UsageError with the place of a mistake."""
    try:
        if kind == "source":
            return read_source(content, path.parent)
        if kind not in ENTRIES:
            return content
        return read_entries(kind, content, path.parent, lambda number, key: _place_in(path, header, number, key))
    except WrongEntry as error:
        raise UsageError(f"{_place_in(path, header, error.number, error.key)}: {error}") from None


def _place_in(path: Path, header: str, number: int, key: str) -> str:
    """Return `file:line` of a key in the table of this number that has this header, or of the table itself."""
    seen, begins = 0, ""
    for line, text in enumerate(_text(path).splitlines(), 1):
        if found := re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", text):
            name = found[1].replace('"', "").replace("'", "")
            seen += (is_one := name == header)
            if name.startswith(f"{header}.") and not (seen or begins):
                begins = f"{path}:{line}"
            begins = f"{path}:{line}" if is_one and seen == number else begins
        elif begins and seen == number and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", text):
            return f"{path}:{line}"
    return begins or place(path, *header.rpartition(".")[::2])


def _relative_to(path: Path, table: str, key: str, value: Any) -> Any:
    """Return a path of a job file relative to that file. `-` and values that are not strings stay."""
    if not isinstance(value, str) or value == "-":
        return value
    try:
        return path.parent / parse_path(value)
    except ValueError as error:
        raise UsageError(f"{place(path, table, key)}: [{table}] {key} = {value!r} {error}") from None


def _unknown_table(name: str) -> str:
    """Describe an unknown table. It may be a key outside its table."""
    if name == "schema":
        return f"schema is not {JOB_SCHEMA}, the only version that this bulkimg reads; upgrade bulkimg"
    if homes := [table for table, keys in _JOB_KEYS.items() if name in keys]:
        return f"{name!r} is outside any table; move it to [{homes[0]}]"
    if name in SqlSource.model_fields:
        return f"{name!r} is outside any table; move it to [source]"
    return f"unknown table [{name}]{nearest(name, [*_JOB_KEYS, 'map', 'set', 'source', 'targets', *ENTRIES])}"


def _unknown_key(table: str, key: str) -> str:
    """Describe a key that its table does not accept. Another table may accept it."""
    if key in REMOVED:
        return f"[{table}] {key} {REMOVED[key]}"
    if key in ENTRIES or key == "source":
        written = f"[[{key}]]" if key in ENTRIES else f"[{key}]"
        return f"{key!r} is in [{table}] but is a table of its own; write {written}"
    if homes := [other for other, keys in _JOB_KEYS.items() if key in keys]:
        return f"{key!r} is in [{table}] but belongs in [{homes[0]}]; move it there"
    if kinds := [kind for kind, model in ENTRIES.items() if key in model.model_fields]:
        return f"{key!r} is in [{table}] but belongs in [[{kinds[0]}]]; move it there"
    if key in SqlSource.model_fields:
        return f"{key!r} is in [{table}] but belongs in [source]; move it there"
    everywhere = {name: home for home, keys in _JOB_KEYS.items() for name in keys}
    own = _JOB_KEYS.get(table, TARGET_KEYS)
    if not (found := nearest(key, everywhere, whole=False)):
        return f"unknown option {key!r} in [{table}]{nearest(key, own)}"
    word = found.removeprefix("; did you mean '").removesuffix("'?")
    home = "" if word in own else f" in [{everywhere[word]}]"
    return f"unknown option {key!r} in [{table}]; did you mean {word!r}{home}?"


def place(path: Path, table: str, key: str) -> str:
    """Return `file:line` of a key in a table ("" for the top level). tomllib reports no positions."""
    inside = not table
    for number, text in enumerate(_text(path).splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", text):
            name = header[1].replace('"', "").replace("'", "")
            if not table and name == key:
                return f"{path}:{number}"
            inside = not table or name == table
        elif inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", text):
            return f"{path}:{number}"
    return str(path)


def config_file(environ: Mapping[str, str]) -> Path:
    """Return `$XDG_CONFIG_HOME/bulkimg/config.toml`, by default under ~/.config."""
    try:
        if given := environ.get("XDG_CONFIG_HOME"):
            return expanded(given) / "bulkimg" / "config.toml"
        return expanded(environ.get("HOME") or "~") / ".config" / "bulkimg" / "config.toml"
    except ValueError:
        raise UsageError(
            "the home directory is not known, so the configuration file cannot be found; set HOME or XDG_CONFIG_HOME"
        ) from None


def read_profile(name: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the table `[profile.NAME]` of the configuration file with its credentials, or {} without a profile."""
    if not name:
        return {}
    path = config_file(environ)
    if not path.exists():
        raise UsageError(f"--profile {name}: {path} does not exist; create it with a table [profile.{name}]")
    profiles = read_toml(path).get("profile", {})
    if not isinstance(profiles, dict) or not isinstance(profiles.get(name), dict):
        known = profiles if isinstance(profiles, dict) else ()
        raise UsageError(f"{path}: has no table [profile.{name}]{nearest(name, known)}")
    return dict(profiles[name])


def profile_layer(
    name: str | None, table: Mapping[str, Any], environ: Mapping[str, str], others: Collection[str] = ()
) -> Layer:
    """Return a profile's options. Raises UsageError for an unknown key. `others` are keys that are allowed besides."""
    if not name:
        return Layer({}, str)
    path, home = config_file(environ), f"profile.{name}"
    known = [option for option in _OPTIONS if option not in _FROM_JOB_ONLY]
    for key in table:
        if key in REMOVED:
            raise UsageError(f"{place(path, home, key)}: [{home}] {key} {REMOVED[key]}")
        if key not in known:
            near = nearest(key, [*known, *others])
            raise UsageError(f"{place(path, home, key)}: unknown option {key!r} in [{home}]{near}")
    entries = {key: _entries(path, key, f"{home}.{key}", value) for key, value in table.items() if key in ENTRIES}
    return Layer({**table, **entries}, lambda option: f"{place(path, home, option)}: [{home}] {option} =")


def merge(*layers: Layer) -> Settings:
    """Merge the layers: the first that sets an option wins. Raises UsageError with the place of a wrong value."""
    options: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for layer in layers:
        for option, value in layer.options.items():
            if option not in options:
                options[option], labels[option] = value, layer.label(option)
    options["encoding_is_configured"] = labels.get("encoding", flag("encoding")) != flag("encoding")
    try:
        settings = Settings.model_validate(options)
    except ValidationError as error:
        raise UsageError("\n".join(_sentence(item, labels) for item in error.errors())) from None
    if settings.require_tls and settings.is_readable_on_the_way:
        raise UsageError(
            f"{labels['endpoint']} {settings.endpoint!r} is unencrypted http to another machine, which "
            f"{labels['require_tls']} forbids; use https://"
        )
    return _named_apart(settings)


def _named_apart(settings: Settings) -> Settings:
    """Give a shard's run, job and result file names of their own: all shards of an array have the same options."""
    if settings.shard is None:
        return settings
    suffix = settings.shard.suffix
    own: dict[str, object] = {}
    if settings.run_id and not settings.run_id.endswith(suffix):
        if len(settings.run_id + suffix) > LONGEST_RUN_ID:
            raise UsageError(
                f"--run-id {settings.run_id} is too long for a shard, whose run ends in {suffix}; use a shorter name"
            )
        own["run_id"] = settings.run_id + suffix
    if (settings.job_name or settings.metrics_file) and not settings.job_name.endswith(suffix):
        own["job_name"] = (settings.job_name or "run") + suffix
    if settings.results and not settings.results.stem.endswith(suffix):
        own["results"] = settings.results.with_stem(settings.results.stem + suffix)
    return settings.model_copy(update=own)


def resuming(layers: Sequence[Layer], stored: Mapping[str, Any]) -> Settings:
    """Return the settings to resume a run: what is given now, then what it began with.

    The meaning of its plan stays.
    """
    fixed = {name: stored[name] for name in PLAN_SHAPE if name in stored}
    own = {name: value for name, value in stored.items() if name not in ("profile", "manifest", "source", "job_name")}
    return merge(Layer(fixed, str), *layers, Layer(own, lambda option: f"the run's {option}"))


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
