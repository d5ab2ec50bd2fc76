"""The options that commands share: each is declared once, and a command names the ones it takes."""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import typer

from bulkimg import layers
from bulkimg.cli import screen
from bulkimg.credentials import CREDENTIAL_VARIABLES, PROFILE_KEYS, Account, Credentials, find_credentials
from bulkimg.engine.shape import PLAN_SHAPE
from bulkimg.errors import UsageError
from bulkimg.layers import (
    Layer,
    config_file,
    environment_layer,
    flags_layer,
    job_layer,
    merge,
    profile_layer,
    read_profile,
    variables,
)
from bulkimg.settings import Settings
from bulkimg.values import nearest, parse_endpoint, parse_path

Flags = dict[str, Any]


def _text(names: str, metavar: str, help_: str) -> Any:
    return Annotated[str | None, typer.Option(*names.split(), metavar=metavar, help=help_, show_default=False)]


def _many(names: str, metavar: str, help_: str) -> Any:
    return Annotated[list[str] | None, typer.Option(*names.split(), metavar=metavar, help=help_, show_default=False)]


def _switch(names: str, help_: str) -> Any:
    return Annotated[bool | None, typer.Option(*names.split(), help=help_, show_default=False)]


OPTIONS: dict[str, Any] = {
    "endpoint": _text("--endpoint", "URL", "Scheme, host and port of the server."),
    "base_path": _text("--base-path", "PATH", "Context path of the API.  [default: /zstack]"),
    "profile": _text("--profile", "NAME", "Profile in the configuration file."),
    "ca_file": _text("--ca-file", "FILE", "Certificate authority to trust instead of the system's."),
    "action_key": _text(
        "--action-key", "KEY", "auto, updateimage or updateImage: how the server spells it.  [default: auto]"
    ),
    "rate": _text("--rate", "N/s", "Hard cap on all requests; 300/min and unlimited do too.  [default: 50/s]"),
    "concurrency": _text("--concurrency", "N", "Hard cap on rows in flight.  [default: 16]"),
    "adaptive": _switch(
        "--adaptive/--no-adaptive",
        "Find out, below --concurrency, how many rows the server works on.  [default: adaptive]",
    ),
    "processes": _text(
        "--processes", "N", "Processor cores to use: HTTP in N-1 processes beside this one.  [default: 1]"
    ),
    "timeout": _text("--timeout", "TIME", "Longest wait for one answer.  [default: 30s]"),
    "job_timeout": _text("--job-timeout", "TIME", "Longest wait for the job of a 202 answer.  [default: 30m]"),
    "max_duration": _text("--max-duration", "TIME", "Stop, resumable, after so long: exit code 6.  [default: none]"),
    "window": _text(
        "--window", "HH:MM-HH:MM", "Begin rows in these hours only, by this machine's clock; several with commas."
    ),
    "max_outage": _text(
        "--max-outage", "TIME", "Stop, resumable, when a server that is down has not come back.  [default: 1h]"
    ),
    "retries": _text("--retries", "N", "More tries for a row after errors that may pass.  [default: 5]"),
    "max_errors": _text(
        "--max-errors", "N|N%", "Stop when more rows have failed; none never does.  [default: 50% of the last 1000]"
    ),
    "format": _text("--format", "FORMAT", "csv, tsv, jsonl or ndjson, when the name does not say."),
    "encoding": _text("--encoding", "NAME", "Encoding of the manifest.  [default: utf-8]"),
    "map": _many("--map", "COLUMN=FIELD", "Take a field (or uuid) from a column of another name. Repeatable."),
    "set": _many("--set", "FIELD=VALUE", "Set a field in every row; {column} takes the row's own. Repeatable."),
    "empty_token": _text(
        "--empty-token", "TEXT", "The cell that sets a field to the empty string.  [default: <empty>]"
    ),
    "allow_value": _many("--allow-value", "FIELD=VALUE", "Admit a value that bulkimg does not know yet. Repeatable."),
    "strict": _switch("--strict", "Take warnings for problems: a manifest with one is refused."),
    "skip_invalid": _switch("--skip-invalid", "Record bad rows as invalid and run the others."),
    "tags_mode": _text(
        "--tags-mode", "MODE", "add keeps an image's other tags, replace removes those not listed.  [default: add]"
    ),
    "tags": _text(
        "--tags",
        "HOW",
        "body sends tags with the change, api by calls of their own, auto both where needed.  [default: auto]",
    ),
    "survey": _switch("--survey/--no-survey", "Look at the images before anything is sent.  [default: survey]"),
    "max_changes": _text("--max-changes", "N|N%", "Refuse a plan that changes more images.  [default: none]"),
    "allow_field": _many(
        "--allow-field", "FIELD", "Let architecture, mediaType or format change. Repeatable, or with commas."
    ),
    "canary": _text("--canary", "N", "Send N rows first, spread over the plan; go on only if all of them are fine."),
    "note": _text("--note", "TEXT", "A ticket or a reason, kept with the run."),
    "run_id": _text("--run-id", "NAME", "Name the run; a run of that name that can be resumed is resumed."),
    "allow_overlap": _switch("--allow-overlap", "Run although another run of this manifest or job is under way."),
    "skip_rows": _text("--skip-rows", "N", "Leave out the first N rows."),
    "max_rows": _text("--max-rows", "N", "Leave out what comes after N rows."),
    "where": _many(
        "--where", "COLUMN=VALUE", "Only rows whose cell is (=), is not (!=) or is like (~=, with %) this. Repeatable."
    ),
    "results": _text("--results", "FILE", "Write the results here too (.csv or .jsonl)."),
    "runs_dir": _text("--runs-dir", "DIR", "Where runs are kept.  [default: runs]"),
    "progress": _text("--progress", "KIND", "auto, bar, plain, json or none.  [default: auto]"),
    "json": _switch("--json", "One summary document on standard output."),
    "log_format": _text("--log-format", "FORMAT", "text or json, for messages on standard error.  [default: text]"),
    "quiet": _switch("--quiet -q", "Nothing on standard error when the exit code is 0."),
    "verbose": _switch("--verbose -v", "Say what is tried again, and why."),
    "yes": _switch("--yes -y", "Do not ask."),
    "dry_run": _switch("--dry-run -n", "Offline: check, and show what is asked for. `plan` looks at the images."),
}
TARGET = ("endpoint", "base_path", "profile", "ca_file", "action_key")
PACE = (*layers.PACE, "max_errors")
MANIFEST = (
    "format",
    "encoding",
    "map",
    "set",
    "empty_token",
    "allow_value",
    "strict",
    "skip_invalid",
    "skip_rows",
    "max_rows",
    "where",
    "tags_mode",
)
GUARD = ("max_changes", "allow_field", "canary", "allow_overlap")
PLAN = ("survey", "tags", "note", "run_id", *GUARD)
REPORT = ("results", "runs_dir", "progress", "json", "log_format", "quiet", "verbose")
SPEECH = ("json", "log_format", "quiet")


