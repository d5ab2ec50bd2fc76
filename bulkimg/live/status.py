"""Describe a run as it is now, from its ledger and, if it lives, from its process."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bulkimg.engine.control import ask
from bulkimg.errors import BulkimgError
from bulkimg.ledger import Ledger, RunDirectory, insight, plans, stats
from bulkimg.ledger.store import storage_errors
from bulkimg.model import GOOD, iso_utc
from bulkimg.report import plan_line
from bulkimg.report.documents import StatusDocument


def status_of(directory: RunDirectory, causes: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Return a run's state, counts, pace and causes as a JSON object.

    States: reading, ready, planned, running, stopped, done, refused. A dead process leaves interrupted (it can be
    resumed) or abandoned (its manifest was not read to the end). `counts` of a living run are its outcomes. `in_flight`
    and `waiting` are the other rows, from the run itself if it answers. `causes` of a living run save reading its rows.
    """
    held = directory.is_held()
    alive = _asked(directory) if held else None
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        with storage_errors(directory.ledger):
            return _report(directory, ledger, alive, causes if held else None, held=held)
    finally:
        ledger.close()


def _report(
    directory: RunDirectory,
    ledger: Ledger,
    alive: dict[str, Any] | None,
    causes: Sequence[Mapping[str, Any]] | None,
    *,
    held: bool,
) -> dict[str, Any]:
    state = insight.state(ledger, held=held)
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
            "kind": insight.kind(ledger),
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
            "causes": causes if causes is not None else _causes(ledger, settled_only=held or is_plan),
            "manifest": ledger.meta("manifest"),
            "note": ledger.meta("note", ""),
            "undo_of": ledger.meta("undo_of"),
            "retry_of": ledger.meta("retry_of"),
            "started_at": iso_utc(ledger.meta("started_at") or ledger.meta("created_at") or time.time()),
            "exit_code": ledger.meta("exit_code"),
            "plugins": ledger.meta("plugins", []),
            "workers": [_present(worker, held=held) for worker in ledger.meta("workers", [])],
            "shards": ledger.meta("shards", []),
            "next": None if held else insight.following(ledger, directory),
        }
    ).as_json()


def _present(worker: dict[str, Any], *, held: bool) -> dict[str, Any]:
    """Return a worker as it is now: without a living desk none works."""
    return worker if held or worker["state"] != "working" else worker | {"state": "lost", "in_flight": 0}


def _asked(directory: RunDirectory) -> dict[str, Any] | None:
    """Ask the process that executes the run for its status. Returns None if it takes no requests."""
    try:
        return ask(directory.path, ["status"])
    except BulkimgError:
        return None


def _causes(ledger: Ledger, *, settled_only: bool) -> list[dict[str, Any]]:
    return [cause.as_document() for cause in insight.causes(ledger, settled_only=settled_only)]
