"""This file is `bulkimg status`: what a run has done so far, read from its ledger while it runs or after it died."""

import time
from typing import Annotated, Any

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import Asked, Flags, takes
from bulkimg.cli.resume import find
from bulkimg.ledger import Ledger, RunDirectory, tally
from bulkimg.ledger.store import storage_errors
from bulkimg.model import iso_utc

Run = Annotated[str, typer.Argument(metavar="[RUN]", help="A run's id, the beginning of one, its directory, or last.")]


@takes("runs_dir", "json")
def command(flags: Flags, run: Run = "last") -> None:
    """Reads only; never in the way of the run."""
    directory = find(run, flags)
    found = report(directory)
    if Asked(flags).settings.json_summary:
        screen.out_json(found)
        return
    screen.out(f"run {found['run_id']}: {found['state']}, target {found['target'] or '-'}")
    screen.out(
        screen.table([(status, f"{count:,}") for status, count in found["counts"].items() if count]) or "no rows"
    )
    if found["rows_per_s"]:
        screen.out(
            f"{found['settled']:,} of {found['rows']:,} rows settled, {found['rows_per_s']}/s over the last minute of work"
        )
    if found["running"]:
        screen.out("unknown are those under way, unprocessed those that wait for their turn")
    for cause in found["causes"]:
        if found["running"] and not cause["code"]:
            continue
        screen.out(
            screen.one_line(
                f"  {cause['rows']:,} {cause['status']} {cause['code']}: {str(cause['message'])[:160]} (first in line {cause['first_line']})"
            )
        )
    following = {"interrupted": "resume", "stopped": "resume", "ready": "resume", "planned": "apply"}
    if (how := following.get(found["state"])) and not found["running"]:
        screen.out(f"next: bulkimg {how} {found['run_id']}")


def report(directory: RunDirectory) -> dict[str, Any]:
    """A run's state, counts, pace and causes. States: reading, ready, running, stopped, done,
    refused; a dead process leaves interrupted (resume goes on) or abandoned (its manifest was not read to the end)."""
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        with storage_errors(directory.ledger):
            state = ledger.meta("state", "reading")
            held = directory.is_held()
            counts = tally.counts(ledger)
            settings = ledger.meta("settings", {})
            settled, per_second = tally.recent_pace(ledger)
            return {
                "run_id": directory.run_id,
                "directory": str(directory.path),
                "state": {"reading": "abandoned", "running": "interrupted"}.get(state, state) if not held else state,
                "running": held,
                "target": f"{settings['endpoint']}{settings.get('base_path', '/zstack')}"
                if "endpoint" in settings
                else "",
                "rows": sum(counts.values()),
                "settled": settled,
                "rows_per_s": per_second,
                "counts": counts,
                "causes": tally.causes(ledger),
                "manifest": ledger.meta("manifest"),
                "started_at": iso_utc(ledger.meta("started_at") or ledger.meta("created_at") or time.time()),
                "exit_code": ledger.meta("exit_code"),
            }
    finally:
        ledger.close()
