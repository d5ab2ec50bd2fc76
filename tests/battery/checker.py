"""The independent checker: it compares a run's results with the witness's log and table.

It shares no code with bulkimg. The rules are CHECK of docs/dev/reliability.md §2 and its invariants 1, 5-10 and 22.
"""

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.battery.checker_reading import TAGS, TRIMMED, Manifest, Run, UnreadableError, read_manifest, read_run

STATUSES = {"updated", "unchanged", "conflict", "invalid", "failed", "drifted", "unknown", "unprocessed"}
NOTHING_SENT = {"unchanged", "conflict", "invalid"}
KEYS = ("updateimage", "updateImage")
MOST_PROBLEMS = 40
NOBODY = "0" * 32  # no image has this uuid: it is used to probe whether the server answers
_HEX = "([0-9a-f]{32})"
_ALLOWED = {
    "PUT": (rf"images/{_HEX}/actions", "accounts/login"),
    "GET": (f"images/{_HEX}", "images", f"api-jobs/{_HEX}", f"accounts/sessions/{_HEX}/valid", "user-tags"),
    "DELETE": (f"accounts/sessions/{_HEX}", f"tags/{_HEX}"),
    "POST": ("user-tags",),
}
_PATHS = {method: re.compile(f"/zstack/v1/(?:{'|'.join(paths)})") for method, paths in _ALLOWED.items()}
_PUT = re.compile(rf"/zstack/v1/images/{_HEX}/actions")


@dataclass
class Findings:
    """Counts that must be 0 (first), and counts that are only reported (then)."""

    rows: int = 0
    lost: int = 0  # records without an outcome
    double: int = 0  # outcomes beyond one for each record
    wrong: int = 0  # outcomes that contradict the log or the table
    unrecorded: int = 0  # PUTs that the ledger does not know
    foreign: int = 0  # requests that the run was not asked for
    unequal: int = 0  # images whose PUTs differ from each other or from the plan
    overlaps: int = 0  # a PUT that began while another for the image was open
    sums: int = 0  # counts that do not add up
    order: int = 0  # lines not in the manifest's order
    unreadable: int = 0  # incomplete files

    statuses: Counter[str] = field(default_factory=Counter)
    puts: int = 0
    most_puts: int = 0  # for one image
    lied_to: int = 0  # `updated` because a server lies (with lies=True)
    problems: list[str] = field(default_factory=list)

    BAD = ("lost", "double", "wrong", "unrecorded", "foreign", "unequal", "overlaps", "sums", "order", "unreadable")

    @property
    def bad(self) -> int:
        return sum(getattr(self, name) for name in self.BAD)

    @property
    def ok(self) -> bool:
        return not self.bad

    @property
    def unknown(self) -> int:
        return self.statuses["unknown"]

    def found(self, what: str, problem: str, count: int = 1) -> None:
        setattr(self, what, getattr(self, what) + count)
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(f"{what}: {problem}")

    def __str__(self) -> str:
        bad = [f"{name} {getattr(self, name)}" for name in self.BAD if getattr(self, name)]
        counts = ", ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()))
        lied = f", lied to {self.lied_to}" if self.lied_to else ""
        return f"{', '.join(bad) or 'ok'} ({counts}; {self.puts} PUTs, most for one image {self.most_puts}{lied})"


@dataclass
class Put:
    """One PUT in the witness's log."""

    number: int
    uuid: str
    job: str
    body: str
    begun: float
    ended: float  # by us or by the client leaving; infinite while it is open
    applied: bool


def check(
    manifest: Path,
    run: Path,
    log: list[dict[str, Any]],
    table: dict[str, dict[str, Any]],
    *,
    lies: bool = False,
    only: Collection[str] | None = None,
) -> Findings:
    """Return everything that is wrong with a finished run.

    `log` begins with the run (`Witness.log(since=…)`). `lies`: the witness showed changes that it did not make. `only`:
    the uuids of a retry, whose manifest is the first run's.
    """
    found = Findings()
    asked = read_manifest(manifest)
    if only is not None:
        asked = asked.only(frozenset(only))
    puts = list(_puts(log))
    _look_at_requests(found, asked, puts, log)
    try:
        left = read_run(run)
    except UnreadableError as error:
        found.rows = len(asked.records)
        found.found("unreadable", str(error))
        return found
    _look_at_results(found, asked, left)
    _look_at_ledger(found, left, puts)
    _look_at_outcomes(found, asked, left, puts, table, lies=lies)
    return found


