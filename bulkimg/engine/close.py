"""End runs: the refusal before anything is sent, the files, the summary, the exit code, the next command."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bulkimg import __version__
from bulkimg.applier import Ending
from bulkimg.engine.attending import end_refused
from bulkimg.engine.keeping import keep_few
from bulkimg.engine.measuring import note_refused
from bulkimg.engine.run import OpenRun, replaced_tags
from bulkimg.errors import Exit, StorageError
from bulkimg.ledger import files, insight, plans, stats, write_results
from bulkimg.ledger.files import write_fed_back, write_json, write_undo
from bulkimg.ledger.store import storage_errors
from bulkimg.model import GOOD, RETRYABLE, Observer, PlanCounts, ReportFailed, Status, Summary, iso_utc
from bulkimg.planner import refusal as guarded
from bulkimg.planner import too_many_missing, undo_rows
from bulkimg.report import tables
from bulkimg.report.documents import Changes, PlanDocument, SummaryDocument
from bulkimg.words import count


def refusal(*runs: OpenRun) -> str:
    """Return why the runs of one manifest must not send anything, in one sentence; "" if they may."""
    found, rows, in_all, fatal = 0, 0, 0, False
    for run in runs:
        problems, bad, stops = stats.problem_counts(run.ledger)
        # A problem of the manifest as a whole is in every run.
        found = max(found, problems) if stops else found + problems
        rows, in_all, fatal = rows + bad, in_all + stats.rows_in_all(run.ledger), fatal or bool(stops)
    first = runs[0]
    name = first.ledger.meta("manifest")
    if fatal or (found and not first.settings.skip_invalid):
        cure = "" if fatal or rows >= in_all else f", or add --skip-invalid to send the other {in_all - rows:,}"
        what = count(found, "problem")
        what = what if fatal or not rows else f"{rows:,} of {count(in_all, 'row')} cannot be sent ({what})"
        return f"{name}: {what}; fix {'it' if found == 1 else 'them'}{cure}"
    if any(run.ledger.meta("has_expectations") and not run.settings.survey for run in runs):
        return f"{name}: if_ columns need the images' present values, and --no-survey does not read them; remove --no-survey or the if_ columns"
    return ""


def refuse(run: OpenRun, why: str, observe: Observer = lambda event: None) -> Summary:
    """End a run whose manifest is refused: every row has its outcome, and nothing was sent."""
    run.ledger.set_meta(state="refused")
    summary = finish(run, Ending(Exit.MANIFEST, why), time.time())
    write_table(run)
    conclude(run, summary)
    draw(run, observe)
    end_refused(run, summary_document(summary), observe)
    note_refused(run, summary, observe)
    keep_few(run, observe)
    return summary


def finish(
    run: OpenRun,
    stop: Ending | None,
    ended: float,
    *,
    sending_seconds: float = 0.0,
    requests: int = 0,
    reached: bool = True,
) -> Summary:
    """Write the run's files from the ledger, except for `write_table` and `conclude`. Returns the summary.

    `ended` is seconds since the epoch. `reached`: the server has answered at least once.
    """
    ledger = run.ledger
    with storage_errors(run.directory.ledger):
        counts = stats.counts(ledger)
        puts = stats.puts_made(ledger)
        to_do = stats.rows_to_do(ledger)
    is_plan = stop is None and ledger.meta("state") == "planned"
    exit_code = _exit_code(counts, stop, to_do, is_plan=is_plan)
    # A resumed run adds the figures of its earlier processes. A process that was killed left none.
    requests += ledger.meta("requests", 0)
    sending_seconds += ledger.meta("sending_s", 0.0)
    before = ledger.meta("state")
    if before != "refused":
        # A run that has not begun to send keeps its state, so that resuming it makes the plan, or asks, again.
        state = "done" if not to_do else before if before in ("ready", "planned", "done") else "stopped"
        ledger.set_meta(state=state, ended_at=ended, exit_code=exit_code, requests=requests, sending_s=sending_seconds)
    following = next_command(run, counts, to_do, stop, reached=reached)
    ledger.set_meta(
        next=following, reason=stop.why if stop and exit_code else ""
    )  # used in the hint of rows that were not sent
    causes = insight.causes(ledger)
    run.counted = {"counts": counts, "causes": causes}
    started = ledger.meta("started_at", ended)
    summary = Summary(
        run_id=run.directory.run_id,
        directory=str(run.directory.path),
        target=run.settings.target if run.settings.endpoint else "",
        exit_code=exit_code,
        reason=stop.why if stop and exit_code else "",
        counts=counts,
        causes=[cause.as_document() for cause in causes],
        details={
            "rows": sum(counts.values()),
            "rows_left_out": ledger.meta("left_out", 0),
            "rows_to_do": to_do,
            "started_at": iso_utc(started),
            "ended_at": iso_utc(ended),
            "duration_s": round(ended - started, 3),
            "pace": {
                "rate_cap": "unlimited" if math.isinf(run.settings.rate) else run.settings.own_rate,
                "concurrency": run.settings.concurrency,
                "puts": puts,
                "requests": requests,
                "sending_s": round(sending_seconds, 3),
                "requests_per_s": round(requests / sending_seconds, 1) if sending_seconds else 0.0,
            },
            "manifest": {"name": ledger.meta("manifest"), "sha256": ledger.meta("sha256")},
            "plan": {"sha256": ledger.meta("plan_digest"), "surveyed": ledger.meta("surveyed")},
            "retry_of": ledger.meta("retry_of"),
            "undo_of": ledger.meta("undo_of"),
            "by": ledger.meta("by"),
            "note": ledger.meta("note", ""),
            "version": __version__,
            "next": following,
        },
    )
    if run.live is None or not run.live.complete(ledger):
        write_results(ledger, run.result_paths)
    write_fed_back(ledger, run.directory.path, run.settings.empty_token)
    if plans.is_made(ledger):
        undo = run.directory.path / "undo.csv"
        write_undo(
            lambda: undo_rows(plans.written(ledger), replace_tags=replaced_tags(ledger)), undo, run.settings.empty_token
        )
    return summary


def write_table(run: OpenRun, check: Callable[[], None] = lambda: None, *, rows: bool = True) -> None:
    """Write the file of --results if it is a table (.xlsx, .parquet). Raises StorageError.

    Without `rows` it has none: a run begins with it, so that an old file is not taken for its result.
    `check` is called now and then. What it raises ends the writing.
    """
    if path := run.table:
        tables.write_table(run.ledger, run.directory, path, path.suffix[1:], held=True, rows=rows, check=check)


def broken_off(run: OpenRun, summary: Summary, stop: Ending | None) -> Summary:
    """Return the summary of a run whose table was not written because of a signal. Resuming it writes the table."""
    code, following = int(stop.exit_code if stop else Exit.INTERRUPTED), f"bulkimg resume {run.directory.words}"
    reason = f"{stop.why if stop else 'interrupted'} before {run.table} was written"
    if summary.reason:
        reason = f"{summary.reason}; {run.table} was not written"
    run.ledger.set_meta(exit_code=code, next=following, reason=reason)
    details = {**summary.details, "next": following}
    return replace(summary, exit_code=code, reason=reason, details=details)


def conclude(run: OpenRun, summary: Summary) -> None:
    """Write summary.json, after every file whose failure is the run's."""
    write_json(run.directory.path / "summary.json", summary_document(summary))


