"""The options that commands share. Each is declared once, and a command names the ones it takes."""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import typer

from bulkimg import layers
from bulkimg.cli import complete, manual, screen
from bulkimg.cli.helpful import HelpAll
from bulkimg.credentials import (
    CREDENTIAL_VARIABLES,
    PROFILE_KEYS,
    Account,
    Credentials,
    RunCommand,
    account_without_password,
    gather,
    one_kind,
)
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
    resuming,
    variables,
)
from bulkimg.notifications import HOOK_VARIABLE, HOOK_VARIABLES
from bulkimg.settings import PLAN_SHAPE, Settings
from bulkimg.values import nearest, parse_endpoint, parse_path

Flags = dict[str, Any]


def _text(names: str, metavar: str, help_: str, complete: Any = None) -> Any:
    option = typer.Option(*names.split(), metavar=metavar, help=help_, show_default=False, autocompletion=complete)
    return Annotated[str | None, option]


def _many(names: str, metavar: str, help_: str, complete: Any = None) -> Any:
    option = typer.Option(*names.split(), metavar=metavar, help=help_, show_default=False, autocompletion=complete)
    return Annotated[list[str] | None, option]


def _switch(names: str, help_: str) -> Any:
    return Annotated[bool | None, typer.Option(*names.split(), help=help_, show_default=False)]