def _puts(log: list[dict[str, Any]]) -> Iterator[Put]:
    ends = {line["request"]: line for line in log if line["kind"] == "end"}
    applied = {line["request"] for line in log if line["kind"] == "applied"}
    for line in log:
        if line["kind"] == "request" and line["method"] == "PUT" and (named := _PUT.fullmatch(line["path"])):
            end = ends.get(line["number"])
            ended = min(end["mono"], end["left"] or end["mono"]) if end else float("inf")
            number, job = line["number"], line["job"].lower()
            yield Put(number, named[1], job, line["body"], line["mono"], ended, number in applied)


def _by_image(puts: list[Put]) -> dict[str, list[Put]]:
    found: defaultdict[str, list[Put]] = defaultdict(list)
    for put in puts:
        found[put.uuid].append(put)
    return found


# --------------------------------------------------------------------------------------------------------- what was sent


def _look_at_requests(found: Findings, asked: Manifest, puts: list[Put], log: list[dict[str, Any]]) -> None:
    found.puts = len(puts)
    for line in log:
        if line["kind"] == "request":
            _look_at_path(found, asked, line)
    for uuid, sent in _by_image(puts).items():
        found.most_puts = max(found.most_puts, len(sent))
        _look_at_bodies(found, uuid, sent, asked.plan.get(uuid))
        for earlier, later in itertools.pairwise(sent):
            if later.begun < earlier.ended:
                found.found("overlaps", f"{uuid}: request {later.number} began before {earlier.number} had ended")


def _look_at_path(found: Findings, asked: Manifest, line: dict[str, Any]) -> None:
    pattern = _PATHS.get(line["method"])
    named = pattern.fullmatch(line["path"]) if pattern else None
    image = re.match(rf"/zstack/v1/images/{_HEX}", line["path"])
    if named is None:
        found.found("foreign", f"request {line['number']}: {line['method']} {line['path']}")
    elif image and image[1] not in asked.plan and not (line["method"] == "GET" and image[1] == NOBODY):
        found.found("foreign", f"request {line['number']}: image {image[1]} is not in the manifest")


def _look_at_bodies(found: Findings, uuid: str, sent: list[Put], planned: dict[str, Any] | None) -> None:
    """Check that all bodies of an image are the same bytes, except for the spelling of the key, and are as planned."""
    if planned is None:
        return  # counted as foreign already
    bodies = {put.body.replace(f'"{KEYS[1]}"', f'"{KEYS[0]}"', 1) for put in sent}
    if len(bodies) > 1:
        found.found("unequal", f"{uuid}: {len(bodies)} different bodies")
    elif not _is_planned(next(iter(bodies)), planned):
        found.found("unequal", f"{uuid}: sent {next(iter(bodies))[:200]}, planned {planned}")


def _is_planned(body: str, planned: dict[str, Any]) -> bool:
    try:
        sent = json.loads(body)
        inner = sent.pop(KEYS[0])
        return _trimmed({**inner, **sent}) == _trimmed(planned) and not set(inner) & set(TAGS)
    except (ValueError, KeyError, AttributeError, TypeError):
        return False


def _trimmed(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value.strip(TRIMMED) if isinstance(value, str) else value for name, value in fields.items()}


# ---------------------------------------------------------------------------------------------------- what was reported


def _look_at_results(found: Findings, asked: Manifest, run: Run) -> None:
    found.rows = len(asked.records)
    told = Counter((result["line"], result["uuid"]) for result in run.results)
    wanted = Counter((record.line, record.uuid) for record in asked.records)
    for (line, uuid), count in (wanted - told).items():
        found.found("lost", f"line {line}, image {uuid} has no outcome", count)
    for (line, uuid), count in (told - wanted).items():
        found.found("double", f"line {line}, image {uuid} has an outcome too many", count)
    found.statuses = Counter(result["status"] for result in run.results)
    if strange := set(found.statuses) - STATUSES:
        found.found("wrong", f"statuses {strange}", sum(found.statuses[status] for status in strange))
    lines = [result["line"] for result in run.results]
    if lines != sorted(lines):
        found.found("order", "results.jsonl is not in the manifest's order")
    _look_at_csv(found, run)
    _look_at_sums(found, run)


