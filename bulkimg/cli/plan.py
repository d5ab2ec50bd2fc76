"""`bulkimg plan`: a run that stops at its plan. It also prints plans."""

from itertools import islice
from typing import Annotated

import typer

from bulkimg.cli import screen
from bulkimg.cli.execute import cause_line, execute
from bulkimg.cli.options import CAMPAIGN, MANIFEST, PACE, PLAN, REPORT, SHARD, TARGET, Flags, user_path, with_options
from bulkimg.cli.run import Source, ask_for, begin_or_refuse
from bulkimg.engine.close import plan_document
from bulkimg.engine.run import OpenRun
from bulkimg.errors import Exit
from bulkimg.ledger import Ledger, plans
from bulkimg.model import PlanCounts, Summary
from bulkimg.planner import refusal
from bulkimg.planner.diff import show
from bulkimg.report import plan_line

SAMPLE = 10  # most rows that are shown as a difference

Detailed = Annotated[
    bool,
    typer.Option(
        "--detailed-exitcode",
        envvar="BULKIMG_DETAILED_EXITCODE",
        help="Exit 10 when there are changes, 0 when there are none.",
    ),
]


@with_options(*TARGET, *PACE, *MANIFEST, *PLAN, *CAMPAIGN, *SHARD, *REPORT)
def command(source: Source, flags: Flags, detailed_exitcode: Detailed = False) -> None:
    """Read the images and show what would change. `bulkimg apply` sends it."""
    given = source
    asked, source = ask_for(source, flags, divides=True)
    asked.refuse_dry_run("plan")
    if asked.settings.target_names:
        from bulkimg.cli.campaign import executing, opening

        opened = opening.begin(asked, flags, user_path(given), source, plan_only=True)
        executing.plan_and_exit(opened, detailed=detailed_exitcode)
    run, credentials = begin_or_refuse(asked, source, plan_only=True)
    summary = execute(run, credentials, plan_only=True)
    counts = show_plan(summary, run)
    changes = counts is not None and counts.actions["update"] > 0
    raise typer.Exit(Exit.CHANGES if detailed_exitcode and changes and not summary.reason else summary.exit_code)


def show_plan(summary: Summary, run: OpenRun) -> PlanCounts | None:
    """Print the plan to standard output. Returns its counts, or None after a message if no plan was made."""
    counts, sample = read_plan(run)
    if run.settings.json_summary:
        screen.out_json(plan_document(summary, counts))
    else:
        print_plan(summary, counts, sample)
    warn_of_plan(summary, run, counts)
    return counts


def read_plan(run: OpenRun) -> tuple[PlanCounts | None, list[plans.PlannedRow]]:
    """Return a plan's counts and its first rows, or None if no plan was made."""
    ledger = Ledger.open(run.directory.ledger, read_only=True)
    try:
        if ledger.meta("state") == "ready":
            return None, []
        return plans.counts(ledger), list(islice(plans.rows(ledger, updates_only=True), SAMPLE))
    finally:
        ledger.close()


def print_plan(summary: Summary, counts: PlanCounts | None, sample: list[plans.PlannedRow]) -> None:
    """Print a plan for a person, or why there is none."""
    if counts is None:
        screen.error(screen.one_line(summary.reason))
    else:
        _show(counts, sample, summary)


def _show(counts: PlanCounts, sample: list[plans.PlannedRow], summary: Summary) -> None:
    screen.out(screen.one_line(f"{plan_line(counts)}; target {summary.target}"))
    if counts.transitions:
        screen.out("most frequent:")
    for name, before, after, images in counts.transitions:
        screen.out(screen.one_line(f"    {name}: {show(before)} → {show(after)} ×{images:,}"))
    for row in sample:
        screen.out(f"line {row.line}: image {row.uuid}")
        for name, value in row.send.items():
            screen.change(name, show(row.before.get(name)) if counts.surveyed else None, show(value))
    left = counts.actions["update"] - len(sample)
    if left > 0:
        screen.out(f"… and {left:,} more")
    for cause in summary.causes:
        if cause["status"] != "unprocessed":
            screen.out(screen.one_line(cause_line(cause)))


def warn_of_plan(summary: Summary, run: OpenRun, counts: PlanCounts | None, *, has_next: bool = True) -> None:
    """Warn of what prevents the plan's apply, and say how to apply it."""
    if counts is None:
        return
    refused = refusal(counts, run.settings.own_max_changes, run.settings.allow_field)
    if summary.reason:
        screen.note(screen.one_line(f"stopped: {summary.reason}"))
    elif refused:
        screen.note(f"bulkimg apply will refuse this plan: {refused}")
    if (run.directory.path / "plan.html").exists():  # not if no row was left to plan
        screen.note(f"review:  {summary.directory}/plan.html (or plan.csv)")
    following = summary.details["next"]
    if following and has_next:
        checksum = f" --checksum {counts.digest[:16]}" if following.startswith("bulkimg apply") else ""
        screen.note(f"next:    {following}{checksum}")