OPTIONS: dict[str, Any] = {
    "endpoint": _text("--endpoint", "URL", "Scheme, host and port of the server."),
    "base_path": _text("--base-path", "PATH", "Context path of the API.  [default: /zstack]"),
    "profile": _text("--profile", "NAME", "Profile in the configuration file.", complete.profiles),
    "ca_file": _text("--ca-file", "FILE", "Certificate authority to trust instead of the system's."),
    "action_key": _text(
        "--action-key",
        "KEY",
        "How the server spells the change: updateimage, updateImage, or auto to find out.  [default: auto]",
        complete.words("auto", "updateimage", "updateImage"),
    ),
    "rate": _text("--rate", "N/s", "Hard cap on all requests, such as 5/s, 300/min or unlimited.  [default: 50/s]"),
    "concurrency": _text("--concurrency", "N", "Hard cap on rows in flight.  [default: 16]"),
    "adaptive": _switch(
        "--adaptive/--no-adaptive",
        "Adjust concurrency to what the server handles, up to --concurrency.  [default: adaptive]",
    ),
    "timeout": _text("--timeout", "TIME", "Longest wait for one answer.  [default: 30s]"),
    "job_timeout": _text("--job-timeout", "TIME", "Longest wait for the job of a 202 answer.  [default: 30m]"),
    "max_duration": _text("--max-duration", "TIME", "Stop after this long (exit 6, resumable).  [default: none]"),
    "window": _text(
        "--window", "HH:MM-HH:MM", "Start rows only in these hours of the local clock; separate several with commas."
    ),
    "max_outage": _text(
        "--max-outage", "TIME", "Give up after the server has been down this long (exit 5, resumable).  [default: 1h]"
    ),
    "retries": _text("--retries", "N", "Retries per row after temporary errors.  [default: 5]"),
    "max_errors": _text(
        "--max-errors",
        "N|N%",
        "Stop when more rows than this have failed; none means no limit.  [default: 50% of the last 1000]",
    ),
    "format": _text(
        "--format",
        "FORMAT",
        "csv, tsv, jsonl or ndjson (of a manifest also xlsx or parquet), when the file name does not say.",
        complete.words("csv", "tsv", "jsonl", "ndjson", "xlsx", "parquet"),
    ),
    "sheet": _text("--sheet", "NAME", "Sheet of a workbook (.xlsx) that has several visible ones."),
    "hidden_rows": _text(
        "--hidden-rows",
        "HOW",
        "include or skip the hidden and filtered rows of a sheet.  [default: refuse them]",
        complete.words("include", "skip"),
    ),
    "encoding": _text("--encoding", "NAME", "Encoding of the manifest.  [default: utf-8]"),
    "map": _many(
        "--map", "COLUMN=FIELD", "Take a field (or uuid) from a column with another name. Repeatable.", complete.fields
    ),
    "set": _many(
        "--set",
        "FIELD=VALUE",
        "Set a field in every row; {column} stands for the row's own value. Repeatable.",
        complete.assignments,
    ),
    "empty_token": _text(
        "--empty-token", "TEXT", "The cell that sets a field to the empty string.  [default: <empty>]"
    ),
    "allow_value": _many(
        "--allow-value", "FIELD=VALUE", "Allow a value that bulkimg does not know yet. Repeatable.", complete.choices
    ),
    "strict": _switch("--strict", "Treat warnings as problems: a manifest with one is refused."),
    "skip_invalid": _switch("--skip-invalid", "Record bad rows as invalid and send the others."),
    "tags_mode": _text(
        "--tags-mode",
        "MODE",
        "add keeps an image's other tags; replace removes those not listed.  [default: add]",
        complete.words("add", "replace"),
    ),
    "tags": _text(
        "--tags",
        "HOW",
        "body: in the change; api: by the tag API; auto: in the change, then the tag API if needed.  [default: auto]",
        complete.words("auto", "body", "api"),
    ),
    "survey": _switch("--survey/--no-survey", "Read the images before anything is sent.  [default: survey]"),
    "max_changes": _text("--max-changes", "N|N%", "Refuse a plan that changes more images.  [default: none]"),
    "allow_field": _many(
        "--allow-field",
        "FIELD",
        "Allow changes to architecture, mediaType or format. Repeatable, or with commas.",
        complete.words("architecture", "mediaType", "format"),
    ),
    "canary": _text("--canary", "N", "Send N rows first, spread over the plan; send the rest only if all succeed."),
    "note": _text("--note", "TEXT", "A ticket or a reason, kept with the run."),
    "run_id": _text("--run-id", "NAME", "Name the run; the same name again resumes it while it can be resumed."),
    "allow_overlap": _switch("--allow-overlap", "Run although another run of this manifest or job is running."),
    "lock_wait": _text(
        "--lock-wait", "TIME", "Wait this long for the end of another run of this manifest or job.  [default: 0]"
    ),
    "shard": _text(
        "--shard", "I/N", "Send one of N parts of the manifest; auto takes I and N from the variables of an array job."
    ),
    "cluster": _text(
        "--cluster",
        "WHERE",
        "Send with the workers of a Dask cluster: local:N, tls://HOST:8786, or a scheduler file. Needs the extra dask.",
    ),
    "desk": _text("--desk", "HOST:PORT", "Where the workers of --cluster reach this process."),
    "skip_rows": _text("--skip-rows", "N", "Leave out the first N rows."),
    "max_rows": _text("--max-rows", "N", "Send at most N rows."),
    "where": _many(
        "--where",
        "COLUMN=VALUE",
        "Only rows whose cell is (=), is not (!=) or is like (~=, with %) this. Repeatable.",
        complete.columns,
    ),
    "plugins": _many(
        "--plugin",
        "NAME",
        "Let an installed plugin check rows and observe events. Repeatable; none leaves out those of the job or run.",
        complete.plugins,
    ),
    "results": _text("--results", "FILE", "Also write the results here (.csv, .jsonl, .xlsx or .parquet)."),
    "runs_dir": _text("--runs-dir", "DIR", "Where runs are kept.  [default: runs]"),
    "progress": _text(
        "--progress",
        "KIND",
        "auto, bar, plain, json or none.  [default: auto]",
        complete.words("auto", "bar", "plain", "json", "none"),
    ),
    "json": _switch("--json", "Print one JSON document on standard output."),
    "log_format": _text(
        "--log-format",
        "FORMAT",
        "text or json, for messages on standard error.  [default: text]",
        complete.words("text", "json"),
    ),
    "quiet": _switch("--quiet -q", "Print nothing on standard error when the exit code is 0."),
    "verbose": _switch("--verbose -v", "Report every retry and its reason."),
    "metrics_file": _text(
        "--metrics-file",
        "DIR",
        "Write the result for Prometheus' textfile collector: DIR/bulkimg-JOB.prom.",
    ),
    "metrics_listen": _text(
        "--metrics-listen",
        "HOST:PORT",
        "Serve live metrics for Prometheus here, such as 127.0.0.1:9465; loopback only.",
    ),
    "otel": _switch(
        "--otel", "Send OpenTelemetry spans of the run, to where the OTEL_ variables say. Needs the extra metrics."
    ),
    "targets": _many("--targets", "NAME", "Only these targets of the job. Repeatable, or with commas."),
    "order": _text(
        "--order",
        "HOW",
        "parallel or one-by-one, for a job with several targets.  [default: parallel]",
        complete.words("parallel", "one-by-one"),
    ),
    "stop_on_failure": _switch("--stop-on-failure", "Stop the other targets when one has not ended with exit code 0."),
    "yes": _switch("--yes -y", "Do not ask. Without a terminal nothing is asked anyway."),
    "dry_run": _switch("--dry-run -n", "Stop before anything is sent: check offline, and show what would be sent."),
}
TARGET = ("endpoint", "base_path", "profile", "ca_file", "action_key")
PACE = (*layers.PACE, "max_errors")
MANIFEST = (
    "format",
    "sheet",
    "hidden_rows",
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
    "plugins",
)
GUARD = ("max_changes", "allow_field", "canary", "allow_overlap", "lock_wait")
PLAN = ("survey", "tags", "note", "run_id", *GUARD)
REPORT = ("results", "runs_dir", "progress", "json", "log_format", "quiet", "verbose")
METRICS = ("metrics_file", "metrics_listen", "otel")
SHARD = ("shard",)
CLUSTER = ("cluster", "desk")
CAMPAIGN = ("targets", "order", "stop_on_failure")
SPEECH = ("json", "log_format", "quiet")