def _look_at_csv(found: Findings, run: Run) -> None:
    """Check that results.csv equals results.jsonl, in the same order."""
    names = ("line", "uuid", "status", "code", "attempts", "job_uuid", "http_status", "started_at", "duration_ms")
    exact = [tuple("" if one[name] is None else str(one[name]) for name in names) for one in run.results]
    shown = [tuple(one[name] for name in names) for one in run.table]
    exact = [(*told, one["name"]) for told, one in zip(exact, run.results, strict=True)]
    shown = [(*told, _without_apostrophe(one["name"])) for told, one in zip(shown, run.table, strict=True)]
    if exact != shown:
        differ = next(
            (n for n, pair in enumerate(zip(exact, shown, strict=False), 1) if pair[0] != pair[1]), "the last"
        )
        found.found("order", f"results.csv ({len(shown)}) and results.jsonl ({len(exact)}) differ, record {differ}")


def _without_apostrophe(cell: str) -> str:
    """Return a name without the apostrophe that results.csv adds to what a spreadsheet would run."""
    return (
        cell[1:]
        if cell[:1] == "'" and cell[1:].lstrip("\t\n\r \"'")[:1] in tuple("=+-@\uff1d\uff0b\uff0d\uff20")
        else cell
    )


def _look_at_sums(found: Findings, run: Run) -> None:
    counts = {status: count for status, count in run.summary["counts"].items() if count}
    if counts != dict(found.statuses):
        found.found("sums", f"summary.json counts {counts}, results {dict(found.statuses)}")
    for name, count in (("summary.json rows", run.summary["rows"]), ("ledger rows", run.ledger.rows)):
        if count != found.rows:
            found.found("sums", f"{name}: {count}, the manifest has {found.rows}")


def _look_at_ledger(found: Findings, run: Run, puts: list[Put]) -> None:
    for uuid, sent in _by_image(puts).items():
        known = run.ledger.jobs.get(uuid, set())
        strangers = sum(put.job not in known for put in sent)
        too_many = max(len(sent) - run.ledger.attempts[uuid], strangers)
        if too_many > 0:
            text = f"{uuid}: {len(sent)} PUTs, {run.ledger.attempts[uuid]} attempts, {strangers} unknown job uuids"
            found.found("unrecorded", text, too_many)


# --------------------------------------------------------------------------------------------------------- is it true


def _look_at_outcomes(
    found: Findings, asked: Manifest, run: Run, puts: list[Put], table: dict[str, dict[str, Any]], *, lies: bool
) -> None:
    sent = _by_image(puts)
    for result in run.results:
        uuid = result["uuid"]
        planned, mine = asked.plan.get(uuid), sent.get(uuid, [])
        if planned is None:
            continue
        shows = _shows(table.get(uuid), planned)
        if lies and result["status"] == "updated" and mine and not shows:
            found.lied_to += 1
        elif untrue := _untrue(result["status"], mine, shows=shows, asks=bool(planned)):
            found.found("wrong", f"line {result['line']}, {uuid}: {result['status']} ({result['code']}), but {untrue}")


def _shows(image: dict[str, Any] | None, planned: dict[str, Any]) -> bool:
    wanted = {name: value for name, value in _trimmed(planned).items() if name not in TAGS}
    return image is not None and all(image.get(name) == value for name, value in wanted.items())


def _untrue(status: str, mine: list[Put], *, shows: bool, asks: bool) -> str:
    """Return what contradicts the status, or ""."""
    applied = [put.number for put in mine if put.applied]
    if status in NOTHING_SENT and mine:
        return f"{len(mine)} PUTs were received"
    if status == "unchanged":
        return "the image shows other values" if asks and not shows else ""
    if status == "updated":
        return "" if mine and shows else "no PUT was received" if shows else "the image shows other values"
    if status in ("failed", "unprocessed") and applied:
        return f"request {applied[0]} was applied"
    return "no PUT was received" if status == "drifted" and not mine else ""
