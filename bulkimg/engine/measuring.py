"""Have one run's metrics and spans made at their points of the run. Without any, every method does nothing.

The three options belong to a process, not to its run: a directory, a port or a collector may not be there where the run
is resumed. So the ledger does not keep them (`create.kept_options`).
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime

from bulkimg.engine.run import OpenRun
from bulkimg.errors import BulkimgError, Exit
from bulkimg.ledger import stats
from bulkimg.meter import Meter
from bulkimg.metrics import (
    Ended,
    Endpoint,
    Figures,
    Job,
    Trace,
    check_address,
    check_directory,
    check_tracing,
    families,
    write,
)
from bulkimg.metrics.tracing import FLUSH
from bulkimg.model import Event, MetricsFailed, Observer, PlanMade, Started, Summary
from bulkimg.pace import Pace
from bulkimg.settings import Settings


def check_metrics(settings: Settings) -> None:
    """Raise UsageError if the metrics or spans that are asked for are not possible."""
    if settings.metrics_file is not None:
        check_directory(settings.metrics_file)
    if settings.metrics_listen is not None:
        check_address(settings.metrics_listen)
    if settings.otel:
        check_tracing()


@contextmanager
def noting_failure(settings: Settings, *, plan_only: bool = False) -> Iterator[None]:
    """Write the metrics file if the run cannot begin, such as without its manifest, within the block."""
    try:
        yield
    except BulkimgError as error:
        if settings.metrics_file is not None and not plan_only:
            write(settings.metrics_file, Ended(Job(settings.job_name), time.time(), int(error.exit_code)))
        raise


def note_refused(run: OpenRun, summary: Summary, observe: Observer) -> None:
    """Tell of a run whose manifest is refused. There is no engine and no event loop then."""
    if run.ledger.meta("plan_only"):
        return
    told = _Told(run, observe, time.time)
    told.write(summary)
    if trace := told.begin_trace():
        told.end_trace(trace, summary)
        over = threading.Event()
        trace.start_sending(over.set)
        over.wait(FLUSH)
        told.warn("--otel", trace.failure)


class Measuring:
    """The metrics of one run. `pace` and `meter` are read while the run is under way."""

    def __init__(
        self, run: OpenRun, pace: Pace, meter: Meter, observe: Observer, now: Callable[[], float], *, plan_only: bool
    ) -> None:
        self._run = run
        self._settings = Settings() if plan_only else run.settings  # a plan is no run of its job
        self._figures = Figures(pace, meter) if self._settings.metrics_listen else None
        self._told = _Told(run, observe, now)
        self._trace: Trace | None = None
        self._now = now

    @asynccontextmanager
    async def the_run(self) -> AsyncIterator[None]:
        """Serve metrics within the block, and tell of the error that ends it. Raises UsageError for a taken port."""
        if self._settings.otel:
            self._trace = self._told.begin_trace()
        try:
            async with AsyncExitStack() as stack:
                if self._figures and self._settings.metrics_listen:
                    figures = self._figures
                    self._count(figures)
                    endpoint = Endpoint(self._settings.metrics_listen)
                    await stack.enter_async_context(endpoint.serving(lambda: families(figures)))
                yield
        except Exception as error:
            await self._broke(error)
            raise

    @property
    def is_watching(self) -> bool:
        """Return whether events matter."""
        return self._figures is not None or self._settings.otel

    def watch(self, event: Event) -> None:
        """Take note of an event. The engine passes every event if `is_watching`."""
        if self._figures:
            if isinstance(event, PlanMade):  # rows that need no sending have their outcome now
                self._count(self._figures)
            self._figures.watch(event)
        if trace := self._trace:
            trace.watch(event, self._now())
            if isinstance(event, PlanMade):
                trace.end_phase(self._now())
            elif isinstance(event, Started):
                trace.begin("send", self._now())

    def _count(self, figures: Figures) -> None:
        ledger = self._run.ledger
        figures.count(stats.settled_counts(ledger), stats.rows_in_all(ledger))

    def surveying(self) -> None:
        """Take note that the images are read from now on."""
        if self._trace and self._run.ledger.meta("state") == "ready":
            self._trace.begin("survey", self._now())

    def closing(self) -> None:
        """Take note that the files are written from now on."""
        if self._trace:
            self._trace.begin("close", self._now())

    async def end(self, summary: Summary) -> None:
        """Tell how the run ended. Every file is written."""
        if self._settings.metrics_file is not None:
            self._told.write(summary)
        if self._trace:
            self._told.end_trace(self._trace, summary)
            await self._send(self._trace)

    async def _broke(self, error: Exception) -> None:
        code = _exit_code(error)
        if (directory := self._settings.metrics_file) is not None:
            write(directory, Ended(self._told.job, self._now(), code))
        if self._trace:
            self._trace.end({}, code, self._now())
            await self._send(self._trace)

    async def _send(self, trace: Trace) -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell() -> None:
            with suppress(RuntimeError):  # the run has ended meanwhile
                loop.call_soon_threadsafe(over.set)

        trace.start_sending(tell)
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await over.wait()
        self._told.warn("--otel", trace.failure)


class _Told:
    """The file, the span and the warnings of a run."""

    def __init__(self, run: OpenRun, observe: Observer, now: Callable[[], float]) -> None:
        self._run, self._observe, self._now = run, observe, now
        self._is_undo = bool(run.ledger.meta("undo_of"))
        self.job = Job(run.settings.job_name, self._is_undo)

    def warn(self, what: str, why: str) -> None:
        """Warn of a failure, if there was one."""
        if why:
            self._observe(MetricsFailed(what, why))

    def write(self, summary: Summary) -> None:
        """Write the job's file."""
        if (directory := self._run.settings.metrics_file) is None:
            return
        details = summary.details
        at = datetime.fromisoformat(details["ended_at"]).timestamp()
        requests, seconds = details["pace"]["requests"], details["duration_s"]
        ended = Ended(self.job, at, summary.exit_code, seconds, summary.counts, requests)
        self.warn("--metrics-file", write(directory, ended))

    def begin_trace(self) -> Trace | None:
        """Begin the span of the run. Its manifest was checked since the run was created, if that was just now."""
        run, now = self._run, self._now()
        if not run.settings.otel:
            return None
        is_new = run.ledger.meta("started_at") is None and run.ledger.meta("state") in ("ready", "refused")
        begun = min(now, run.ledger.meta("created_at", now)) if is_new else now
        kind = "undo" if self._is_undo else "retry" if run.ledger.meta("retry_of") else "run"
        about = {"bulkimg.run_id": run.directory.run_id, "bulkimg.job": self.job.label}
        about |= {"bulkimg.target": run.settings.target} if run.settings.endpoint else {}
        try:
            trace = Trace(f"bulkimg {kind}", begun, about)
        except Exception as error:  # its text may quote a variable
            self.warn("--otel", f"no spans are sent: OpenTelemetry failed ({type(error).__name__})")
            return None
        for remark in trace.remarks:
            self.warn("--otel", remark)
        if is_new:
            trace.begin("check", begun)
            trace.end_phase(now)
        return trace

    def end_trace(self, trace: Trace, summary: Summary) -> None:
        """End the span of the run."""
        rows = {f"bulkimg.rows.{status}": number for status, number in summary.counts.items()}
        requests = summary.details["pace"]["requests"]
        trace.end({**rows, "bulkimg.requests": requests}, summary.exit_code, self._now())


def _exit_code(error: Exception) -> int:
    """Return the exit code of a command that ends with this error."""
    if isinstance(error, BulkimgError):
        return int(error.exit_code)
    return int(Exit.STORAGE if isinstance(error, OSError) else Exit.SOME_ROWS_NOT)