def user_path(text: str) -> Path:
    """Return a path argument with `~` replaced. Raises UsageError if there is no such home directory."""
    try:
        return parse_path(text)
    except ValueError as error:
        raise UsageError(f"{text!r} {error}") from None


def option_path(option: str, text: str) -> Path:
    """Return the path that an option gives, with `~` replaced. Raises UsageError if it is empty or not known."""
    try:
        return parse_path(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r} {error}") from None


def with_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the named options. It gets those that were given on the command line as `flags`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "flags"]
        shared = [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=OPTIONS[n]) for n in names
        ]

        if manual.RARE & set(names):
            shared.append(
                inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll)
            )

        def command(**given: Any) -> None:
            given.pop("help_all", None)
            flags = {name: value for name in names if (value := given.pop(name)) not in (None, [])}
            function(**given, flags=flags)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # inspect reads it
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


# Options of one command only. Each names its variable where it is declared.
_OF_ONE_COMMAND = ("CHECKSUM", "DETAILED_EXITCODE", "PLAN", "OUTPUT", "FIELDS", "WITH_EXPECTATIONS")


@lru_cache(maxsize=1)
def _known_variables() -> frozenset[str]:
    names = {*variables(), *CREDENTIAL_VARIABLES, *(f"{name}_FILE" for name in CREDENTIAL_VARIABLES)}
    return frozenset(names | {f"BULKIMG_{name}" for name in _OF_ONE_COMMAND})


# What Kubernetes puts into every container for a Service called bulkimg or bulkimg-anything.
_SERVICE_LINK = re.compile(
    r"BULKIMG_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)"
)


@lru_cache(maxsize=1)  # a command may read its options twice
def _warn_of_unknown(names: frozenset[str]) -> None:
    """Warn of unknown variables: a misspelled guard does not protect."""
    known = _known_variables() | (frozenset(HOOK_VARIABLES) if HOOK_VARIABLE in names else frozenset())
    for name in sorted(name for name in names if name.startswith("BULKIMG_") and name not in known):
        if not _SERVICE_LINK.fullmatch(name):
            screen.warning(f"{name} is not a variable of bulkimg and is ignored{nearest(name, known, whole=False)}")


