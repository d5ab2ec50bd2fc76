"""T61: no answer of a server and no environment sends a request to another origin or another path."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

import bulkimg
from tests.battery.api import Call, Reply, accepted
from tests.conftest import Cli, corpus
from tests.ended import ended
from tests.security.figures import measured
from tests.security.servers import (
    Script,
    address_of,
    port_of,
    scripted,
    sink,
    strangers,
)
from tests.zstack.raw import Raw, http, raw_server

REDIRECTS = (301, 302, 303, 304, 305, 306, 307, 308)
CHALLENGES = (401, 407, 421, 426)


def tricks(there: Raw) -> tuple[str, ...]:
    """Return every header that sends a browser, or a careless client, to another address."""
    url, host = f"{there.url}/zstack/v1/accounts/login", address_of(there)
    return (
        f"Location: {url}",
        f"Content-Location: {url}",
        f"Refresh: 0; url={url}",
        f"Link: <{url}>; rel=preload, <{url}>; rel=next",
        f'Alt-Svc: http/1.1="{host}"; persist=1',
        "Set-Cookie: session=stolen; Domain=127.0.0.1; Path=/",
        'WWW-Authenticate: Basic realm="log in", Negotiate',
        'Proxy-Authenticate: Basic realm="log in"',
        f"SourceMap: {url}",
        "Upgrade: h2c",
    )


async def execute(url: str, place: Path, rows: int, **options: Any) -> bulkimg.Summary:
    """Execute a run with an account, so that every kind of call is made."""
    changes = [{"uuid": f"{n:032x}", "name": f"new-{n}"} for n in range(rows)]
    given = {
        "rate": "unlimited",
        "retries": "0",
        "timeout": "1s",
        "job_timeout": "300ms",
        **options,
    }
    account = bulkimg.Account("admin", "hunter22")
    one = bulkimg.Run(
        changes, credentials=account, endpoint=url, runs_dir=place, max_errors="none", survey=False, **given
    )
    return await ended(one)


def on_the_way_to(kind: str, bad: bytes) -> Script:
    """Return the bad answer for one kind of call, and the answers that make bulkimg send that call."""

    def script(call: Call) -> Reply | bytes | None:
        if call.kind == kind:
            return bad
        if call.kind == "put" and kind == "poll":
            return accepted(call.job)
        if call.kind == "put" and kind == "read":
            return http(b"<html>a portal</html>", "200 OK", "Content-Type: text/html")
        return None

    return script


@pytest.mark.parametrize("kind", ["put", "poll", "read", "login", "logout"])
async def test_redirects_and_their_kin_lead_nowhere(tmp_path: Path, kind: str) -> None:
    """Each status with all headers, on each kind of call: the sink gets no connection, the server no other path."""
    async with sink() as there:
        asked = 0
        for status in (*REDIRECTS, *CHALLENGES, 200):
            bad = http(b"<html>moved</html>", f"{status} Elsewhere", *tricks(there))
            async with raw_server(scripted(on_the_way_to(kind, bad))) as raw:
                await execute(raw.url, tmp_path, 1)
            assert strangers(raw) == []
            assert kind in {Call.of(*request).kind for request in raw.requests}
            assert [headers["cookie"] for _, _, headers, _ in raw.requests if "cookie" in headers] == []
            asked += len(raw.requests)
        assert there.connections == 0
    measured(f"T61 {kind}", f"{asked} requests while the server points elsewhere, 0 connections to the second origin")


def pointed(location: Any, there: Raw) -> Any:
    """Return the location with the sink's address in place of each host."""
    if not isinstance(location, str):
        return location
    text = location.replace("evil.example", address_of(there)).replace("169.254.169.254", address_of(there))
    text = text.replace("127.0.0.1:8080", address_of(there)).replace("127.0.0.1:6379", address_of(there))
    return re.sub(r"127\.0\.0\.1(?=[/@])", address_of(there), text)


@pytest.mark.parametrize("own", [True, False])
async def test_the_location_of_a_job_is_never_followed(tmp_path: Path, own: bool) -> None:
    """`own`: the location names our job, so that there is something to poll. It is polled at the usual path."""
    locations = json.loads(corpus("bulkimg-hostile/location.json").read_text("utf-8"))
    assert len(locations) == 26
    async with sink() as there:

        def script(call: Call) -> Reply | None:
            if call.kind != "put":
                return None
            location = pointed(locations[int(call.uuid, 16)], there)
            if own and isinstance(location, str):
                location = location.replace("fedcba9876543210" * 2, call.job)
            return Reply.of(202, {"location": location})

        async with raw_server(scripted(script)) as raw:
            await execute(raw.url, tmp_path, len(locations))
        assert there.connections == 0
    assert strangers(raw) == []
    jobs = {headers["x-job-uuid"] for _, _, headers, _ in raw.requests if "x-job-uuid" in headers}
    polls = [(path, headers) for _, path, headers, _ in raw.requests if "/api-jobs/" in path]
    assert polls
    assert {path.rsplit("/", 1)[1] for path, _ in polls} <= jobs
    assert [headers for _, headers in polls if "authorization" in headers] == []
    assert [path for _, path, headers, _ in raw.requests if headers["host"] != address_of(raw)] == []


async def test_proxies_and_a_netrc_of_the_environment_are_not_used(cli: Cli) -> None:
    cli.write("m.csv", f"uuid,name\n{1:032x},x\n")
    async with sink() as there, raw_server(scripted()) as raw:
        cli.write(".netrc", f"machine 127.0.0.1 login sink password {port_of(there)}\ndefault login a password b\n")
        (cli.place / ".netrc").chmod(0o600)
        names = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "ftp_proxy")
        proxies = {name: there.url for word in names for name in (word, word.upper())}
        trap = {"no_proxy": "", "NO_PROXY": "", "HOME": str(cli.place), "NETRC": str(cli.place / ".netrc")}
        given = {"BULKIMG_ENDPOINT": raw.url, "BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "hunter22"}
        await asyncio.to_thread(lambda: cli("run", "m.csv", "--yes", code=0, **proxies, **trap, **given))
        assert there.connections == 0
    sent = [headers.get("authorization", "") for _, _, headers, _ in raw.requests]
    assert len(sent) >= 3
    assert {word.partition(" ")[0] for word in sent} <= {"", "OAuth"}
    assert strangers(raw) == []


async def test_no_proxy_of_another_case_or_a_config_file_moves_the_target(cli: Cli) -> None:
    """Settings of other clients (curlrc, pip's variables, REQUESTS_CA_BUNDLE, SSL_CERT_FILE) have no effect."""
    cli.write("m.csv", f"uuid,name\n{1:032x},x\n")
    async with sink() as there, raw_server(scripted()) as raw:
        cli.write(".curlrc", f'proxy = "{there.url}"\nlocation\nnetrc\n')
        trap = {"HOME": str(cli.place), "CURL_HOME": str(cli.place), "PROXY": there.url, "REQUEST_METHOD": "GET"}
        given = {"BULKIMG_ENDPOINT": raw.url, "BULKIMG_SESSION": "5e551017" * 4}
        await asyncio.to_thread(lambda: cli("run", "m.csv", "--yes", code=0, **trap, **given))
        assert there.connections == 0
    assert strangers(raw) == []
