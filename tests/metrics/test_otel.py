"""A run is one span with its phases as children, sent to a collector over HTTP, and nothing of its rows is in it."""

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bulkimg.errors import UsageError
from bulkimg.metrics.collector import check_variables
from bulkimg.metrics.overheard import overheard
from tests.conftest import Cli, Server

if importlib.util.find_spec("opentelemetry") is None:
    pytest.skip("the extra metrics is absent", allow_module_level=True)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NOBODY = "f" * 32


@dataclass
class Collector:
    """What a collector received. `status` is its answer; with `wait` it does not answer before that is set."""

    url: str = ""
    status: int = 200
    wait: threading.Event | None = None
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def spans(self) -> dict[str, Any]:
        """Return the spans by name. Each may be there once."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        found: dict[str, Any] = {}
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resource = values(resource.resource.attributes)
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        assert span.name not in found
                        found[span.name] = span
        return found


def values(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.headers.append(dict(self.headers))
            found.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            if found.wait:
                found.wait.wait(60)
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        if found.wait:
            found.wait.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def at(cli: Cli, server: Server, collector: Collector) -> Cli:
    at = cli.at(server)
    at.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    return at


def rows(server: Server, count: int, *more: str) -> str:
    names = [f"{uuid},secret name {time.time_ns()}\n" for uuid in [*sorted(server.images())[:count], *more]]
    return "uuid,name\n" + "".join(names)


def test_a_run_is_one_span_with_its_phases(at: Cli, server: Server, collector: Collector) -> None:
    at.write("m.csv", rows(server, 3, NOBODY))
    at.write("job.toml", '[job]\nname = "nightly"\nmanifest = "m.csv"\n')
    at("run", "job.toml", "--otel", code=1, TRACEPARENT=f"00-{TRACE}-{PARENT}-01", TRACESTATE="a=b")
    spans = collector.spans()
    assert set(spans) == {"bulkimg run", "check", "survey", "send", "close"}
    run = spans["bulkimg run"]
    assert (run.trace_id.hex(), run.parent_span_id.hex(), run.trace_state) == (TRACE, PARENT, "a=b")
    phases = [spans[name] for name in ("check", "survey", "send", "close")]
    assert {phase.parent_span_id for phase in phases} == {run.span_id}
    times = [time for phase in phases for time in (phase.start_time_unix_nano, phase.end_time_unix_nano)]
    assert times == sorted(times)
    assert run.start_time_unix_nano <= times[0]
    assert times[-1] <= run.end_time_unix_nano
    found = values(run.attributes)
    assert found["bulkimg.job"] == "nightly"
    assert found["bulkimg.run_id"] == at.runs()[-1]
    assert found["bulkimg.target"] == f"{server.url}/zstack"
    assert found["bulkimg.exit_code"] == 1
    assert (found["bulkimg.rows.updated"], found["bulkimg.rows.failed"]) == (3, 1)
    assert found["bulkimg.requests"] == at.summary()["pace"]["requests"]
    assert (run.status.code, run.status.message) == (2, "exit code 1")
    assert [event.name for event in run.events] == ["planmade", "started"]
    assert collector.resource["service.name"] == "bulkimg"


def test_nothing_of_a_row_and_no_secret_is_sent(at: Cli, server: Server, collector: Collector) -> None:
    at.write("m.csv", rows(server, 3, NOBODY))
    at("run", "m.csv", "--otel", "--note", "a secret note", code=1, BULKIMG_OTEL="true")
    (body,) = collector.bodies
    for text in ("secret", server.session, NOBODY, *sorted(server.images())[:3]):
        assert text.encode() not in body


def test_what_happens_to_the_run_is_an_event_of_its_span(at: Cli, server: Server, collector: Collector) -> None:
    at.write("m.csv", rows(server, 20))
    before = len(server.puts())
    process = at.start("run", "m.csv", "--otel", "--rate", "10/s")
    server.wait_for_put(before)
    at("ctl", "last", "pause", "rate=500/s", "go")
    process.communicate(timeout=60)
    events = {event.name: values(event.attributes) for event in collector.spans()["bulkimg run"].events}
    assert events["adjusted"] == {"what": "rate", "value": "500/s"}
    assert events["started"] == {"pending": 20, "rows": 20}
    assert "paused" in events
    assert events["planmade"]["bulkimg.plan.update"] == 20


def test_a_refused_manifest_and_a_dead_server_are_spans_too(at: Cli, server: Server, collector: Collector) -> None:
    at.write("bad.csv", "uuid,name\nno,x\n")
    at("run", "bad.csv", "--otel", code=3)
    spans = collector.spans()
    assert set(spans) == {"bulkimg run", "check"}
    assert spans["bulkimg run"].status.message == "exit code 3"
    collector.bodies.clear()
    at.write("m.csv", rows(server, 1))
    at("run", "m.csv", "--otel", code=5, BULKIMG_ENDPOINT="http://127.0.0.1:9", BULKIMG_MAX_OUTAGE="100ms")
    assert collector.spans()["bulkimg run"].status.message == "exit code 5"


def test_retry_undo_and_resume_have_spans_and_a_plan_has_none(at: Cli, server: Server, collector: Collector) -> None:
    at.write("m.csv", rows(server, 2, NOBODY))
    at("plan", "m.csv", code=None, BULKIMG_OTEL="true")
    assert collector.bodies == []
    at("apply", "last", "--otel", code=1)
    assert set(collector.spans()) == {"bulkimg run", "send", "close"}
    first = at.runs()[0]
    for command, name in (("retry", "bulkimg retry"), ("undo", "bulkimg undo"), ("resume", "bulkimg run")):
        collector.bodies.clear()
        at(command, first, "--otel", code=None)
        assert name in collector.spans()


def test_nothing_is_sent_unless_it_is_asked_for(at: Cli, server: Server, collector: Collector) -> None:
    at.write("m.csv", rows(server, 1))
    at("run", "m.csv", OTEL_TRACES_EXPORTER="otlp", TRACEPARENT=f"00-{TRACE}-{PARENT}-01")
    assert collector.bodies == []


@pytest.mark.parametrize(
    "off",
    [{"TRACEPARENT": f"00-{TRACE}-{PARENT}-00"}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}],
)
def test_a_trace_that_is_not_recorded_is_not_sent(
    at: Cli, server: Server, collector: Collector, off: dict[str, Any]
) -> None:
    at.write("m.csv", rows(server, 1))
    done = at("run", "m.csv", "--otel", **off)
    assert collector.bodies == []
    assert "--otel" not in done.err


@pytest.mark.parametrize("trouble", ["refused", "an error", "silent", "nobody"])
def test_a_collector_in_trouble_is_one_warning(at: Cli, server: Server, collector: Collector, trouble: str) -> None:
    at.write("m.csv", rows(server, 1))
    collector.status = {"refused": 400, "an error": 503}.get(trouble, 200)
    collector.wait = threading.Event() if trouble == "silent" else None
    if trouble == "nobody":
        at.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    begun = time.monotonic()
    said = at("run", "m.csv", "--otel").err
    assert time.monotonic() - begun < 30, "it does not wait for the collector"
    (line,) = [line for line in said.splitlines() if "otel" in line.lower()]
    where = at.environment["OTEL_EXPORTER_OTLP_ENDPOINT"]
    why = {
        "refused": "it answered 400",
        "an error": "it answered 503",
        "silent": "it did not answer",
        "nobody": "no connection could be made",
    }[trouble]
    assert line.startswith(f"--otel: the spans were not delivered to {where}: {why}")
    assert line.endswith("; the run and its exit code are not affected")
    assert len(said.splitlines()) == said.count("\n")
    assert "Traceback" not in said
    assert "pool" not in said.lower()


TROUBLES = {
    "http://name:s3cr3t@127.0.0.1:9/s3cr3t?key=s3cr3t": "http://127.0.0.1:9: no connection could be made",
    "https://127.0.0.1:9": "https://127.0.0.1:9: no connection could be made",
    "http://s3cr3t@nothing.invalid:4318": "http://nothing.invalid:4318: its host name is not known",
    "http://[::1]:9": "http://[::1]:9: no connection could be made",
}


@pytest.mark.parametrize("address", TROUBLES)
def test_a_failure_names_the_collector_without_its_credentials(at: Cli, server: Server, address: str) -> None:
    at.write("m.csv", rows(server, 1))
    said = at("run", "m.csv", "--otel", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=address).err
    assert f"--otel: the spans were not delivered to {TROUBLES[address]}; the run and" in said
    assert "s3cr3t" not in said


def test_a_redirect_is_not_followed_and_is_no_delivery(at: Cli, server: Server, collector: Collector) -> None:
    collector.status = 302
    at.write("m.csv", rows(server, 1))
    said = at("run", "m.csv", "--otel").err
    assert "it answered 302, a redirect, which is not followed" in said
    assert len(collector.bodies) == 1


WRONG = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["nonsense", "s3cr3t", "http://", "ftp://s3cr3t/", "http://h:99999/", "http://[::1/", "http://a b/"],
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ["//s3cr3t"],
    "OTEL_EXPORTER_OTLP_HEADERS": ["Authorization Bearer s3cr3t", "a=b,s3cr3t", "a=x%0As3cr3t", "a=s3cr3t\nx", "a=%E2%82%ACs3cr3t", '"s3cr3t"'],
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": ["=s3cr3t"],
    "OTEL_EXPORTER_OTLP_COMPRESSION": ["s3cr3t"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_variable_of_the_exporter_that_is_wrong_is_named_and_not_quoted(name: str, value: str) -> None:
    with pytest.raises(UsageError) as error:
        check_variables({name: value})
    assert name in str(error.value)
    assert "s3cr3t" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization Bearer s3cr3t"),
        ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER", "s3cr3t"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-3"),  # read when the packages are imported
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "s3cr3t"),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused_before_the_start(
    at: Cli, server: Server, name: str, value: str
) -> None:
    at.write("m.csv", rows(server, 1))
    before = len(server.requests())
    at.environment[name] = value
    said = at("run", "m.csv", "--otel", code=2).err
    assert said.startswith("bulkimg: --otel: ")
    assert name in said
    assert said.count("\n") == 1
    assert "s3cr3t" not in said
    assert len(server.requests()) == before
    assert not (at.place / "runs").exists()


def test_the_files_of_tls_are_looked_for_before_the_start(at: Cli, server: Server) -> None:
    at.write("m.csv", rows(server, 1))
    tls = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:9", "OTEL_EXPORTER_OTLP_CERTIFICATE": "missing.pem"}
    said = at("run", "m.csv", "--otel", code=2, **tls).err
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE: missing.pem cannot be read; correct or unset it" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_RESOURCE_ATTRIBUTES", "s3cr3t"),
        ("OTEL_PYTHON_CONTEXT", "s3cr3t"),
    ],
)
def test_a_variable_that_is_passed_over_is_one_sentence(
    at: Cli, server: Server, collector: Collector, name: str, value: str
) -> None:
    at.write("m.csv", rows(server, 1))
    at.environment[name] = value
    said = at("run", "m.csv", "--otel").err
    (line,) = [line for line in said.splitlines() if "otel" in line.lower()]
    assert line.startswith(f"--otel: {name} has a value that OpenTelemetry does not know and passes over; the run")
    assert "s3cr3t" not in said
    assert "Traceback" not in said
    assert len(collector.bodies) == 1


@pytest.mark.parametrize("headers", ["a=b", "authorization=Bearer%20x, b=c=d", "a=Bearer x", "a=b,", " "])
def test_headers_that_the_exporter_takes_are_no_mistake(headers: str) -> None:
    check_variables({"OTEL_EXPORTER_OTLP_HEADERS": headers})


def test_what_another_thread_logs_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("opentelemetry.new.one")
    with overheard() as said:
        logger.warning("ours")
        thread = threading.Thread(target=logger.warning, args=["theirs"])
        thread.start()
        thread.join()
        with overheard():
            pass
        logger.info("too quiet")
    with overheard(with_new_threads=True) as of_new_ones:
        thread = threading.Thread(target=logger.warning, args=["of a new thread"])
        thread.start()
        thread.join()
    assert [text.strip() for text in of_new_ones] == ["of a new thread"]
    logger.warning("afterwards")
    assert said[0].strip() == "ours"
    assert [record.getMessage() for record in caplog.records] == ["theirs", "afterwards"]


def test_without_the_packages_it_says_how_to_install_them(cli: Cli, server: Server) -> None:
    """A package of that name that cannot be imported stands in for one that is missing."""
    (cli.place / "hidden" / "opentelemetry").mkdir(parents=True)
    cli.write("hidden/opentelemetry/__init__.py", "raise ImportError\n")
    cli.write("m.csv", rows(server, 1))
    before = len(server.requests())
    path = os.pathsep.join([str(cli.place / "hidden"), cli.env()["PYTHONPATH"]])
    said = cli.at(server)("run", "m.csv", "--otel", code=2, PYTHONPATH=path).err
    assert said.startswith(
        "bulkimg: --otel needs opentelemetry-exporter-otlp-proto-http, which is not installed; install bulkimg with its extra"
    )
    assert "'.[metrics]'" in said
    assert said.count("\n") == 1
    assert len(server.requests()) == before
