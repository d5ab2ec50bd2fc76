"""`bulkimg status`: what a run has done so far, read from its ledger while it runs or after it died."""

import time
from typing import Annotated, Any

import typer

from bulkimg.cli import complete, screen
from bulkimg.cli.execute import cause_line
from bulkimg.cli.options import SPEECH, CommandContext, Flags, with_options
from bulkimg.cli.resume import find
from bulkimg.engine import ask
from bulkimg.errors import BulkimgError
from bulkimg.ledger import Ledger, RunDirectory, plans, stats
from bulkimg.ledger.store import storage_errors
from bulkimg.model import GOOD, iso_utc
from bulkimg.report import plan_line
from bulkimg.report.documents import StatusDocument
from bulkimg.words import count

Run = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]", help="A run's id, the beginning of one, its directory, or last.", autocompletion=complete.runs
    ),
]
_NEXT = {"interrupted": "resume", "stopped": "resume", "ready": "resume", "planned": "apply"}


@with_options("runs_dir", *SPEECH)
def command(flags: Flags, run: Run = "last") -> None:
    """Reads only; never in the way of the run."""
    directory = find(run, flags)
    found = report(directory)
    if CommandContext(flags).settings.json_summary:
        screen.out_json(found)
        return
    _show(found)
    if found["next"]:
        screen.out(screen.one_line(f"next: {found['next']}"))


def _show(found: dict[str, Any]) -> None:
    screen.out(screen.one_line(f"run {found['run_id']}: {found['state']}, target {found['target'] or '-'}"))
    if found["plan"]:
        screen.out(found["plan"])
    else:
        lines: list[tuple[str, ...]] = [(status, f"{number:,}") for status, number in found["counts"].items() if number]
        if found["running"]:
            lines += [("in flight", f"{found['in_flight']:,}"), ("waiting", f"{found['waiting']:,}")]
        screen.out(screen.table(lines) or "no rows")
        pace = f", {found['rows_per_s']}/s over the last minute of work" if found["rows_per_s"] else ""
        screen.out(f"{found['settled']:,} of {count(found['rows'], 'row')} settled{pace}")
    for cause in found["causes"]:
        screen.out(screen.one_line(f"  {cause_line(cause)}"))


def report(directory: RunDirectory) -> dict[str, Any]:
    """Return a run's state, counts, pace and causes as a JSON object.

    States: reading, ready, planned, running, stopped, done, refused. A dead process leaves interrupted (it can be
    resumed) or abandoned (its manifest was not read to the end). `counts` of a living run are its outcomes. `in_flight`
    and `waiting` are the other rows, from the run itself if it answers.
    """
    held = directory.is_held()
    alive = _asked(directory) if held else None
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        with storage_errors(directory.ledger):
            return _report(directory, ledger, alive, held=held)
    finally:
        ledger.close()


def _report(directory: RunDirectory, ledger: Ledger, alive: dict[str, Any] | None, *, held: bool) -> dict[str, Any]:
    state = ledger.meta("state", "reading")
    if not held:
        state = {"reading": "abandoned", "running": "interrupted"}.get(state, state)
    outcomes, rows = stats.settled_counts(ledger), stats.rows_in_all(ledger)
    settled = sum(outcomes.values())
    flying = min(alive["in_flight"] if alive else stats.in_flight(ledger), rows - settled) if held else 0
    settings = ledger.meta("settings", {})
    is_plan = state == "planned"
    counts = outcomes if held else stats.counts(ledger)
    not_fine = outcomes if held or is_plan else counts
    return StatusDocument.model_validate(
        {
            "run_id": directory.run_id,
            "directory": str(directory.path),
            "kind": _kind(ledger),
            "state": state,
            "running": held,
            "target": f"{settings['endpoint']}{settings.get('base_path', '/zstack')}" if "endpoint" in settings else "",
            "rows": rows,
            "settled": settled,
            "in_flight": flying,
            "waiting": rows - settled - flying if held else 0,
            "not_fine": sum(number for status, number in not_fine.items() if status not in GOOD),
            "rows_per_s": stats.recent_pace(ledger)[1],
            "plan": plan_line(plans.counts(ledger)) if is_plan else "",
            "counts": counts,
            "causes": stats.causes(ledger, settled_only=held or is_plan),
            "manifest": ledger.meta("manifest"),
            "note": ledger.meta("note", ""),
            "undo_of": ledger.meta("undo_of"),
            "retry_of": ledger.meta("retry_of"),
            "started_at": iso_utc(ledger.meta("started_at") or ledger.meta("created_at") or time.time()),
            "exit_code": ledger.meta("exit_code"),
            "next": None if held else _following(directory, ledger, state),
        }
    ).as_json()


def _following(directory: RunDirectory, ledger: Ledger, state: str) -> str | None:
    """Return the next command of the run's end, or for a process that died the one that it would have named."""
    if state in ("ready", "planned", "stopped", "done") and ledger.meta("exit_code") is not None:
        said: str | None = ledger.meta("next")
        return said
    return f"bulkimg {_NEXT[state]} {directory.words}" if state in _NEXT else None


def _kind(ledger: Ledger) -> str:
    if ledger.meta("undo_of"):
        return "undo"
    return "retry" if ledger.meta("retry_of") else "run"


def _asked(directory: RunDirectory) -> dict[str, Any] | None:
    """Ask the process that executes the run for its status. Returns None if it takes no requests."""
    try:
        return ask(directory.path, ["status"])
    except BulkimgError:
        return None
