"""`bulkimg status`: what a run has done so far, read from its ledger while it runs or after it died."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bulkimg.campaign import Campaign
from bulkimg.cli import complete, screen
from bulkimg.cli.execute import cause_line
from bulkimg.cli.options import SPEECH, CommandContext, Flags, with_options
from bulkimg.cli.resume import find_any
from bulkimg.errors import Exit
from bulkimg.live import status_of
from bulkimg.report.sentences import worker_lines
from bulkimg.words import count

Run = Annotated[
    str,
    typer.Argument(
        metavar="[RUN]", help="A run's id, the beginning of one, its directory, or last.", autocompletion=complete.runs
    ),
]


SHARDS = 8  # most that are named


@with_options("runs_dir", *SPEECH)
def command(flags: Flags, run: Run = "last") -> None:
    """Reads only; never in the way of the run."""
    directory = find_any(run, flags)
    is_json = CommandContext(flags).settings.json_summary
    if isinstance(directory, Campaign):
        from bulkimg.campaign.totals import status_document  # imported only now: most runs have one target
        from bulkimg.cli.campaign.showing import show_status

        whole = status_document(directory)
        screen.out_json(whole) if is_json else show_status(whole)
        if whole["unreadable"]:
            raise typer.Exit(Exit.STORAGE)
        return
    found = status_of(directory)
    screen.out_json(found) if is_json else show(found)


def show(found: Mapping[str, Any]) -> None:
    """Print a status, and the next command if there is one."""
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
    if shards := found["shards"]:
        more = f" and {len(shards) - SHARDS} more" if len(shards) > SHARDS else ""
        screen.out(screen.one_line(f"merged from shards {', '.join(shards[:SHARDS])}{more}"))
    for line in worker_lines(found["workers"]):
        screen.out(screen.one_line(f"  {line}"))
    for cause in found["causes"]:
        screen.out(screen.one_line(f"  {cause_line(cause)}"))
    if found["next"]:
        screen.out(screen.one_line(f"next: {found['next']}"))
