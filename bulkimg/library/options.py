"""The keyword options of the library with their types. They have the names of the command line's options."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from bulkimg.credentials import PROFILE_KEYS, Credentials, find_credentials
from bulkimg.errors import UsageError
from bulkimg.layers import Layer, job_layer, merge, profile_layer, read_profile, resuming
from bulkimg.notifications import HookPoint, NotifyOn, WrongEntry, read_entries
from bulkimg.settings import Settings
from bulkimg.values import parse_path

AnyPath = str | os.PathLike[str]
_RULES = {"notify": "notify", "hooks": "hook"}  # keyword → table of a job file
_TYPES = {"notify": "NotifyOptions", "hooks": "HookOptions"}
Pairs = Mapping[str, str | bool | float] | Sequence[str]


class NotifyOptions(TypedDict, total=False):
    """Whom to tell about a run: one address, as `[[notify]]` of a job file. Paths are relative to the working directory."""

    on: Sequence[NotifyOn]
    webhook_file: AnyPath
    webhook_command: Sequence[str]
    apprise_file: AnyPath
    apprise_command: Sequence[str]
    healthchecks_file: AnyPath
    healthchecks_command: Sequence[str]
    secret_file: AnyPath
    secret_command: Sequence[str]
    rows: int
    timeout: str | float


class HookOptions(TypedDict):
    """A program to run at a point of a run, as `[[hook]]` of a job file."""

    at: HookPoint
    run: Sequence[str]
    timeout: NotRequired[str | float]


class Options(TypedDict, total=False):
    """The keyword options.

    Times are seconds or texts such as "30s"; a rate is requests a second or a text such as "300/min".
    """

    endpoint: str
    base_path: str
    profile: str
    ca_file: AnyPath
    require_tls: bool
    action_key: Literal["auto", "updateimage", "updateImage"]
    rate: str | float
    concurrency: int
    adaptive: bool
    timeout: str | float
    job_timeout: str | float
    max_duration: str | float
    window: str
    max_outage: str | float
    retries: int
    max_errors: str | int
    survey: bool
    max_changes: str | int
    allow_field: str | Sequence[str]
    canary: int
    tags: Literal["auto", "body", "api"]
    tags_mode: Literal["add", "replace"]
    note: str
    run_id: str
    shard: str
    cluster: str
    desk: str
    allow_overlap: bool
    lock_wait: str | float
    format: Literal["csv", "tsv", "jsonl", "ndjson", "xlsx", "parquet"]
    sheet: str
    hidden_rows: Literal["include", "skip"]
    encoding: str
    map: Pairs
    set: Pairs
    empty_token: str
    allow_value: Sequence[str]
    strict: bool
    skip_invalid: bool
    skip_rows: int
    max_rows: int
    where: str | Sequence[str]
    plugins: str | Sequence[str]
    results: AnyPath
    runs_dir: AnyPath
    metrics_file: AnyPath
    metrics_listen: str
    otel: bool
    notify: Sequence[NotifyOptions]
    hooks: Sequence[HookOptions]


class MergeOptions(TypedDict, total=False):
    """The keyword options of `merge`: what the merged run is called, and where it is kept."""

    run_id: str
    note: str
    results: AnyPath
    runs_dir: AnyPath


class Asked:
    """What a call asks for: the settings, and the credentials, from the same places as on the command line."""

    def __init__(
        self,
        options: Mapping[str, Any],
        credentials: Credentials | None,
        *,
        job: Path | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> None:
        """Read the settings.

        `stored` are the options of an earlier run, used where nothing else is given. Raises UsageError.
        """
        _refuse_unknown(options, Options)
        layers = [Layer(_given(options), str)]
        profile = options.get("profile")
        if job is not None:
            layer, job_profile = job_layer(job)
            layers.append(layer)
            profile = profile or job_profile
        if stored is not None:
            layers.append(Layer(stored, lambda option: f"the run's {option}"))
            profile = profile or stored.get("profile")
        table = read_profile(profile, os.environ)
        secrets = {key: table.pop(key) for key in PROFILE_KEYS if key in table}
        layers.append(profile_layer(profile, table, os.environ, PROFILE_KEYS))
        self._layers = layers
        self.settings: Settings = merge(*layers)
        if self.settings.target_names:
            raise UsageError(f"{job}: has several targets, which the library does not execute; use bulkimg run {job}")
        if self.settings.endpoint is None:
            raise UsageError('no server: give endpoint="http://host:8080", or profile="NAME"')
        if not isinstance(credentials, Credentials | None):
            raise UsageError("credentials is not a bulkimg.Session, Account or AccessKey object")
        self.credentials = credentials or find_credentials(os.environ, secrets)

    def resuming(self, stored: Mapping[str, Any]) -> Settings:
        """Return the settings to resume the run that `run_id` names."""
        return resuming(self._layers, stored)


def runs_directory(given: AnyPath) -> Path:
    """Return the runs directory. Raises UsageError if it is empty or no path."""
    try:
        return parse_path(given)
    except ValueError as error:
        raise UsageError(f"runs_dir {given!r} {error}") from None


def merge_settings(options: Mapping[str, Any]) -> Settings:
    """Return the settings of a merge. Raises UsageError."""
    _refuse_unknown(options, MergeOptions)
    return merge(Layer(_given(options), str))


def _refuse_unknown(options: Mapping[str, Any], kind: type) -> None:
    from bulkimg.values import nearest

    known = kind.__annotations__
    for name in options:
        if name not in known:
            raise UsageError(f"there is no option {name!r}{nearest(name, known, whole=False)}")


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as Settings takes them, without those that are None."""
    found = {name: _plain(value) for name, value in options.items() if value is not None}
    for name, kind in _RULES.items():
        if name in found:
            found[kind] = _rules(name, kind, found.pop(name))
    return found


def _rules(name: str, kind: str, rules: Any) -> Any:
    """Return the rules of messages or hooks. Raises UsageError."""
    if isinstance(rules, str | Mapping) or not isinstance(rules, Sequence):
        raise UsageError(f"{name} is not a list of mappings; see bulkimg.{_TYPES[name]}")
    for number, rule in enumerate(rules):
        if not isinstance(rule, Mapping):
            raise UsageError(f"{name}[{number}] is not a mapping; see bulkimg.{_TYPES[name]}")
    entries = [{key: _plain(value) for key, value in rule.items() if value is not None} for rule in rules]
    try:
        return read_entries(kind, entries, Path.cwd(), lambda number, key: f"{name}[{number - 1}]")
    except WrongEntry as error:
        raise UsageError(f"{name}[{error.number - 1}]: {str(error).removeprefix(f'[[{kind}]] ')}") from None


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
