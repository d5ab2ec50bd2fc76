"""The JSON documents that bulkimg writes, as models: the models write them, and their JSON Schema is published.

The docstring under a field is its description in the schema (schemas.py reads them: pydantic would at every start).
A field is never renamed or removed within one `schema` number; new fields may be added.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Cell = str | bool | list[str] | None


class Document(BaseModel):
    """A document with its version."""

    # Built when they are first used: a command uses few of them, and most of them at its end.
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True, defer_build=True)

    schema_number: Literal[1] = Field(1, alias="schema")
    """Version of this document's shape."""

    def as_json(self) -> dict[str, Any]:
        """Return the document as it is written."""
        return self.model_dump(mode="json")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Cause(_Part):
    """Rows that are not fine, grouped by status and code."""

    status: str
    code: str
    rows: int
    first_line: int
    """Line of the first of these rows in the manifest; the file's first line is 1."""
    message: str
    hint: str


class PaceUsed(_Part):
    """How fast a run was allowed to be, and was."""

    rate_cap: float | Literal["unlimited"]
    """Requests a second."""
    concurrency: int
    puts: int
    """Attempts of which bytes may have gone out."""
    requests: int
    sending_s: float
    requests_per_s: float


class ManifestUsed(_Part):
    name: str | None
    sha256: str | None


class PlanUsed(_Part):
    sha256: str | None
    """What `apply --checksum` compares."""
    surveyed: bool | None
    """Whether the images were read before anything was sent."""


class StartedBy(_Part):
    uid: int
    user: str
    host: str


class SummaryDocument(Document):
    """The end of a run: summary.json, and standard output of `--json`."""

    run_id: str
    directory: str
    target: str
    exit_code: int
    reason: str
    """Why the run stopped; empty when it went to its end."""
    counts: dict[str, int]
    """Rows by status, all eight named."""
    causes: Sequence[Cause]
    rows: int
    rows_left_out: int
    rows_to_do: int
    """Rows that have no outcome yet."""
    started_at: str
    ended_at: str
    duration_s: float
    pace: PaceUsed
    manifest: ManifestUsed
    plan: PlanUsed
    retry_of: str | None
    undo_of: str | None
    by: StartedBy | None
    note: str
    version: str
    next: str | None
    """The exact command to type next, or null."""


class Changes(_Part):
    """A plan in figures."""

    images: int
    actions: dict[str, int]
    fields: dict[str, int]
    """Images by changed field."""
    transitions: Sequence[tuple[str, Cell, Cell, int]]
    """The most frequent changes: field, before, after, images."""
    digest: str
    surveyed: bool


class PlanDocument(SummaryDocument):
    """What `plan --json` prints: the summary, and the plan in figures where one was made."""

    changes: Changes | None = None


class PluginUsed(_Part):
    """A plugin that checked the rows or observes the run."""

    name: str
    package: str
    version: str
    hooks: Sequence[str]


class WorkerUsed(_Part):
    """A worker of `--cluster`."""

    name: str
    """Host and process, as `HOST:PID`."""
    host: str
    pid: int
    state: Literal["working", "left", "lost"]
    """`lost`: its lease ended without a word, and what it held was asked about."""
    why: str
    joined_at: float
    """Seconds since the epoch."""
    rows: int
    """Rows that got their outcome from it."""
    requests: int
    in_flight: int
    rate: float | None
    """Its share of the rate in requests a second; null for unlimited."""


class FoundProblem(_Part):
    """A problem or warning of a manifest."""

    line: int
    """Line of the file, row of the sheet, or number of the record; 0 for a header without a line."""
    cell: str
    """Cell, row or sheet of a workbook, such as Sheet1!B7; else empty."""
    column: str
    """The column's name, or a place in the line; empty where it concerns the whole row."""
    value: str
    """The value, shortened; may be empty."""
    code: str
    message: str
    fix: str
    fatal: bool
    """Whether the manifest is refused as a whole, so that --skip-invalid does not help."""


class CheckDocument(Document):
    """What `check --json` prints."""

    exit_code: int
    manifest: str
    sha256: str
    rows: int
    rows_left_out: int
    """Rows that --skip-rows, --max-rows, --where or --hidden-rows skip left out."""
    merged: int
    """Rows merged into another row of the same image."""
    blank_records: int
    remarks: Sequence[str]
    """What else there is to say about the manifest, one sentence each."""
    rows_with_problems: int
    plugins: Sequence[PluginUsed]
    problems: Sequence[FoundProblem]
    warnings: Sequence[FoundProblem]