def user_path(text: str) -> Path:
    """A path argument with `~` replaced; UsageError where there is no such home directory."""
    try:
        return parse_path(text)
    except ValueError as error:
        raise UsageError(f"{text!r} {error}") from None


def takes(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the named options; it gets those that were given on the command line as `flags`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "flags"]
        shared = [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=OPTIONS[n]) for n in names
        ]

        def command(**given: Any) -> None:
            flags = {name: value for name in names if (value := given.pop(name)) not in (None, [])}
            function(**given, flags=flags)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # inspect honours it
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


# Options of one command only; each names its variable where it is declared.
_OF_ONE_COMMAND = ("CHECKSUM", "DETAILED_EXITCODE", "PLAN", "OUTPUT", "FIELDS", "WITH_EXPECTATIONS")


@lru_cache(maxsize=1)
def _known_variables() -> frozenset[str]:
    names = {*variables(), *CREDENTIAL_VARIABLES, *(f"{name}_FILE" for name in CREDENTIAL_VARIABLES)}
    return frozenset(names | {f"BULKIMG_{name}" for name in _OF_ONE_COMMAND})


# What Kubernetes puts into every container for a Service called bulkimg or bulkimg-anything.
_SERVICE_LINK = re.compile(
    r"BULKIMG_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)"
)


