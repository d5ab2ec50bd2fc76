"""Report one run as an OpenTelemetry span, with a child for each phase and what happened as span events.

Where spans go is set by the variables of OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT and others). They are sent at the
end of the run, by a thread that nothing waits for longer than FLUSH. No value of a row and no text of a server is in
them.
"""

import os
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from bulkimg import __version__
from bulkimg.errors import UsageError, not_installed
from bulkimg.metrics.collector import EXPORTER, check_variables, deliver, make_exporter, shown
from bulkimg.metrics.overheard import culprits, overheard
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
_AT_IMPORT: list[str] = []  # what OpenTelemetry logged when it was imported, which happens once a process

Attributes = Mapping[str, str | int | float]


def check_tracing() -> None:
    """Raise UsageError if the packages of OpenTelemetry are missing, or if its variables cannot be used."""
    try:
        with overheard(with_new_threads=True) as said:
            for name in ("opentelemetry.sdk.trace.export.in_memory_span_exporter", EXPORTER):
                import_module(name)
        _AT_IMPORT.extend(said)
    except ImportError:
        raise not_installed("--otel", "opentelemetry-exporter-otlp-proto-http", "metrics") from None
    except ValueError as error:  # some variables are read when the packages are imported
        raise _unusable(error) from None
    check_variables(os.environ)
    try:
        with overheard(with_new_threads=True):
            _provider()
            make_exporter(FLUSH).shutdown()
    except Exception as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> UsageError:
    return UsageError(
        f"--otel: OpenTelemetry cannot use the value of {culprits(str(error), os.environ)}; correct or unset it"
    )


def _provider() -> Any:
    # Imported only now: most runs have no spans, and the packages may be missing.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    return TracerProvider(resource=Resource.create(_resource()), shutdown_on_exit=False)


class Trace:
    """The span of a run. Times are seconds since the epoch."""

    def __init__(self, name: str, begun: float, attributes: Attributes) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._ended = InMemorySpanExporter()
        with overheard(with_new_threads=True) as said:
            provider = _provider()
        self.remarks = _remarks([*_AT_IMPORT, *said])
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
        late = "" if self._is_over else f"it did not answer within {FLUSH:g} s"
        why = next(iter(self._failures), late)
        return f"the spans were not delivered to {shown(os.environ)}: {why}" if why else ""

    def _send(self) -> None:
        spans = self._ended.get_finished_spans()
        if not spans:  # TRACEPARENT or a sampler says that this trace is not recorded
            return
        if why := deliver(spans, FLUSH):
            self._failures.append(why)


def _remarks(said: list[str]) -> list[str]:
    """Return one sentence for each variable whose value OpenTelemetry passes over."""
    named = dict.fromkeys(culprits(text, os.environ) for text in said)
    return [f"{name} has a value that OpenTelemetry does not know and passes over" for name in named]


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
