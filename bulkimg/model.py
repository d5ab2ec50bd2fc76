"""The data types in the order a row meets them: Field, Change, Row, Problem, Claim, Outcome, Event, Summary."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo
from pydantic_core import PydanticCustomError

from bulkimg.blank import is_blank

Value = str | bool | list[str]
Fields = dict[str, Value]
Seen = Mapping[str, Value | None]  # the values of an image's fields; None for a field without a value

# ---------------------------------------------------------------------------------------------------------------------
# Fields: what UpdateImage can change, and its limits (docs/dev/protocol.md §5.1).

CHOICES: Mapping[str, tuple[str, ...]] = {
    "mediaType": ("RootVolumeTemplate", "DataVolumeTemplate", "ISO"),
    "architecture": ("x86_64", "aarch64", "mips64el", "loongarch64"),
    "format": ("raw", "qcow2", "iso"),
    "platform": ("Linux", "Windows", "Other", "Paravirtualization", "WindowsVirtio"),
}
FLAGS = ("system", "virtio")
TAGS = ("systemTags", "userTags")
MAY_BE_EMPTY = ("description", "guestOsType")
ONLY_THESE = f"only {' and '.join(MAY_BE_EMPTY)} can be emptied"

# The characters that Java's String.trim() removes. The server trims every string before it checks and stores it.
SERVER_TRIMS = "".join(map(chr, range(0x21)))


def as_stored(value: Value) -> Value:
    """Return the value as the server stores it: strings without characters up to U+0020 at the ends, tags sorted."""
    if isinstance(value, str):
        return value.strip(SERVER_TRIMS)
    return sorted(value) if isinstance(value, list) else value


def utf16_length(text: str) -> int:
    """Return the length as the server counts it, in UTF-16 units like Java's String.length(): an emoji counts two."""
    return len(text) + sum(c > "\uffff" for c in text)


_UNFIT = re.compile("[\x00\ud800-\udfff]")


def refuse_unfit(text: str) -> str:
    """Raise an error for characters that no JSON body or database column can hold: NUL and lone surrogates."""
    if found := _UNFIT.search(text):
        at, char = found.start() + 1, found.group()
        what = "a NUL character" if char == "\0" else f"half a surrogate pair (U+{ord(char):04X})"
        raise PydanticCustomError(
            "UNFIT_TEXT", "contains {what} at character {at}", {"what": what, "at": at, "fix": "remove it"}
        )
    return text


def _text(limit: int, *, may_be_empty: bool) -> Callable[[str], str]:
    def check(value: str) -> str:
        refuse_unfit(value)
        stored = value.strip(SERVER_TRIMS)
        if not stored and not may_be_empty:
            raise PydanticCustomError(
                "EMPTY_VALUE",
                "cannot be empty",
                {"fix": f"leave the cell blank to keep the present value ({ONLY_THESE})"},
            )
        if 2 * len(stored) > limit and (length := utf16_length(stored)) > limit:
            count = "" if length == len(stored) else " in UTF-16, where an emoji counts as 2"
            more = f"{length - limit} {'character' if length - limit == 1 else 'characters'}"
            raise PydanticCustomError(
                "TOO_LONG",
                "is {length} characters long{count}; the limit is {limit}",
                {"length": length, "count": count, "limit": limit, "fix": f"shorten it by {more}"},
            )
        return value

    return check


def _choice(name: str) -> Callable[[str, ValidationInfo], str]:
    def check(value: str, info: ValidationInfo) -> str:
        known = CHOICES[name]
        if value in known or value in (info.context or {}).get(name, ()):
            return value
        raise PydanticCustomError(
            "BAD_VALUE",
            "is not one of {known}",
            {
                "known": ", ".join(known),
                "nearest": (value, known),
                "else": f"allow it with --allow-value {name}={value}",
            },
        )

    return check


def _tags(value: list[str], info: ValidationInfo) -> list[str]:
    if not value and not (info.context or {}).get(info.field_name):
        fix = "leave it out to keep the present tags, or add --tags-mode replace to remove them all"
        raise PydanticCustomError("EMPTY_VALUE", "is an empty list", {"fix": fix})
    for tag in value:
        refuse_unfit(tag)
        if is_blank(tag):
            raise PydanticCustomError("EMPTY_VALUE", "contains an empty tag", {"fix": "remove it"})
    return value


