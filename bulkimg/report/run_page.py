"""Draw a run from its ledger: report.html, and the parts of it that the live page shows.

The page is one file without scripts. It grows with the fields of a run, not with its rows (at most 300 kB).
"""

import os.path
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from bulkimg import __version__
from bulkimg.ledger import Ledger, RunDirectory, insight, plans, stats, timeline
from bulkimg.ledger.files import replacing
from bulkimg.meter import percentile
from bulkimg.model import GOOD, PlanCounts, Status, iso_utc
from bulkimg.report import charts, render
from bulkimg.report.charts import Bin, duration
from bulkimg.report.difference import shown
from bulkimg.report.escaping import code
from bulkimg.report.plan_page import added_fields, changed, transitions
from bulkimg.report.render import moment
from bulkimg.report.timeline import KINDS, PERCENTILES, STATUSES, Line, Timeline
from bulkimg.report.timeline import timeline as in_time
from bulkimg.words import clock_text, count, rate_text

CAUSES = 20  # as in summary.json
CHANGES = 200
SLOWEST = 20
LONGEST = 160  # characters of a value; the ledger and results.jsonl have all of it
ROOM = 90_000  # characters for the differences, so that the page stays below 300 kB
MOST_WORKERS = 100
MOST_LINES = 60  # events in the list


class Figure(NamedTuple):
    """A picture with its title, legend, and what it shows in words."""

    title: str
    about: str
    key: Markup
    svg: Markup


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a report shows. Texts are plain; the template escapes them."""

    run_id: str
    state: str
    verdict: str
    tone: str  # good, bad or open
    as_of: Markup | None
    warning: str
    tiles: Sequence[tuple[str, int]]
    following: str | None
    figures: Sequence[Figure]
    bins: Sequence[Bin]
    outcomes: Sequence[str]  # the statuses that occur in the bins
    width: int
    lines: Sequence[Line]
    earlier_lines: int
    waits: Sequence[Line]
    more_waits: int
    waited: str
    causes: Sequence[insight.CauseRow]
    fields: Mapping[str, int]
    transitions: Sequence[tuple[list[Any], int]]
    added: Sequence[str]
    surveyed: bool
    changes: Sequence[tuple[insight.Changed, list[list[Any]]]]
    changed: int
    slowest: Sequence[insight.Slow]
    workers: Sequence[Mapping[str, Any]]
    more_workers: int
    facts: Sequence[tuple[str, str | Markup]]
    comparison: Sequence[tuple[str, str, str]]
    other: str


def write_report(
    ledger: Ledger,
    directory: RunDirectory,
    *,
    planned: PlanCounts | None = None,
    counts: Mapping[str, int] | None = None,
    causes: Sequence[insight.CauseRow] | None = None,
) -> Path:
    """Write the report of a run that ends now. Raises StorageError. What is known already need not be counted again."""
    path = directory.path / "report.html"
    found = report(ledger, directory, held=False, planned=planned, counts=counts, causes=causes)
    with replacing(path) as file:
        for piece in pages(found):
            file.write(piece)
    return path


def pages(found: Report) -> Iterator[str]:
    """Yield the page in pieces."""
    return render.page("report.html", styles=("page.css", "report.css"), **values(found))


def values(found: Report) -> dict[str, Any]:
    """Return what the templates of a report need."""
    return {
        "report": found,
        "kinds": KINDS,
        "percentiles": tuple(PERCENTILES),
        "clock": clock_text,
        "duration": duration,
    }


def report(
    ledger: Ledger,
    directory: RunDirectory,
    *,
    held: bool,
    planned: PlanCounts | None = None,
    counts: Mapping[str, int] | None = None,
    causes: Sequence[insight.CauseRow] | None = None,
    other: "tuple[Ledger, RunDirectory] | None" = None,
    now: float | None = None,
) -> Report:
    """Read everything that a report shows. `held`: a process executes the run. `other` is a run to compare with."""
    state = insight.state(ledger, held=held)
    open_rows = held or state == "planned"  # rows without an outcome say nothing yet
    if causes is None or open_rows:
        causes = insight.causes(ledger, CAUSES, settled_only=open_rows)
    plan = planned or plans.counts(ledger)
    return Report(
        **_moving(ledger, directory, held=held, now=now, counts=counts),
        run_id=directory.run_id,
        warning=_other_target(ledger, other[0]) if other else "",
        causes=causes,
        fields=plan.fields,
        transitions=[(_cut(change), images) for change, images in transitions(plan)],
        added=added_fields(ledger),
        surveyed=plan.surveyed,
        changes=list(_changes(insight.changed(ledger, CHANGES))),
        slowest=insight.slowest(ledger, SLOWEST),
        comparison=list(_compared(ledger, other[0])) if other else (),
        other=other[1].run_id if other else "",
    )


def refreshed(found: Report, ledger: Ledger, directory: RunDirectory, *, held: bool) -> Report:
    """Return the report with what is cheap to read as it is now: counts, pictures and events, but no single rows."""
    return replace(found, **_moving(ledger, directory, held=held))


def _moving(
    ledger: Ledger,
    directory: RunDirectory,
    *,
    held: bool,
    now: float | None = None,
    counts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Read what changes from second to second while rows are sent."""
    state = insight.state(ledger, held=held)
    open_rows = held or state == "planned"
    if counts is None or open_rows:
        counts = stats.settled_counts(ledger) if open_rows else stats.counts(ledger)
    shape = in_time(timeline.samples(ledger), timeline.events(ledger))
    verdict, tone = _verdict(ledger, state, counts, stats.rows_in_all(ledger))
    is_final = not held and state in ("done", "stopped", "refused", "planned")
    workers = sorted(ledger.meta("workers", []), key=lambda worker: -worker["rows"])
    lines, waits = (shape.lines, shape.waits) if shape else ((), ())
    return {
        "state": state,
        "verdict": verdict,
        "tone": tone,
        "as_of": None if is_final else moment(now or time.time()),
        "tiles": [(status, counts[status]) for status in STATUSES if counts[status]],
        "following": None if held else insight.following(ledger, directory),
        "figures": list(_figures(shape)) if shape else (),
        "bins": shape.bins if shape else (),
        "outcomes": [status for status in STATUSES if shape.total.outcomes.get(status)] if shape else (),
        "width": shape.width if shape else 0,
        "lines": lines[-MOST_LINES:],
        "earlier_lines": max(0, len(lines) - MOST_LINES),
        "waits": waits[:MOST_LINES],
        "more_waits": max(0, len(waits) - MOST_LINES),
        "waited": duration(shape.waited) if shape else "",
        "changed": counts[Status.UPDATED] + counts[Status.DRIFTED],
        "workers": workers[:MOST_WORKERS],
        "more_workers": max(0, len(workers) - MOST_WORKERS),
        "facts": list(_facts(ledger, directory, shape)),
    }