@lru_cache(maxsize=1)  # a command may look at its options twice
def _warn_of_unknown(names: frozenset[str]) -> None:
    """A guard that is misspelled is no guard."""
    known = _known_variables()
    for name in sorted(name for name in names if name.startswith("BULKIMG_") and name not in known):
        if not _SERVICE_LINK.fullmatch(name):
            screen.warning(f"{name} is not a variable that bulkimg knows{nearest(name, known, whole=False)}")


def _speak_as_asked_in(path: Path) -> None:
    """Print from now on as a file asks for, so that a mistake in that very file is already said so."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except (OSError, ValueError):
        return  # whoever reads it says why
    if re.search(r"""^\s*log_format\s*=\s*["']json["']""", text, re.MULTILINE):
        screen.speak_json()


class Asked:
    """Everything that was asked of a command: the settings, and how to get at the credentials when they are needed."""

    def __init__(self, flags: Flags, job: Path | None = None, stored: Mapping[str, Any] | None = None) -> None:
        """`stored`: the options of a run that is gone on with; its target then cannot be changed by the environment."""
        environment = environment_layer(os.environ)
        if job is not None:
            _speak_as_asked_in(job)
        if stored is not None:
            others = (*TARGET, *PLAN_SHAPE, "run_id")  # of the run that is stored, or of another one
            kept = {option: value for option, value in environment.options.items() if option not in others}
            environment = Layer(kept, environment.label)
        layers = [flags_layer(flags), environment]
        job_profile = None
        if job is not None:
            layer, job_profile = job_layer(job)
            layers.append(layer)
        elif stored is not None:
            layers.append(Layer(stored, lambda option: f"the run's {option}"))
        name = (
            flags.get("profile") or environment.options.get("profile") or job_profile or (stored or {}).get("profile")
        )
        if name:
            _speak_as_asked_in(config_file(os.environ))
        table = read_profile(name, os.environ)
        if stored is not None and "endpoint" in table and parse_endpoint(table["endpoint"]) != stored.get("endpoint"):
            raise UsageError(
                f"--profile {name}: is of {table['endpoint']}, the run's target is {stored.get('endpoint')}"
            )
        self._secrets = {key: table.pop(key) for key in PROFILE_KEYS if key in table}
        layers.append(profile_layer(name, table, os.environ, PROFILE_KEYS))
        if job_profile:
            layers.append(Layer({"profile": job_profile}, str))
        self._layers = layers
        self.settings: Settings = merge(*layers)
        screen.use(
            as_json=self.settings.log_format == "json",
            wants_document=self.settings.json_summary,
            quiet=self.settings.quiet,
        )
        _warn_of_unknown(frozenset(os.environ))

    def resuming(self, stored: Mapping[str, Any]) -> Settings:
        """The settings to resume a run with that was named again: what was given now, then what the run was begun with. Guards
        that were given once hold until others are given; what its plan means stays."""
        fixed = {name: stored[name] for name in PLAN_SHAPE if name in stored}
        own = {name: value for name, value in stored.items() if name not in ("profile", "manifest", "job_name")}
        return merge(Layer(fixed, str), *self._layers, Layer(own, lambda option: f"the run's {option}"))

    def credentials(self) -> Credentials:
        """UsageError when there are none, half of one, or two kinds. A password that others may read is worth a word."""
        found = find_credentials(os.environ, self._secrets)
        if isinstance(found, Account) and self.settings.is_readable_on_the_way:
            screen.warning(
                f"the password goes to {self.settings.endpoint} over plain http, where others on the way "
                "can read it (its hash is as good); use https, or an access key; require_tls = true in a profile refuses it"
            )
        return found

    def refuse_dry_run(self, command: str) -> None:
        """A dry run asked for by environment or profile is not something to pass over."""
        if self.settings.dry_run:
            raise UsageError(f"bulkimg {command} has no dry run; unset BULKIMG_DRY_RUN")

    def require_endpoint(self) -> None:
        if self.settings.endpoint is None:
            raise UsageError(
                "no server: give --endpoint URL, set BULKIMG_ENDPOINT, or name a --profile; `bulkimg sandbox` starts one to practise on"
            )