class Change(BaseModel):
    """The fields to set on one image; a field that is not set stays as it is. Limits: docs/dev/protocol.md §5.1.

    Validate with `context={field: allowed values}` to allow unknown values of an enumeration, or to let an image lose
    all its tags. The Pydantic error types are the problem codes. Their `ctx` has `fix`, or `nearest` = (value, known)
    and `else`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, AfterValidator(_text(255, may_be_empty=False))] | None = None
    description: Annotated[str, AfterValidator(_text(2048, may_be_empty=True))] | None = None
    guestOsType: Annotated[str, AfterValidator(_text(255, may_be_empty=True))] | None = None  # noqa: N815 - the API's spelling
    mediaType: Annotated[str, AfterValidator(_choice("mediaType"))] | None = None  # noqa: N815
    architecture: Annotated[str, AfterValidator(_choice("architecture"))] | None = None
    format: Annotated[str, AfterValidator(_choice("format"))] | None = None
    system: bool | None = None
    platform: Annotated[str, AfterValidator(_choice("platform"))] | None = None
    virtio: bool | None = None
    systemTags: Annotated[list[str], AfterValidator(_tags)] | None = None  # noqa: N815
    userTags: Annotated[list[str], AfterValidator(_tags)] | None = None  # noqa: N815


HIDDEN = "[hidden]"  # replaces a redacted credential

FIELDS: tuple[str, ...] = tuple(Change.model_fields)

# ---------------------------------------------------------------------------------------------------------------------
# Rows and their problems.

_UUID = re.compile(r"[0-9a-f]{32}")
_UUID_DASHED = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def normal_uuid(text: str) -> str | None:
    """Return the uuid as 32 lower-case hexadecimal digits, or None.

    Only upper case and the usual dashes are normalised.
    """
    if not text.isascii():  # `lower()` below would accept U+212A and similar letters
        return None
    text = text.lower()
    if _UUID.fullmatch(text):
        return text
    return text.replace("-", "") if _UUID_DASHED.fullmatch(text) else None


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in the manifest. `line` counts from 1 as in an editor. `column` is a header's name or a place in a line.

    `cell` names a cell, row or sheet of a workbook, such as `Sheet1!B7`.
    """

    line: int
    column: str
    value: str
    code: str
    message: str
    fix: str
    fatal: bool = False  # the manifest cannot be read from here on, so --skip-invalid does not help
    cell: str = ""

    @property
    def text(self) -> str:
        """Return what is wrong, without the place."""
        subject = " ".join(part for part in (self.cell, self.column, repr(self.value) if self.value else "") if part)
        return f"{subject}: {self.message}" if subject else self.message


@dataclass(slots=True)
class Row:
    """One record of the manifest: its line, the fields it sets, and its own cells for `failed.csv`."""

    line: int
    uuid: str | None
    fields: Fields
    expects: Fields
    cells: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    written: str = ""  # the uuid as the manifest writes it
    warnings: tuple[Problem, ...] = ()  # allowed, but rarely intended
    target: str = ""  # which of several targets it is for, if the manifest has a column that says so


# A row without problems and warnings as the ledger stores it: its line, the uuid's 16 bytes, and JSON texts of its
# fields, its expectations (None: it has none) and its cells. A plain tuple, because one is made for every row.
SoundRow = tuple[int, bytes, str, str | None, str]


# ---------------------------------------------------------------------------------------------------------------------
# Planning.


class Action(StrEnum):
    """What to do with a row after its image was read."""

    UPDATE = "update"
    UNCHANGED = "unchanged"  # the image has these values already
    CONFLICT = "conflict"  # an `if_` value does not match
    MISSING = "missing"  # there is no such image


@dataclass(frozen=True, slots=True)
class Planned:
    """A row compared with its image: what is sent, and the image's values of every field that the row sets or expects.

    `aside` holds what else is kept: the image's name, and the system tags that a change of `architecture` rewrites.
    """

    action: Action
    before: Seen = field(default_factory=dict)
    send: Fields = field(default_factory=dict)
    aside: Seen = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """The counts of a plan: images by action, changes by field, the most frequent changes, and the plan's digest."""

    images: int
    actions: Mapping[str, int]
    fields: Mapping[str, int]
    transitions: Sequence[tuple[str, Value | None, Value, int]]  # field, before, after, images
    digest: str
    surveyed: bool  # whether the images were read; if not, every row is sent as it is


# ---------------------------------------------------------------------------------------------------------------------
# Sending.


class Claim(NamedTuple):  # a tuple, because one is made for every row: a frozen dataclass costs three times as much
    """A row about to be sent. It is durable in the ledger before any byte is sent.

    `interrupted`: an earlier process claimed it and left no outcome, so the server is asked before anything is sent.
    """

    ordinal: int
    line: int
    uuid: str
    fields: Fields
    attempt: int
    job_uuid: str
    interrupted: bool = False
    doubtful: bool = False  # an earlier attempt may have been applied, whatever came after it
    before: Seen | None = None  # the values in the plan; None: the image was not read
    text: str = ""  # the fields as the ledger's JSON
    name: str = ""  # the image's name in the plan