def _verdict(ledger: Ledger, state: str, counts: Mapping[str, int], rows: int) -> tuple[str, str]:
    """Return what became of the run in one sentence, and its tone."""
    settled = sum(counts.values())
    bad = settled - sum(counts[status] for status in GOOD)
    left = counts[Status.UNPROCESSED] + counts[Status.UNKNOWN]
    match state:
        case "done" if not bad:
            return f"Finished: {_all(rows)} updated or was so already.", "good"
        case "done":
            return f"Finished, but {bad:,} of {count(rows, 'row')} {'is' if bad == 1 else 'are'} not fine.", "bad"
        case "planned":
            return "Planned: nothing was sent.", "open"
        case "refused":
            return f"Refused: the manifest has problems, so nothing was sent ({count(rows, 'row')}).", "bad"
        case "running":
            return f"Running: {settled:,} of {count(rows, 'row')} have their outcome.", "open"
        case "stopped":
            return f"Stopped: {ledger.meta('reason') or 'before its end'}; {count(left, 'row')} left.", "bad"
        case "interrupted":
            return f"Interrupted: the process ended suddenly; {count(left, 'row')} left.", "bad"
        case _:
            return f"Begun: {count(rows, 'row')} read; nothing was sent.", "open"


def _all(rows: int) -> str:
    return "the only row is" if rows == 1 else f"every one of {rows:,} rows is"


# -- pictures ---------------------------------------------------------------------------------------------------------


def _figures(shape: Timeline) -> Iterator[Figure]:
    frame, bins, total = shape.frame, shape.bins, shape.total
    requests = sum(total.requests.values())
    kinds = [kind for kind in KINDS if total.requests.get(kind)]
    caps = {one.values["cap"] for one in bins} - {None}
    about = (
        f"{count(requests, 'request')} in {clock_text(shape.seconds)}: {requests / shape.seconds:,.1f} a second on average, "
        f"at most {_most(bins, kinds):,.0f}. "
        f"{_caps(sorted(cap for cap in caps if cap))}"
        + (f" The run waited {duration(shape.waited)} in all (shaded)." if shape.waited else "")
    )
    title = "Requests a second"
    svg = charts.stacked(frame, bins, kinds, cap="cap", about=about, title=title)
    yield Figure(title, about, charts.key([*kinds, *(["cap"] if caps else [])]), svg)
    if total.latency:
        title = "Latency of PUTs"
        said = ", ".join(
            f"{name} {duration(percentile(total.latency, share) or 0)}" for name, share in PERCENTILES.items()
        )
        about = f"{said}, of {count(sum(total.latency.values()), 'answered PUT')}. Dots: fewer than five PUTs. What is far higher than usual is cut off."
        names = tuple(PERCENTILES)
        yield Figure(title, about, charts.key(names), charts.lines(frame, bins, names, about=about, title=title))
    most = max(one.values["limit"] or 0 for one in bins)
    title = "Rows in flight"
    about = f"At most {total.in_flight:,} rows were in flight; the limit was at most {most:,.0f}."
    svg = charts.areas(frame, bins, "in flight", "limit", about=about, title=title)
    yield Figure(title, about, charts.key(["in flight", "limit"]), svg)
    statuses = [status for status in STATUSES if total.outcomes.get(status)]
    if statuses:
        title = "Outcomes a second"
        about = "; ".join(f"{total.outcomes[status]:,} {status}" for status in statuses) + " while rows were sent."
        svg = charts.stacked(frame, bins, statuses, about=about, title=title)
        yield Figure(title, about, charts.key(statuses), svg)


