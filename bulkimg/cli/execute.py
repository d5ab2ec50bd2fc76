"""Execute an open run for a command: event loop, signals, progress, the report at the end and the exit code."""

import asyncio
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn, Protocol, TypeVar

import typer

from bulkimg.cli import screen
from bulkimg.cli.progress import Watcher
from bulkimg.cluster import ports_of
from bulkimg.credentials import Credentials
from bulkimg.engine.close import plan_page, summary_document
from bulkimg.engine.execute import Engine
from bulkimg.engine.run import OpenRun
from bulkimg.engine.steering import in_words
from bulkimg.errors import Exit, RunRefused
from bulkimg.ledger import RunDirectory, plans, stats
from bulkimg.model import CanaryPassed, PlanMade, Status, Summary, iso_utc
from bulkimg.planner.diff import show as value_text
from bulkimg.process import allow_files, event_loop, leave_no_core
from bulkimg.report import plan_line
from bulkimg.settings import Settings
from bulkimg.words import count

_SIGNALS = {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED, signal.SIGHUP: Exit.TERMINATED}
_T = TypeVar("_T")
_WHY = {signal.SIGINT: "interrupted with Ctrl-C"}


def execute_and_exit(
    run: OpenRun, credentials: Credentials, *, ask: bool = True, checksum: str | None = None
) -> NoReturn:
    """Execute the run, show its result, and exit with its exit code.

    `ask`: ask first if standard input is a terminal.
    """
    asks = ask and not run.settings.yes and screen.can_ask()
    approve = partial(_approve, run) if asks else None
    if what := undoing(run):
        screen.note(screen.one_line(what))
    summary = execute(run, credentials, approve=approve, checksum=checksum)
    show(summary, run.settings)
    raise typer.Exit(summary.exit_code)


def execute(run: OpenRun, credentials: Credentials, **how: Any) -> Summary:
    """Execute the run and return the summary. `how` is passed to the engine."""
    leave_no_core()
    run.command, run.tell = typed(run), screen.note
    watcher = Watcher(run.settings, tells_plan=not how.get("plan_only"))
    try:
        allow_files(run.settings.concurrency)
        prints = screen.prints_of_plugins(run.settings.plugins)
        with prints, asyncio.Runner(loop_factory=event_loop()) as runner:
            engine = Engine(run, credentials, watcher, ports_of(run.settings, credentials), allow=allow_files, **how)
            watcher.follow(lambda: engine.live)

            def status() -> None:
                screen.note(f"bulkimg: {in_words(engine.steering.status())}")

            return runner.run(with_signals(engine, status, engine.execute))
    except RunRefused:
        raise
    except Exception:
        if watcher.has_begun:
            screen.note(f"next:    bulkimg resume {run.directory.words}")
        raise
    finally:
        watcher.close()
        run.close()


def typed(run: OpenRun) -> str:
    """Return the command line with the run's id instead of `last`, so that a kept line always means the same run."""
    meta = run.ledger.meta
    meant = {"undo": meta("undo_of"), "retry": meta("retry_of")}.get(sys.argv[1] if len(sys.argv) > 1 else "")
    words = list(sys.argv[1:])
    for at, word in enumerate(words):
        if word == "last" and not (at and words[at - 1].startswith("-")):
            words[at] = meant or run.directory.run_id
    return shlex.join(["bulkimg", *words])


def nothing_to_do(why: Exception | str, exit_code: Exit = Exit.OK) -> None:
    """Say that an earlier run left nothing to retry or undo."""
    if screen.wants_document():
        screen.out_json({"schema": 1, "exit_code": int(exit_code), "message": str(why)})
    else:
        screen.note(screen.one_line(str(why)))


async def _approve(run: OpenRun, what: PlanMade | CanaryPassed) -> bool:
    """Ask the person at the terminal; only a plain yes approves. `d` shows the differences and asks again."""
    if isinstance(what, PlanMade):
        question, shown = _question(run, what), plan_line(what.counts)
    else:
        others = stats.rows_to_do(run.ledger)
        question = f"Send the other {others:,} to {run.settings.target}?"
        shown = f"canary: {what.rows:,} of {count(what.rows, 'row')} updated"
    screen.prompt(question, shown)
    while (answer := await line_typed()) in {"d", "diff"}:
        screen.prompt(question, "\n".join(difference(run)), is_new=True)
    return answer in {"y", "yes"}


async def line_typed() -> str:
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, answered.set)  # not in a thread that waits for a line: nothing could end it
    try:
        await answered.wait()
    finally:
        loop.remove_reader(0)
    return screen.typed()