class Status(StrEnum):
    """The eight outcomes of docs/reference/results.md."""

    UPDATED = "updated"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"
    INVALID = "invalid"
    FAILED = "failed"
    DRIFTED = "drifted"
    UNKNOWN = "unknown"
    UNPROCESSED = "unprocessed"


GOOD = frozenset({Status.UPDATED, Status.UNCHANGED})
RETRYABLE = (Status.FAILED, Status.UNKNOWN, Status.UNPROCESSED)


class Outcome(NamedTuple):
    """The result of a row, with the evidence. Times are seconds since the epoch; durations are milliseconds."""

    ordinal: int
    line: int
    uuid: str
    status: Status
    code: str = ""
    message: str = ""
    hint: str = ""
    http_status: int | None = None
    attempts: int = 0
    job_uuid: str = ""
    started_at: float | None = None
    duration_ms: int | None = None
    changed: Sequence[str] = ()
    before: Seen | None = None
    after: Seen | None = None
    name: str = ""  # the image's present name, as far as it is known


def iso_utc(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601 UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Sample(NamedTuple):
    """What went on from `at` (seconds since the epoch) for `seconds`. Counts are of that time.

    `in_flight`, `concurrency` (how many may be in flight), `rate` (requests a second that are allowed, None for
    unlimited) and `waiting` (rows without an outcome) are the values at its end. `latency` is answered PUTs by the
    buckets of meter.py.
    """

    at: float
    seconds: int
    requests: Mapping[str, int]
    outcomes: Mapping[str, int]
    latency: Mapping[int, int]
    in_flight: int
    concurrency: int
    rate: float | None
    waiting: int


class RunEvent(NamedTuple):
    """What happened to a run at a time (seconds since the epoch). `kind` is one word, such as held or adjusted."""

    at: float
    kind: str
    text: str


# ---------------------------------------------------------------------------------------------------------------------
# What observers receive. Progress, logs and pages all observe this one stream.


@dataclass(frozen=True, slots=True)
class Started:
    """The run begins to send. `pending` rows are left of all `rows`."""

    run_id: str
    directory: str
    target: str
    pending: int
    rows: int


@dataclass(frozen=True, slots=True)
class Surveyed:
    """So many images of all were read so far."""

    images: int
    of: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The server does not show one kind of tags.

    Rows that set it are sent without a comparison, and undo leaves it out.
    """

    kind: str
    why: str


@dataclass(frozen=True, slots=True)
class PlanMade:
    """The plan is made, and nothing was sent."""

    counts: PlanCounts


@dataclass(frozen=True, slots=True)
class CanaryPassed:
    """The first rows, spread over the plan, succeeded."""

    rows: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcomes of these rows are durable now."""

    outcomes: Sequence[Outcome]


@dataclass(frozen=True, slots=True)
class Retrying:
    """A row will be sent again after `after` seconds."""

    ordinal: int
    uuid: str
    code: str
    after: float


@dataclass(frozen=True, slots=True)
class Held:
    """The whole run waits `seconds`: the server asked for it, or does not answer."""

    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Reopened:
    """The server answers again. The run waited `seconds` for it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Paused:
    """No new row starts, because of `why`. An empty `why` means that rows start again."""

    why: str


@dataclass(frozen=True, slots=True)
class Adjusted:
    """`bulkimg ctl` changed `rate` or `concurrency`. `value` is written as people write it."""

    what: str
    value: str


@dataclass(frozen=True, slots=True)
class NoControl:
    """`bulkimg ctl` cannot reach this run."""

    why: str


@dataclass(frozen=True, slots=True)
class NotifyFailed:
    """A message was not delivered, or a hook after the run failed. The run and its exit code are as without it."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class ReportFailed:
    """report.html was not written, or an old run was not removed (`what` is `keep`). The run, its results and its exit code are as without it."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class MetricsFailed:
    """Metrics or spans (`what` names the option) were not delivered. The run and its exit code are as without them."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class PluginWarning:
    """A plugin does not observe the run any more, or not as before. The run and its exit code are as without it."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class WorkerChanged:
    """A worker of the cluster joined, left, is lost or was refused: `what` says which."""

    worker: str
    what: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """No new row starts; rows in flight finish."""

    why: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run. It is the content of summary.json."""

    run_id: str
    directory: str
    target: str
    exit_code: int
    reason: str
    counts: Mapping[str, int]
    causes: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any] = field(default_factory=dict)


Event = (
    Surveyed
    | Unreadable
    | PlanMade
    | CanaryPassed
    | Started
    | Settled
    | Retrying
    | Held
    | Reopened
    | Paused
    | Adjusted
    | NoControl
    | NotifyFailed
    | MetricsFailed
    | PluginWarning
    | ReportFailed
    | Stopping
    | WorkerChanged
    | Summary
)
Observer = Callable[[Event], None]
