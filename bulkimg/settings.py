"""Define every option of a run in one frozen object.

Every option has one name: `--max-errors` is `BULKIMG_MAX_ERRORS`, `max_errors` in a job file or a profile, and
`Settings.max_errors`. layers.py reads the values from their places.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bulkimg.notifications import Hook, NotifyRule
from bulkimg.place import Place, parse_cluster, parse_desk
from bulkimg.query import SqlSource
from bulkimg.shard import Shard, parse_shard
from bulkimg.values import (
    Keep,
    Limit,
    Pairs,
    Window,
    parse_admitted,
    parse_base_path,
    parse_conditions,
    parse_duration,
    parse_encoding,
    parse_endpoint,
    parse_fields,
    parse_keep,
    parse_limit,
    parse_listen,
    parse_maps,
    parse_name,
    parse_names,
    parse_path,
    parse_plugins,
    parse_rate,
    parse_run_id,
    parse_targets,
    parse_wait,
    parse_window,
)

# The options that decide what a plan means. A run keeps them, and nothing later changes them.
PLAN_SHAPE = ("survey", "tags", "tags_mode", "empty_token")

_Pairs = dict[str, str | bool | float] | list[str]  # the values of --map and --set, and of the tables of a job file


class Settings(BaseModel):
    """Every option of a run. Times are seconds, the rate is requests a second (`inf` for unlimited)."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    # the target
    endpoint: Annotated[str, BeforeValidator(parse_endpoint, json_schema_input_type=str)] | None = None
    base_path: Annotated[str, BeforeValidator(parse_base_path, json_schema_input_type=str)] = "/zstack"
    ca_file: Annotated[Path, BeforeValidator(parse_path, json_schema_input_type=str)] | None = None
    require_tls: bool = False
    action_key: Literal["auto", "updateimage", "updateImage"] = "auto"
    # the pace
    rate: Annotated[float, BeforeValidator(parse_rate, json_schema_input_type=str | float)] = 50.0
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    adaptive: bool = True
    timeout: Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str | float)] = 30.0
    job_timeout: Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str | float)] = 1800.0
    max_duration: Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str | float)] | None = None
    window: Annotated[Window, BeforeValidator(parse_window, json_schema_input_type=str)] = Window()
    max_outage: Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str | float)] = 3600.0
    retries: Annotated[int, Field(ge=0, le=100)] = 5
    max_errors: Annotated[Limit, BeforeValidator(parse_limit, json_schema_input_type=str | int)] = Limit(
        share=0.5, sample=1000
    )
    # the changes that are allowed
    survey: bool = True
    max_changes: Annotated[Limit, BeforeValidator(parse_limit, json_schema_input_type=str | int)] = Limit()
    allow_field: Annotated[tuple[str, ...], BeforeValidator(parse_fields, json_schema_input_type=list[str] | str)] = ()
    canary: Annotated[int, Field(ge=0)] = 0
    tags: Literal["auto", "body", "api"] = "auto"
    tags_mode: Literal["add", "replace"] = "add"
    note: str = ""
    run_id: Annotated[str, BeforeValidator(parse_run_id, json_schema_input_type=str)] | None = None
    cluster: Annotated[Place, BeforeValidator(parse_cluster, json_schema_input_type=str)] | None = None
    desk: Annotated[tuple[str, int], BeforeValidator(parse_desk, json_schema_input_type=str)] | None = None
    shard: Annotated[Shard, BeforeValidator(parse_shard, json_schema_input_type=str)] | None = None
    allow_overlap: bool = False
    lock_wait: Annotated[float, BeforeValidator(parse_wait, json_schema_input_type=str | float)] = 0.0
    # the manifest
    format: Literal["csv", "tsv", "jsonl", "ndjson", "xlsx", "parquet"] | None = None
    sheet: Annotated[str, Field(min_length=1)] | None = None
    hidden_rows: Literal["include", "skip"] | None = None
    encoding: Annotated[str, BeforeValidator(parse_encoding, json_schema_input_type=str)] = "utf-8"
    map: Annotated[Pairs, BeforeValidator(parse_maps, json_schema_input_type=_Pairs)] = ()
    set: Annotated[Pairs, BeforeValidator(parse_targets, json_schema_input_type=_Pairs)] = ()
    empty_token: Annotated[str, Field(min_length=1)] = "<empty>"  # noqa: S105 - not a password
    allow_value: Annotated[Pairs, BeforeValidator(parse_admitted, json_schema_input_type=list[str] | str)] = ()
    strict: bool = False
    skip_invalid: bool = False
    skip_rows: Annotated[int, Field(ge=0)] = 0
    max_rows: Annotated[int, Field(ge=1)] | None = None
    where: Annotated[tuple[str, ...], BeforeValidator(parse_conditions, json_schema_input_type=list[str] | str)] = ()
    # code of others that checks rows and observes events
    plugins: Annotated[tuple[str, ...], BeforeValidator(parse_plugins, json_schema_input_type=list[str] | str)] = ()
    # the files and the output
    results: Annotated[Path, BeforeValidator(parse_path, json_schema_input_type=str)] | None = None
    runs_dir: Annotated[Path, BeforeValidator(parse_path, json_schema_input_type=str)] = Path("runs")
    progress: Literal["auto", "bar", "plain", "json", "none"] = "auto"
    json_summary: Annotated[bool, Field(alias="json")] = False
    log_format: Literal["text", "json"] = "text"
    quiet: bool = False
    verbose: bool = False
    yes: bool = False
    dry_run: bool = False
    profile: Annotated[str, BeforeValidator(parse_name, json_schema_input_type=str)] | None = None
    # several targets
    targets: Annotated[tuple[str, ...], BeforeValidator(parse_names, json_schema_input_type=list[str] | str)] = ()
    order: Literal["parallel", "one-by-one"] = "parallel"
    stop_on_failure: bool = False
    # what this process reports to a monitoring system
    metrics_file: Annotated[Path, BeforeValidator(parse_path, json_schema_input_type=str)] | None = None
    metrics_listen: Annotated[str, BeforeValidator(parse_listen, json_schema_input_type=str)] | None = None
    otel: bool = False
    # set by a job file
    manifest: Annotated[Path, BeforeValidator(parse_path, json_schema_input_type=str)] | None = None
    source: SqlSource | None = None
    job_name: str = ""
    target_names: tuple[str, ...] = ()  # the tables [targets.NAME], in the file's order
    target_column: str = ""  # the manifest's column that names a row's target
    every_target: bool = False  # every row goes to every target
    keep: Annotated[Keep, BeforeValidator(parse_keep, json_schema_input_type=dict[str, float])] | None = None
    # set by a job file or a profile
    notify: tuple[NotifyRule, ...] = ()
    hooks: Annotated[tuple[Hook, ...], Field(alias="hook")] = ()
    # set by layers.merge
    encoding_is_configured: bool = False  # `encoding` comes from environment, job file or profile, not from a flag

    @property
    def is_readable_on_the_way(self) -> bool:
        """Return whether requests cross a network without TLS, so that others may read them."""
        return self.endpoint is not None and self.endpoint.startswith("http:") and not _is_loopback(self.endpoint)

    @property
    def job_manifest(self) -> str:
        """Return the name of what a job file gives as the manifest: a file, or the file of a query."""
        return str(self.source.sql_file if self.source else self.manifest)

    @property
    def own_rate(self) -> float:
        """Return the requests a second of this run: of a shard, its part of the rate."""
        return self.rate / self.shard.count if self.shard else self.rate

    @property
    def own_max_changes(self) -> Limit:
        """Return the changes that this run may plan: of a shard, its part."""
        return self.shard.part(self.max_changes) if self.shard else self.max_changes

    @property
    def own_max_errors(self) -> Limit:
        """Return the errors after which this run stops: of a shard, its part."""
        return self.shard.part(self.max_errors) if self.shard else self.max_errors

    @property
    def target(self) -> str:
        """Return the server and context path, without secrets."""
        return f"{self.endpoint}{self.base_path}"


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