class ResultsDocument(Document):
    """What `results --json` prints."""

    exit_code: Literal[0] = 0
    run_id: str
    results: str
    """Path of the file."""


class StatusDocument(Document):
    """A run now: `status --json`, and each element of `runs --json`."""

    run_id: str
    directory: str
    kind: Literal["run", "undo", "retry"]
    state: str
    running: bool
    target: str
    rows: int
    settled: int
    in_flight: int
    waiting: int
    not_fine: int
    """Rows whose status is neither `updated` nor `unchanged`."""
    rows_per_s: float
    """Over the last minute of work."""
    plan: str
    """The plan in one line, of a run that is only planned."""
    counts: dict[str, int]
    causes: Sequence[Cause]
    manifest: str | None
    note: str
    undo_of: str | None
    retry_of: str | None
    started_at: str
    exit_code: int | None
    plugins: Sequence[PluginUsed] = ()
    workers: Sequence[WorkerUsed] = ()
    """With `--cluster`: its workers, as they were at most two seconds ago."""
    shards: Sequence[str] = ()
    """Of a merged run: the shards and their runs, such as `2/4 RUN`."""
    next: str | None


class TargetEnd(_Part):
    """How the run of one target ended."""

    target: str
    run_id: str
    """Empty where no run could be made."""
    exit_code: int
    error: str
    """Why the run could not be executed; empty where it has a summary."""
    summary: SummaryDocument | None
    changes: Changes | None = None
    """The plan in figures, where the command ends with it."""


class _CampaignPart(Document):
    campaign: str
    directory: str
    kind: Literal["run", "undo", "retry"]
    of: str | None
    """The campaign that this one undoes or retries."""


class CampaignDocument(_CampaignPart):
    """The end of a campaign of several targets: what `--json` prints."""

    exit_code: int
    """The worst of its runs."""
    counts: dict[str, int]
    """Rows of all targets by status."""
    rows: int
    targets: Sequence[TargetEnd]
    next: str | None


class TargetStatus(_Part):
    target: str
    status: StatusDocument


class CampaignStatusDocument(_CampaignPart):
    """A campaign now: `status --json`."""

    state: str
    """The state of the run that needs attention first."""
    running: bool
    rows: int
    settled: int
    not_fine: int
    counts: dict[str, int]
    exit_code: int | None
    """The worst of its runs; null while one has not ended."""
    targets: Sequence[TargetStatus]
    removed: Sequence[str]
    """Runs that were removed since."""
    unreadable: Sequence[str] = ()
    """Targets whose run cannot be read, each with the reason; they are in no count."""
    next: str | None


class MessageEvent(Document):
    """A line of standard error with `--log-format json`."""

    at: float
    """Seconds since the epoch."""
    event: str
    """Kind: message, warning, error, bug, progress, or the name of an event such as started, held, retrying."""
    message: str


class ProgressEvent(Document):
    """A line of standard error with `--progress json`, once a second."""

    at: float
    event: Literal["progress"] = "progress"
    done: int
    pending: int
    counts: dict[str, int]
    rows_per_s: float
    requests_per_s: float
    in_flight: int
    retrying: int


class SummaryEvent(SummaryDocument):
    """The last line of standard error with `--log-format json`."""

    event: Literal["summary"] = "summary"


class ErrorCause(_Part):
    code: str
    message: str
    hint: str


class ErrorDocument(Document):
    """What `--json` prints where a command ends without a document of its own."""

    exit_code: int
    error: ErrorCause


class DoctorCheck(_Part):
    name: str
    result: Literal["ok", "warn", "fail", "skipped"]
    message: str
    hint: str = ""


class DoctorDocument(Document):
    """What `doctor --json` prints."""

    exit_code: int
    checks: Sequence[DoctorCheck]


class History(_Part):
    """What one run did to an image."""

    run_id: str
    target: str
    """The server it was made on, which need not be the one that is asked now."""
    started_at: str
    kind: str
    line: int
    status: str
    code: str
    message: str
    changed: Sequence[str]
    before: Mapping[str, Cell] | None
    after: Mapping[str, Cell] | None


class ImageDocument(Document):
    """What `show --json` prints."""

    exit_code: int
    uuid: str
    image: Mapping[str, Any] | None
    """The image's present values; null where the server has no such image or could not be asked."""
    error: str
    """Why the image could not be read; empty where it was."""
    history: Sequence[History]
