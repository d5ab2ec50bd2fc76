"""Execute the open runs of a campaign in one event loop: one question, one end."""

import asyncio
import time
from typing import NoReturn

import typer

from bulkimg.campaign import Campaign
from bulkimg.campaign.execute import Ended, Execution, Questions, Sides, Turn
from bulkimg.campaign.totals import status_document, summary_document
from bulkimg.cli import screen
from bulkimg.cli.campaign.opening import Opened
from bulkimg.cli.campaign.questions import questions_of
from bulkimg.cli.campaign.showing import show
from bulkimg.cli.execute import typed, with_signals
from bulkimg.cli.plan import print_plan, read_plan, warn_of_plan
from bulkimg.cli.progress import Bars, Watcher, kind_of
from bulkimg.engine.execute import Engine
from bulkimg.engine.planning import Approve
from bulkimg.engine.run import OpenRun
from bulkimg.engine.steering import in_words
from bulkimg.errors import BulkimgError, Exit
from bulkimg.process import allow_files, event_loop, leave_no_core


def execute_and_exit(opened: Opened, *, ask: bool = True) -> NoReturn:
    """Execute the runs, show how each ended, and exit with the worst exit code."""
    asks = ask and not opened.settings.yes and screen.can_ask()
    ended = _execute(opened, questions_of(opened) if asks else None)
    _draw(opened.campaign)
    document = summary_document(opened.campaign, ended)
    if opened.settings.json_summary:
        screen.out_json(document)
    elif opened.settings.log_format == "json":
        screen.note_json({"event": "summary", **document})
    else:
        show(document, ended, opened.campaign.words)
    raise typer.Exit(document["exit_code"])


def _draw(made: Campaign) -> None:
    """Write the page of the campaign. A failure is only said: each run has its own report."""
    from bulkimg.campaign.page import write_page  # imported only now: no row waits for it

    try:
        write_page(status_document(made), made, time.time())
    except BulkimgError as error:
        screen.warning(screen.one_line(f"{error}; bulkimg report {made.words} draws the page"))


def plan_and_exit(opened: Opened, *, detailed: bool = False) -> NoReturn:
    """Make the plans, show them, and exit."""
    ended = _execute(opened, None, plan_only=True)
    plans = {name: read_plan(opened.runs[name]) for name, one in ended.items() if one.summary}
    counted = {name: counts for name, (counts, _) in plans.items() if counts}
    document = summary_document(opened.campaign, ended, counted)
    if opened.settings.json_summary:
        screen.out_json(document)
    for name, one in ended.items():
        if not opened.settings.json_summary:
            screen.out(f"target {name}:")
        if one.summary is None:
            screen.error(screen.one_line(f"{name}: {one.error}"))
            continue
        if not opened.settings.json_summary:
            print_plan(one.summary, *plans[name])
        warn_of_plan(one.summary, opened.runs[name], counted.get(name), has_next=False)
    if document["next"]:
        screen.note(f"next:    {document['next']}")
    code = document["exit_code"]
    changes = any(counts.actions["update"] for counts in counted.values())
    raise typer.Exit(Exit.CHANGES if detailed and changes and not code else code)


def _execute(opened: Opened, questions: Questions | None, *, plan_only: bool = False) -> dict[str, Ended]:
    """Execute the runs in one event loop. Returns how each ended."""
    leave_no_core()
    sides = Sides()
    bars = Bars() if kind_of(opened.settings) == "bar" else None
    watchers = {
        name: Watcher(run.settings, tells_plan=not plan_only, name=name, bars=bars) for name, run in opened.runs.items()
    }
    files = sum(run.settings.concurrency + 16 for run in opened.runs.values())

    def begin_one(name: str, run: OpenRun, approve: Approve | None, turn: Turn) -> Engine:
        run.command, run.tell, run.turn = typed(run), screen.note, turn
        more = files - run.settings.concurrency
        engine = Engine(
            run,
            opened.credentials[name],
            watchers[name],
            allow=lambda rows: allow_files(rows + more),
            approve=approve,
            plan_only=plan_only,
        )
        watchers[name].follow(lambda: engine.live)
        return engine

    def status() -> None:
        for name, engine in sides.engines.items():
            screen.note(f"bulkimg: {name}: {in_words(engine.steering.status())}")

    settings = opened.settings
    execution = Execution(opened.runs, begin_one, sides, questions, stop_on_failure=settings.stop_on_failure)
    work = execution.one_by_one if settings.order == "one-by-one" else execution.in_parallel
    try:
        allow_files(files)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            ended = runner.run(with_signals(sides, status, work))
    finally:
        for watcher in watchers.values():
            watcher.close()
        for run in opened.runs.values():
            run.close()
    return ended | {name: Ended(error=error) for name, error in opened.errors.items()}
