"""This file carries an open run out for a command: event loop, signals, progress, the closing words and the exit code."""

import asyncio
import signal
from functools import partial
from typing import Any, NoReturn

import typer

from bulkimg.cli import screen
from bulkimg.cli.progress import Watcher
from bulkimg.credentials import Credentials
from bulkimg.engine import Engine, OpenRun, in_words, summary_document
from bulkimg.errors import Exit
from bulkimg.model import CanaryPassed, PlanMade, Status, Summary
from bulkimg.process import allow_files, event_loop, leave_no_core
from bulkimg.settings import Settings

_SIGNALS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED, signal.SIGHUP: Exit.TERMINATED}


def carry(run: OpenRun, credentials: Credentials, *, ask: bool = True, checksum: str | None = None) -> NoReturn:
    """Carry the run out, show what came of it, and leave with its exit code. `ask`: where there is somebody to be asked."""
    asks = ask and not run.settings.yes and screen.can_ask()
    approve = partial(_approve, run.settings.target) if asks else None
    summary = carry_out(run, credentials, approve=approve, checksum=checksum)
    show(summary, run.settings)
    raise typer.Exit(summary.exit_code)


def carry_out(run: OpenRun, credentials: Credentials, **how: Any) -> Summary:
    """What the engine makes of the run; `how` is the engine's own."""
    leave_no_core()
    watcher = Watcher(run.settings, tells_plan=not how.get("plan_only"))
    try:
        allow = partial(allow_files, processes=run.settings.processes)
        allow(run.settings.concurrency)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            return runner.run(_with_signals(Engine(run, credentials, watcher, allow=allow, **how)))
    finally:
        watcher.close()
        run.close()


async def _approve(target: str, what: PlanMade | CanaryPassed) -> bool:
    """Whether the person at the terminal says yes; only a plain yes is one."""
    if isinstance(what, PlanMade):
        question = f"Send changes of {what.counts.actions['update']:,} images to {target}?"
    else:
        question = f"The first {what.rows:,} rows are as they should be. Go on with the others?"
    screen.prompt(question)
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, answered.set)  # not a thread that waits for a line: nobody could end it
    try:
        await answered.wait()
    finally:
        loop.remove_reader(0)
    return screen.said_yes()


async def _with_signals(engine: Engine) -> Summary:
    """The first signal drains, the second stops at once; both leave a run that can be resumed."""
    seen = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal seen
        seen += 1
        if seen == 1 and not engine.is_stopping:
            engine.stop(_SIGNALS[number], f"signal {number.name}")
        else:
            engine.stop_now()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: screen.note(f"bulkimg: {in_words(engine.steering.status())}"))
    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    return await engine.carry_out()


def show(summary: Summary, settings: Settings) -> None:
    """The end of a run: counts, causes, files, and what to type next."""
    if settings.json_summary:
        screen.out_json(summary_document(summary))
        return
    if settings.log_format == "json":
        screen.note_json({"event": "summary", **summary_document(summary)})
        return
    said = [f"{count:,} {status}" for status in Status if (count := summary.counts[status])]
    screen.note(f"{', '.join(said) or 'no rows'}  ({summary.details['pace']['sending_s']:.1f} s)")
    for cause in summary.causes[:10]:
        rows = f"{cause['rows']:,} {cause['status']}"
        text = f"{cause['code']} {cause['message']}".strip()
        screen.note(screen.one_line(f"  {rows:>14}  {text[:200]}  (first in line {cause['first_line']})"))
        if cause["hint"]:
            screen.note(screen.one_line(f"{'':>18}{cause['hint']}"))
    if summary.reason:
        screen.note(screen.one_line(f"stopped: {summary.reason}"))
    screen.note(f"results: {summary.directory}/results.csv")
    if summary.details["next"]:
        screen.note(f"next:    {summary.details['next']}")
