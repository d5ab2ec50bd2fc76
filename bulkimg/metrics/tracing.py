"""Report one run as an OpenTelemetry span, with a child for each phase and what happened as span events.

Where spans go is set by the variables of OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT and others). They are sent at the
end of the run, by a thread that nothing waits for longer than FLUSH. No value of a row and no text of a server is in
them.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from bulkimg import __version__
from bulkimg.errors import UsageError
from bulkimg.model import (
    Adjusted,
    CanaryPassed,
    Event,
    Held,
    NoControl,
    Paused,
    PlanMade,
    Reopened,
    Started,
    Stopping,
    Unreadable,
)

FLUSH = 2.0  # most seconds for sending the spans
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

Attributes = Mapping[str, str | int | float]


def check_installed() -> None:
    """Raise UsageError if the packages of OpenTelemetry are missing."""
    try:
        for name in ("opentelemetry.sdk.trace.export.in_memory_span_exporter", _EXPORTER):
            import_module(name)
    except ImportError:
        raise UsageError(
            "--otel: the packages of OpenTelemetry are not installed; install bulkimg with its extra metrics, "
            "such as pipx install '.[metrics]', or leave --otel out"
        ) from None


class Trace:
    """The span of a run. Times are seconds since the epoch."""

    def __init__(self, name: str, begun: float, attributes: Attributes) -> None:
        # Imported only now: most runs have no spans, and the packages may be missing.
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._ended = InMemorySpanExporter()
        provider = TracerProvider(resource=Resource.create(_resource()), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._ended))
        self._tracer = provider.get_tracer("bulkimg", __version__)
        carrier = {name: os.environ.get(name.upper(), "") for name in ("traceparent", "tracestate")}
        parent = TraceContextTextMapPropagator().extract({name: text for name, text in carrier.items() if text})
        self._run = self._tracer.start_span(name, parent, attributes=attributes, start_time=_ns(begun))
        self._inside = set_span_in_context(self._run)
        self._phase: Any = None
        self._failures: list[str] = []
        self._is_over = False

    def begin(self, phase: str, at: float) -> None:
        """Begin a phase; the one before it ends."""
        self.end_phase(at)
        self._phase = self._tracer.start_span(phase, self._inside, start_time=_ns(at))

    def end_phase(self, at: float) -> None:
        if self._phase is not None:
            self._phase.end(_ns(at))
        self._phase = None

    def watch(self, event: Event, at: float) -> None:
        """Add what happened to the span of the run."""
        if attributes := _happening(event):
            self._run.add_event(type(event).__name__.lower(), attributes[0], _ns(at))

    def end(self, attributes: Attributes, exit_code: int, at: float) -> None:
        """End the span of the run."""
        from opentelemetry.trace import Status, StatusCode

        self.end_phase(at)
        self._run.set_attributes({**attributes, "bulkimg.exit_code": exit_code})
        if exit_code:
            self._run.set_status(Status(StatusCode.ERROR, f"exit code {exit_code}"))
        self._run.end(_ns(at))

    def start_sending(self, on_over: Callable[[], object]) -> None:
        """Send the spans in a thread that does not keep the process alive. It calls back when it is over."""

        def work() -> None:
            try:
                self._send()
            finally:
                self._is_over = True
                on_over()

        threading.Thread(target=work, name="bulkimg-otel", daemon=True).start()

    @property
    def failure(self) -> str:
        """Return why the spans were not delivered until now, or ""."""
        late = "" if self._is_over else f"the spans were not taken within {FLUSH:g} s"
        return next(iter(self._failures), late)

    def _send(self) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = self._ended.get_finished_spans()
        if not spans:  # TRACEPARENT or a sampler says that this trace is not recorded
            return
        taken = _Taken()
        try:
            with taken:
                exporter = import_module(_EXPORTER).OTLPSpanExporter(timeout=FLUSH)
                is_sent = exporter.export(spans) is SpanExportResult.SUCCESS
                exporter.shutdown()
            if not is_sent:
                self._failures.append(f"the spans were not delivered: {taken.said or 'the collector refused them'}")
        except Exception as error:  # whatever fails here must not end the run in another way
            self._failures.append(f"the spans were not delivered: {type(error).__name__}: {error}")


class _Taken(logging.Filter):
    """Take what OpenTelemetry logs in this thread, within the block. One warning is enough."""

    said = ""  # the first line

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        known = list(logging.root.manager.loggerDict)
        self._loggers = [logging.getLogger(name) for name in known if name.startswith(("opentelemetry", "urllib3"))]
        for logger in self._loggers:
            logger.addFilter(self)

    def __exit__(self, *ended: object) -> None:
        for logger in self._loggers:
            logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        if threading.get_ident() != self._thread:
            return True
        self.said = self.said or record.getMessage().partition(" encountered while exporting ")[0]
        return False


def _resource() -> dict[str, str]:
    found = {"service.version": __version__}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        found["service.name"] = "bulkimg"
    return found


def _happening(event: Event) -> tuple[Attributes] | None:
    """Return the attributes of an event that is shown. Texts of the server are left out: they may quote a row."""
    match event:
        case PlanMade(counts):
            return ({f"bulkimg.plan.{action}": number for action, number in counts.actions.items()},)
        case CanaryPassed(rows):
            return ({"rows": rows},)
        case Started():
            return ({"pending": event.pending, "rows": event.rows},)
        case Held(seconds) | Reopened(seconds):
            return ({"seconds": seconds},)
        case Paused(why):
            return ({"why": why},)
        case Adjusted(what, value):
            return ({"what": what, "value": value},)
        case Unreadable(kind):
            return ({"kind": kind},)
        case NoControl() | Stopping():
            return ({},)
    return None


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