def draw(run: OpenRun, observe: Observer) -> None:
    """Write report.html. Where that fails, the run is as it is: everything else is written already."""
    from bulkimg.report.run_page import write_report  # imported only now: no row waits for it

    try:
        with storage_errors(run.directory.ledger):
            write_report(run.ledger, run.directory, planned=run.planned, **run.counted)
    except StorageError as error:
        cause = getattr(error.__cause__, "strerror", None) or str(error.__cause__ or error)
        again = f"bulkimg report {run.directory.words} draws it"
        observe(ReportFailed("report.html", f"cannot be written: {cause}; {again}"))


def plan_page(run: OpenRun) -> Path:
    """Return the path of plan.html; write it and plan.csv if they do not exist.

    Nobody looks at the plan of most runs, so the files are made only when a plan is shown.
    """
    page = run.directory.path / "plan.html"
    if not page.exists():
        _write_plan(run)
    return page


def _write_plan(run: OpenRun) -> None:
    directory = run.directory
    files.write_plan(run.ledger, directory.path / "plan.csv")
    counts, settings = plans.counts(run.ledger), run.settings
    refused = guarded(counts, settings.own_max_changes, settings.allow_field) or too_many_missing(
        counts, settings.own_max_errors
    )
    from bulkimg.report.plan_page import write_plan_page  # imported only now: most runs draw no plan

    write_plan_page(run.ledger, directory, settings.target, refused)


def _exit_code(counts: Mapping[str, int], stop: Ending | None, to_do: int, *, is_plan: bool) -> int:
    """Return the exit code. A stop's own code counts unless it came too late to leave a row unprocessed.

    The rows of a plan are unprocessed and still fine.
    """
    if stop and (to_do or stop.exit_code not in (Exit.INTERRUPTED, Exit.TERMINATED, Exit.TARGET, Exit.TIME_BOX)):
        return int(stop.exit_code)
    fine = sum(counts[status] for status in GOOD) + (counts[Status.UNPROCESSED] if is_plan else 0)
    return int(Exit.OK if fine == sum(counts.values()) else Exit.SOME_ROWS_NOT)


def next_command(
    run: OpenRun, counts: Mapping[str, int], to_do: int, stop: Ending | None, *, reached: bool = True
) -> str | None:
    """Return the exact command to type next, or None if no command can do more."""
    state, words = run.ledger.meta("state"), run.directory.words
    if state == "refused" or (stop is not None and not stop.resumable):
        return None
    if state == "planned" and guarded(plans.counts(run.ledger), run.settings.own_max_changes, run.settings.allow_field):
        return None
    if to_do and state != "done":  # in a merged run, only the shard's own run can be resumed
        # A run keeps its endpoint. If that was wrong, the same command again takes the right one.
        wrong_endpoint = stop is not None and (stop.elsewhere or not reached or state == "ready")
        if stop is not None and stop.exit_code is Exit.TARGET and wrong_endpoint and run.command:
            return run.command
        return f"bulkimg {'apply' if state == 'planned' else 'resume'} {words}"
    return f"bulkimg retry {words}" if any(counts[status] for status in RETRYABLE) else None


def summary_document(summary: Summary) -> dict[str, Any]:
    """Return the summary as the JSON object of summary.json and --json."""
    return _document(summary).as_json()


def _document(summary: Summary) -> SummaryDocument:
    own = {name: getattr(summary, name) for name in summary.__slots__ if name != "details"}
    return SummaryDocument.model_validate(own | dict(summary.details))


def plan_document(summary: Summary, counts: PlanCounts | None) -> dict[str, Any]:
    """Return the summary and the plan's counts as the JSON object of `plan --json`."""
    changes = Changes.model_validate(asdict(counts)) if counts else None
    return PlanDocument.model_validate(_document(summary).model_dump() | {"changes": changes}).as_json()