def _most(bins: Sequence[Bin], names: Iterable[str]) -> float:
    return max(sum(one.values[name] or 0 for name in names) for one in bins)


def _caps(caps: Sequence[float]) -> str:
    if not caps:
        return "There was no cap."
    return (
        f"The cap was {rate_text(caps[0])}."
        if len(caps) == 1
        else f"The cap was {rate_text(caps[0])} to {rate_text(caps[-1])}."
    )


# -- rows -------------------------------------------------------------------------------------------------------------


def _changes(found: Iterable[insight.Changed]) -> Iterator[tuple[insight.Changed, list[list[Any]]]]:
    """Yield rows with their changes as long as there is room for them."""
    room = ROOM
    for row in found:
        changes = [_cut(changed(name, row.before.get(name), value)) for name, value in row.after.items()]
        room -= 220 + sum(90 + len(shown(before)) + len(shown(after)) for _, before, after, *_ in changes)
        if room < 0:
            return
        yield row, changes


def _cut(change: list[Any]) -> list[Any]:
    """Return a change whose values are not too long for a report."""
    name, before, after, *_ = change
    if len(shown(before)) <= LONGEST and len(shown(after)) <= LONGEST:
        return change
    return [name, _short(before), _short(after)]


def _short(value: Any) -> Any:
    text = shown(value)
    return f"{text[:LONGEST]}…" if len(text) > LONGEST else value


# -- facts ------------------------------------------------------------------------------------------------------------


def _facts(ledger: Ledger, directory: RunDirectory, shape: Timeline | None) -> Iterator[tuple[str, str | Markup]]:
    """Yield what, where, who, when and why, as far as they are known."""
    meta, settings = ledger.meta, ledger.meta("settings", {})
    by, exit_code = meta("by") or {}, meta("exit_code")
    begun, ended = meta("started_at") or meta("created_at"), meta("ended_at")
    requests = count(sum(shape.total.requests.values()), "request") if shape else ""
    found: list[tuple[str, str | Markup | None]] = [
        ("Target", code(_target(settings))),
        ("Manifest", os.path.normpath(meta("manifest")) if meta("manifest") else None),
        ("Manifest SHA-256", code(meta("sha256"))),
        ("Undo of", code(meta("undo_of"))),
        ("Retry of", code(meta("retry_of"))),
        ("Shards", ", ".join(meta("shards", []))),
        ("Job", settings.get("job_name")),
        ("Started by", "@".join(str(by[key]) for key in ("user", "host") if by.get(key))),
        ("Started at", moment(begun) if begun else None),
        ("Ended at", Markup("{} ({})").format(moment(ended), clock_text(ended - begun)) if begun and ended else None),
        ("Time of work", f"{clock_text(shape.seconds)}, {requests}" if shape else None),
        ("Note", meta("note")),
        ("Plan checksum", code(meta("plan_digest"))),
        ("Exit code", str(exit_code) if exit_code is not None else None),
        ("Directory", code(str(directory.path))),
        ("Plugins", ", ".join(f"{used['name']} ({used['package']} {used['version']})" for used in meta("plugins", []))),
        ("Version", f"bulkimg {meta('version')}, drawn by {__version__}"),
    ]
    yield from ((name, value) for name, value in found if value)


def _target(settings: Mapping[str, Any]) -> str:
    return f"{settings.get('endpoint', '')}{settings.get('base_path', '')}"


# -- another run ------------------------------------------------------------------------------------------------------


def _other_target(ledger: Ledger, other: Ledger) -> str:
    """Return a warning if the runs are of two servers."""
    ours, theirs = (_target(one.meta("settings", {})) for one in (ledger, other))
    return "" if ours == theirs else f"The runs are of two servers: this one of {ours}, the other of {theirs}."


def _compared(ledger: Ledger, other: Ledger) -> Iterator[tuple[str, str, str]]:
    """Yield (what, this run, the other run)."""
    sides = [_side(one) for one in (ledger, other)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        yield name, sides[0].get(name, "–"), sides[1].get(name, "–")


def _side(ledger: Ledger) -> dict[str, str]:
    counts = stats.counts(ledger)
    found = {"Started": iso_utc(ledger.meta("started_at") or ledger.meta("created_at") or 0)[:19].replace("T", " ")}
    found["Rows"] = f"{stats.rows_in_all(ledger):,}"
    found |= {status: f"{number:,}" for status, number in counts.items() if number}
    if shape := in_time(timeline.samples(ledger), timeline.events(ledger)):
        requests = sum(shape.total.requests.values())
        found["Time of work"] = clock_text(shape.seconds)
        found["Requests"] = f"{requests:,}"
        found["Requests a second"] = f"{requests / shape.seconds:,.1f}"
        found["Waited"] = duration(shape.waited)
        for name, share in PERCENTILES.items():
            if (seconds := percentile(shape.total.latency, share)) is not None:
                found[f"PUT latency {name}"] = duration(seconds)
    return found
