"""A running run serves its metrics on loopback, and they agree with its ledger."""

import asyncio
import math
import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import bulkimg
from bulkimg.ledger import Ledger, stats
from bulkimg.meter import BOUNDS, Meter
from bulkimg.metrics import Endpoint, Figures, families
from bulkimg.metrics.exposition import text
from bulkimg.metrics.live import _SHOWN
from bulkimg.pace import Pace
from bulkimg.settings import Settings
from bulkimg.values import parse_listen
from tests.conftest import Cli, Running, Server, sandbox_process
from tests.metrics.reading import Metrics, accepted, by, parsed, scraped, value

LIVE = {
    "bulkimg_rows_total", "bulkimg_requests_total", "bulkimg_request_duration_seconds_bucket",
    "bulkimg_request_duration_seconds_sum", "bulkimg_request_duration_seconds_count", "bulkimg_rows_in_flight",
    "bulkimg_rate_cap_requests_per_second", "bulkimg_gate_closed", "bulkimg_rows_remaining", "bulkimg_build_info",
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with sandbox_process("--images", "60") as found:
        yield found


@pytest.fixture
def at(cli: Cli, server: Server) -> Cli:
    rows = "".join(f"{uuid},new {uuid[:8]}\n" for uuid in server.images())
    cli.write("m.csv", f"uuid,name\n{rows}{'f' * 32},gone\n")
    return cli.at(server)


def until(port: int, what: Callable[[Metrics], bool]) -> Metrics:
    """Return the first metrics that are so."""
    deadline = time.monotonic() + 60
    while True:
        found = scraped(port)
        if found and what(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def started(at: Cli, port: int, *options: str, command: tuple[str, ...] = ("run", "m.csv")) -> Running:
    return at.start(*command, "--metrics-listen", f"127.0.0.1:{port}", *options)


def settled(metrics: Metrics) -> float:
    return sum(metrics["bulkimg_rows_total"].values())


def settled_in(at: Cli) -> dict[str, int]:
    """Return the rows with an outcome by status, as the ledger of the running run has them."""
    with closing(Ledger.open(at.run_dir() / "run.db", read_only=True)) as ledger:
        counts = stats.settled_counts(ledger)
    return {name: number for name, number in counts.items() if name != "unprocessed"}


def test_counters_grow_and_agree_with_the_ledger(at: Cli, server: Server, port: int) -> None:
    process = started(at, port, "--rate", "20/s")
    first = until(port, lambda found: settled(found) >= 5)
    assert set(first) == LIVE
    later = until(port, lambda found: settled(found) >= settled(first) + 5)
    for name in LIVE:
        if name.endswith(("_total", "_count", "_sum", "_bucket")):
            assert all(later[name][labels] >= before for labels, before in first[name].items()), name
    at("ctl", "last", "pause")

    def agrees(found: Metrics) -> bool:  # a row that waited for the rate when the pause began is still sent
        counts = settled_in(at)
        puts = sum(number for labels, number in found["bulkimg_requests_total"].items() if ("kind", "put") in labels)
        return (
            by(found, "bulkimg_rows_total", "status") == counts
            and value(found, "bulkimg_rows_remaining") == 61 - sum(counts.values()) > 0
            and puts == len(server.puts())
            and value(found, "bulkimg_rows_in_flight") == 0
        )

    still = until(port, agrees)
    assert value(still, "bulkimg_rows_total", status="failed") == 1, "the image that is gone, known from the survey"
    assert value(still, "bulkimg_rate_cap_requests_per_second") == 20
    at("ctl", "last", "rate=unlimited", "go")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert scraped(port) is None, "the page ends with the run"
    assert at.summary()["counts"]["updated"] == 60


def test_promtool_accepts_the_page(at: Cli, port: int, promtool: str) -> None:
    process = started(at, port, "--rate", "20/s")
    until(port, lambda found: settled(found) >= 2)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    accepted(promtool, "check", "metrics", given=page)
    process.terminate()
    process.communicate(timeout=60)


def test_a_resumed_run_counts_the_rows_of_its_earlier_process(at: Cli, server: Server, port: int) -> None:
    process = started(at, port, "--rate", "20/s")
    until(port, lambda found: settled(found) >= 10)
    process.kill()
    process.communicate(timeout=60)
    process = started(at, port, "--rate", "10/s", command=("resume", "last"))
    found = until(port, lambda found: True)
    assert settled(found) >= 10
    assert settled(found) + value(found, "bulkimg_rows_remaining") == 61
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_the_gate_is_closed_while_the_server_is_down(cli: Cli, port: int) -> None:
    with sandbox_process("--images", "60") as server:
        cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},x {uuid[:8]}\n" for uuid in server.images()))
        process = started(cli.at(server), port, "--rate", "20/s")
        assert value(until(port, lambda found: settled(found) >= 2), "bulkimg_gate_closed") == 0
    until(port, lambda found: value(found, "bulkimg_gate_closed") == 1)
    process.kill()  # a signal that lets it drain would wait for the server
    process.communicate(timeout=60)
    process.wait(60)


def asked(port: int, method: str, path: str, host: str | None) -> tuple[int, dict[str, str], bytes]:
    """Send one request and return status, headers and content."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        line = f"Host: {host}\r\n" if host is not None else ""
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{line}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), content


ANSWERS = [
    ("GET", "/metrics", "127.0.0.1:9465", 200),
    ("HEAD", "/metrics", "localhost", 200),
    ("GET", "/metrics", "[::1]:9465", 200),
    ("GET", "/metrics?x=1", "localhost:1", 200),
    ("POST", "/metrics", "localhost", 405),
    ("DELETE", "/metrics", "localhost", 405),
    ("GET", "/", "localhost", 404),
    ("GET", "/metrics/", "localhost", 404),
    ("POST", "/x", "localhost", 404),
    ("GET", "/metrics", "evil.example", 421),
    ("GET", "/metrics", "127.0.0.1.evil.example", 421),
    ("GET", "/metrics", "localhost.evil.example:9465", 421),
    ("GET", "/metrics", "10.0.0.1:9465", 421),
    ("GET", "/metrics", "", 421),
    ("GET", "/metrics", None, 400),
    ("GET", "/metrics", "[", 421),
]


async def test_only_get_and_head_of_one_path_with_a_local_name(port: int, caplog: pytest.LogCaptureFixture) -> None:
    figures = Figures(Pace(50.0, 16), Meter())
    async with Endpoint(f"127.0.0.1:{port}").serving(lambda: families(figures)):
        for method, path, host, status in ANSWERS:
            found, headers, content = await asyncio.to_thread(asked, port, method, path, host)
            assert found == status, (method, path, host)
            assert headers["Server"] == "bulkimg"
            assert (b"bulkimg_rows_total" in content) == (status == 200 and method == "GET"), (method, path, host)
            if status == 200:
                assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            if status == 405:
                assert headers["Allow"] == "GET, HEAD"
    assert caplog.records == []


async def test_a_client_that_never_finishes_does_not_hold_up_the_end(port: int) -> None:
    begun = time.monotonic()
    with socket.socket() as connection:
        async with Endpoint(f"127.0.0.1:{port}").serving(lambda: ()):
            connection.connect(("127.0.0.1", port))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHo")
    assert time.monotonic() - begun < 50, "aiohttp's own patience is a minute"


def test_a_port_that_is_taken_is_said_before_anything_is_sent(at: Cli, server: Server, port: int) -> None:
    before = len(server.requests())
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        said = at("run", "m.csv", "--metrics-listen", f"127.0.0.1:{port}", code=2).err
    assert said == (
        f"bulkimg: --metrics-listen 127.0.0.1:{port}: cannot listen there: Address already in use; choose another port\n"
    )
    assert len(server.requests()) == before
    assert not (at.place / "runs").exists()


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:9465", "192.168.0.1:9465", "[::]:9465", "example.com:9465", ":9465", "9465", "127.0.0.1", "127.0.0.1:0",
        "127.0.0.1:65536", "::1:9465", "127.0.0.1:x", "[127.0.0.1:9465", "",
    ],
)  # fmt: skip
def test_an_address_that_others_reach_or_that_is_none_is_refused(cli: Cli, address: str) -> None:
    with pytest.raises(ValueError, match=r"^is not an address .*; write "):
        parse_listen(address)


def test_a_refused_address_names_its_place(at: Cli, server: Server) -> None:
    said = at("run", "m.csv", "--metrics-listen", "0.0.0.0:9465", code=2).err
    assert re.fullmatch(
        r"bulkimg: --metrics-listen '0\.0\.0\.0:9465' is not an address of this machine alone.*\n", said
    )
    at.write("job.toml", '[job]\nmanifest = "m.csv"\n[run]\nmetrics_listen = "0.0.0.0:1"\n')
    assert at("run", "job.toml", code=2).err.startswith("bulkimg: job.toml:4: [run] metrics_listen =")
    assert server.puts() == []


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("127.0.0.1:9465", "127.0.0.1:9465"),
        (" localhost:80 ", "127.0.0.1:80"),
        ("[::1]:1", "[::1]:1"),
        ("127.9.9.9:5", "127.9.9.9:5"),
    ],
)
def test_addresses_of_this_machine(given: str, means: str) -> None:
    assert parse_listen(given) == means
    assert Settings.model_validate({"metrics_listen": given}).metrics_listen == means


async def test_the_library_serves_and_refuses_a_taken_port(server: Server, port: int, tmp_path: Path) -> None:
    changes = [{"uuid": uuid, "name": f"lib {uuid[:8]}"} for uuid in sorted(server.images())[:10]]
    options: bulkimg.Options = {
        "endpoint": server.url, "runs_dir": tmp_path, "rate": "20/s", "metrics_listen": f"127.0.0.1:{port}",
    }  # fmt: skip
    seen: list[Metrics | None] = []
    async with bulkimg.Run(changes, credentials=bulkimg.Session(server.session), **options) as run:
        async for event in run:
            if isinstance(event, bulkimg.Settled):
                seen.append(await asyncio.to_thread(scraped, port))
    assert run.result.ok
    last = max(settled(found) for found in seen if found)
    assert 0 < last <= 10
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(bulkimg.UsageError, match="Address already in use"):
            await bulkimg.arun(changes, credentials=bulkimg.Session(server.session), **options)


def test_the_histogram_is_cumulative_and_its_bounds_are_those_of_the_meter() -> None:
    assert set(_SHOWN) <= set(BOUNDS)
    meter, seconds = Meter(), [0.0, 0.001, 0.0011, 0.05, 0.0500001, 9.9, 50.0, 79.0, 1000.0]
    for taken in seconds:
        meter.add("put", 0, taken, 0.0)
    meter.add("put", 1, 3.0, 0.0)
    meter.add("poll", 0, 3.0, 0.0)
    found = parsed(text(families(Figures(Pace(math.inf, 16), meter))))
    buckets = by(found, "bulkimg_request_duration_seconds_bucket", "le")
    assert {bound: sum(taken <= float(bound) for taken in seconds) for bound in buckets} == buckets
    assert list(buckets) == sorted(buckets, key=float)
    assert value(found, "bulkimg_request_duration_seconds_count") == len(seconds) == buckets["+Inf"]
    assert value(found, "bulkimg_request_duration_seconds_sum") == pytest.approx(sum(seconds))
    assert value(found, "bulkimg_requests_total", kind="put", result="failed") == 1
    assert len(found["bulkimg_requests_total"]) == 15, "zeros too"
    assert value(found, "bulkimg_rate_cap_requests_per_second") == math.inf