def difference(run: OpenRun, rows: int = 10) -> Iterator[str]:
    """Print the first rows of a plan, field by field, and where all of them are."""
    for row in plans.rows(run.ledger, updates_only=True, limit=rows):
        yield f"line {row.line}: image {row.uuid}"
        for name, value in row.send.items():
            yield f"    {name}: {value_text(row.before.get(name))} → {value_text(value)}"
    yield f"all of them: {plan_page(run)}"


def _question(run: OpenRun, plan: PlanMade) -> str:
    images, target = count(plan.counts.actions["update"], "image"), target_with_account(run)
    if what := undoing(run):
        verb = "Redo the changes" if run.ledger.meta("undoes", {}).get("undo_of") else "Put the old values back"
        return f"{what[0].upper()}{what[1:]}. {verb} on {images} of {target}?"
    return f"Change {images} on {target}?"


def target_with_account(run: OpenRun) -> str:
    """Return the server, and the account as far as the credentials show it."""
    identity = run.ledger.meta("identity", "")
    return f"{run.settings.target} as {identity}" if identity else run.settings.target


def undoing(run: OpenRun) -> str:
    """Return the run that an undo undoes, with its manifest, time and updated rows in one phrase; "" for other runs."""
    undone, known = run.ledger.meta("undo_of"), run.ledger.meta("undoes", {})
    if not undone or not known:
        return ""
    details = [str(known["manifest"]), iso_utc(known["started_at"])[:16].replace("T", " ") + " UTC"]
    details += [f"{known['updated']:,} updated", *([known["note"]] if known["note"] else [])]
    itself = f", which is itself the undo of {known['undo_of']}: this redoes its changes" if known["undo_of"] else ""
    return f"undo of run {undone} ({', '.join(details)}){itself}"


class Stoppable(Protocol):
    """What signals stop: an engine, or several of them."""

    @property
    def is_stopping(self) -> bool: ...
    def stop(self, exit_code: Exit, why: str) -> None: ...
    def stop_now(self) -> None: ...


async def with_signals(what: Stoppable, status: Callable[[], None], work: Callable[[], Awaitable[_T]]) -> _T:
    """Do the work. The first signal stops it, and the second at once; both leave runs that can be resumed.

    SIGUSR1 prints the status.
    """
    seen = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal seen
        seen += 1
        if seen == 1 and not what.is_stopping:
            what.stop(_SIGNALS[number], _WHY.get(number, number.name))
        else:
            what.stop_now()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, status)
    for number in _SIGNALS:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup: keep ignoring the signal
        loop.add_signal_handler(number, on_signal, number)
    return await work()


def show(summary: Summary, settings: Settings) -> None:
    """Print the end of a run: why it stopped, counts, causes, where the results are, and what to type next."""
    if settings.json_summary:
        screen.out_json(summary_document(summary))
        return
    if settings.log_format == "json":
        screen.note_json({"event": "summary", **summary_document(summary)})
        return
    if summary.reason:
        screen.note(screen.one_line(f"stopped: {summary.reason}"))
    screen.note(counts_line(summary))
    for cause in summary.causes[:10]:
        if cause["status"] != Status.UNPROCESSED or not summary.reason:  # the reason says why
            _show_cause(cause)
    screen.note(f"results: {summary.directory}/results.csv")
    if summary.details["next"]:
        screen.note(f"next:    {summary.details['next']}")
    elif summary.exit_code == Exit.OK and summary.counts[Status.UPDATED]:
        words = RunDirectory(settings.runs_dir / summary.run_id).words
        undo = f" · take back: bulkimg undo {words}" if summary.details["plan"]["surveyed"] else ""
        screen.note(f"check:   bulkimg verify {words}{undo}")


def counts_line(summary: Summary) -> str:
    """Return `56 updated, 4 failed (1.2 s)`."""
    said = [f"{number:,} {status}" for status in Status if (number := summary.counts[status])]
    seconds = summary.details["pace"]["sending_s"]
    return f"{', '.join(said) or 'no rows'}{f' ({seconds:.1f} s)' if seconds else ''}"


def _show_cause(cause: Mapping[str, Any]) -> None:
    screen.note(screen.one_line(f"  {cause_line(cause)}"))
    if cause["hint"]:
        screen.note(screen.one_line(f"      {cause['hint']}"))


def cause_line(cause: Mapping[str, Any]) -> str:
    """Return `4 failed (first in line 6): NO_SUCH_IMAGE the server has no image with this uuid`."""
    code, message = str(cause["code"]), str(cause["message"])[:200]
    number = code.removeprefix("HTTP_")
    said = message if number != code and message.startswith(number) else f"{code} {message}".strip()
    first = "in line" if cause["rows"] == 1 else "first in line"
    return f"{cause['rows']:,} {cause['status']} ({first} {cause['first_line']}): {said}"