def _speak_as_asked_in(path: Path) -> None:
    """Print as a file asks for from now on, so that an error in the same file is printed in that way."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except (OSError, ValueError):
        return  # reading the file for its options reports why
    if re.search(r"""^\s*log_format\s*=\s*["']json["']""", text, re.MULTILINE):
        screen.speak_json()


def _whole(layer: Layer) -> Layer:
    """Return the layer without --shard."""
    return Layer({option: value for option, value in layer.options.items() if option != "shard"}, layer.label)


class CommandContext:
    """Everything that was asked of a command: the settings, and a way to read the credentials when they are needed."""

    def __init__(
        self,
        flags: Flags,
        job: Path | None = None,
        stored: Mapping[str, Any] | None = None,
        target: str = "",
        *,
        divides: bool = False,
    ) -> None:
        """Read the settings. `target` names one of several targets of the job.

        `stored` are the options of a resumed run; the environment then cannot change its target. `divides`: the command
        takes --shard. For others it is ignored: the machine on which shards are merged may have BULKIMG_SHARD too.
        """
        environment = environment_layer(os.environ)
        if job is not None:
            _speak_as_asked_in(job)
        if stored is not None:
            others = (*TARGET, *PLAN_SHAPE, "run_id")  # of the stored run, or of another one
            kept = {option: value for option, value in environment.options.items() if option not in others}
            environment = Layer(kept, environment.label)
        layers = [flags_layer(flags), environment]
        job_profile = None
        if job is not None:
            layer, job_profile = job_layer(job, target)
            layers.append(layer)
        elif stored is not None:
            layers.append(Layer(stored, lambda option: f"the run's {option}"))
        name = (
            flags.get("profile") or environment.options.get("profile") or job_profile or (stored or {}).get("profile")
        )
        if name:
            _speak_as_asked_in(config_file(os.environ))
        table = read_profile(name, os.environ)
        self.profile, self.profile_endpoint = name or "", table.get("endpoint")
        if stored is not None and "endpoint" in table and parse_endpoint(table["endpoint"]) != stored.get("endpoint"):
            raise UsageError(
                f"--profile {name} points to {table['endpoint']}, but the run's target is {stored.get('endpoint')}; "
                "use a profile for that server"
            )
        self._secrets = {key: table.pop(key) for key in PROFILE_KEYS if key in table}
        layers.append(profile_layer(name, table, os.environ, PROFILE_KEYS))
        if job_profile:
            layers.append(Layer({"profile": job_profile}, str))
        if not divides:
            layers = [layer if layer.options is stored else _whole(layer) for layer in layers]
        self._layers = layers
        self.settings: Settings = merge(*layers)
        screen.use(
            as_json=self.settings.log_format == "json",
            wants_document=self.settings.json_summary,
            quiet=self.settings.quiet,
        )
        _warn_of_unknown(frozenset(os.environ))

    def resuming(self, stored: Mapping[str, Any]) -> Settings:
        """Return the settings to resume a run that was named again."""
        return resuming(self._layers, stored)

    def credentials(self, run: RunCommand | None = None) -> Credentials:
        """Return the credentials. Raises UsageError for none, an incomplete one, or two kinds.

        Warns if others may read the password on the way. `run` runs the profile's commands.
        """
        found = self._found(run)
        if isinstance(found, Account) and self.settings.is_readable_on_the_way:
            screen.warning(
                f"the password is sent to {self.settings.endpoint} over plain http, where others on the network can read it; "
                "use https or an access key, or set require_tls = true in the profile to refuse this"
            )
        return found

    def _found(self, run: RunCommand | None) -> Credentials:
        """Find the credentials, and ask for a missing password if a person can type it."""
        found = gather(os.environ, self._secrets, run)  # once: a command may ask a person or cost a call of a vault
        account = account_without_password(found)
        if account and screen.can_ask() and not self.settings.yes:
            return Account(account, screen.secret(f"Password of {account} on {self.settings.endpoint}: "))
        return one_kind(found)

    def refuse_dry_run(self, command: str) -> None:
        """Refuse a dry run from the environment or a profile: it must not be ignored."""
        if self.settings.dry_run:
            raise UsageError(f"bulkimg {command} has no dry run; unset BULKIMG_DRY_RUN")

    def require_endpoint(self) -> None:
        if self.settings.endpoint is None:
            raise UsageError(
                "no server: give --endpoint URL, set BULKIMG_ENDPOINT, or name a --profile; `bulkimg sandbox` starts one to practise on"
            )
