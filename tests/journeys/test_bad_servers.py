"""Servers that lie, stall, echo and refuse: no false outcome, no hang, no secret on disk."""

import asyncio
import contextlib
import hashlib
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import bulkimg
from tests.conftest import Cli
from tests.ended import ended

SESSION = "5e551017" * 4


@dataclass
class Lies:
    """A server with real images and with the answers that a test makes of them."""

    url: str = ""
    names: dict[str, str] = field(default_factory=dict)
    log: list[tuple[float, str, str]] = field(default_factory=list)
    script: Callable[["Lies", str, web.Request, Any], Awaitable[web.StreamResponse | None]] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.split("/")[3:]
        kind = (
            "login"
            if parts[-1] == "login"
            else "logout"
            if "sessions" in parts
            else "poll"
            if "api-jobs" in parts
            else "read"
        )
        kind = "put" if parts[-1] == "actions" else kind
        body = await request.read()
        said = json.loads(body) if body else None
        self.log.append((time.monotonic(), kind, parts[1] if len(parts) > 1 else ""))
        if self.script and (answer := await self.script(self, kind, request, said)) is not None:
            return answer
        return self.honest(kind, parts[1], said)

    def apply(self, request: web.Request, said: Any) -> str:
        uuid = request.path.split("/")[4]
        self.names[uuid] = next(iter(said.values()))["name"]
        return uuid

    def honest(self, kind: str, uuid: str, said: Any) -> web.Response:
        if kind == "put":
            self.names[uuid] = next(iter(said.values()))["name"]
            return web.json_response({"inventory": {"uuid": uuid, "name": self.names[uuid]}})
        if kind == "read":
            return web.json_response({"inventories": [{"uuid": uuid, "name": self.names.get(uuid, "old")}]})
        if kind == "poll":
            return web.Response(status=404, text="the job has been expired")
        return web.json_response({"inventory": {"uuid": "a" * 32}} if kind == "login" else {})

    def count(self, kind: str) -> int:
        return sum(entry[1] == kind for entry in self.log)


def dropped(request: web.Request) -> web.Response:
    """End the connection without an answer."""
    if request.transport:
        request.transport.close()
    return web.Response()


@contextlib.asynccontextmanager
async def lying(script: Any) -> AsyncIterator[Lies]:
    server = Lies(script=script)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


async def run(
    server: Lies, place: Path, rows: int = 12, credentials: Any = None, **options: Any
) -> tuple[bulkimg.Summary, list[dict[str, Any]]]:
    """Run `rows` changes. Returns (summary, results)."""
    changes = [{"uuid": f"{n:032x}", "name": f"new-{n}"} for n in range(rows)]
    given = {
        "rate": "unlimited",
        "retries": "1",
        "timeout": "3s",
        "job_timeout": "2s",
        "concurrency": "4",
        "max_outage": "2s",
        "survey": False,  # these servers are about PUT, poll and read
        **options,
    }
    one = bulkimg.Run(
        changes, credentials=credentials or bulkimg.Session(SESSION), endpoint=server.url, runs_dir=place, **given
    )
    summary = await ended(one)
    lines = (Path(summary.directory) / "results.jsonl").read_text("utf-8").split("\n")[:-1]
    results = [json.loads(line) for line in lines]
    assert len(results) == rows
    for result in results:  # what every run must keep, with any server
        applied = server.names.get(result["uuid"]) == f"new-{int(result['uuid'], 16)}"
        assert applied or result["status"] != "updated", result
        assert not applied or result["status"] != "failed", result
    return summary, results


def statuses(results: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(result["status"] for result in results))


async def test_a_key_settled_by_reading_is_not_taken_for_accepted(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put" and server.count("put") == 1:
            server.apply(request, said)
            return dropped(request)
        if kind == "put" and "updateimage" in said:
            return web.Response(status=400, text=f"the body doesn't contain action mapping to the URL[{request.path}]")
        return None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, rows=30)
    assert (summary.exit_code, statuses(results)) == (0, {"updated": 30})


@pytest.mark.parametrize("status", [201, 204, 206, 299, 302, 403, 404, 409, 418, 500, 502, 503, 999])
async def test_an_applied_change_is_never_failed_whatever_status_says_so(tmp_path: Path, status: int) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            server.apply(request, said)
            return web.Response(status=status, text="<html>the captive portal</html>" if status != 204 else None)
        return None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, rows=6)
    found = statuses(results)
    if 300 <= status < 400:  # the first one ends the run, so no other row is sent
        assert (summary.exit_code, found) == (5, {"unknown": 1, "unprocessed": 5})
    else:
        assert set(found) <= {"updated", "unknown"}


@pytest.mark.parametrize("status", [201, 302, 500, 999])
async def test_what_was_not_applied_is_never_updated(tmp_path: Path, status: int) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        return web.Response(status=status, text="no") if kind == "put" else None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=6)
    assert set(statuses(results)) <= {"failed", "unknown", *(["unprocessed"] if status == 302 else [])}


async def test_an_accepted_job_that_is_lost_is_unknown(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            uuid, job = request.path.split("/")[4], request.headers["X-Job-UUID"]
            asyncio.get_running_loop().call_later(
                1.5, lambda: server.names.__setitem__(uuid, next(iter(said.values()))["name"])
            )
            return web.json_response({"location": f"http://10.0.0.1/zstack/v1/api-jobs/{job}"}, status=202)
        return None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=4, retries="0")
        await asyncio.sleep(1.6)
    assert statuses(results) == {"unknown": 4}


async def test_a_late_change_and_a_refused_retry_are_not_failed(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind != "put":
            return None
        uuid = request.path.split("/")[4]
        if sum(entry[1:] == ("put", uuid) for entry in server.log) == 1:
            asyncio.get_running_loop().call_later(1.2, lambda: server.apply(request, said))
            return dropped(request)
        return web.Response(status=403, text=f"no, not {uuid}")

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=3)
        await asyncio.sleep(1.3)
    assert set(statuses(results)) <= {"unknown", "updated"}


async def test_a_long_retry_after_while_asking_stops_the_run(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            server.apply(request, said)
            return dropped(request)
        return web.Response(status=503, text="later", headers={"Retry-After": "86400"}) if kind == "poll" else None

    async with lying(script) as server:
        summary, _ = await asyncio.wait_for(run(server, tmp_path), 30)
    assert summary.exit_code == 5
    assert "asked to wait 86400 s" in summary.reason


async def test_retry_after_on_any_answer_holds_every_request(tmp_path: Path) -> None:
    held = False

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        nonlocal held
        if kind == "put" and server.count("put") == 5:
            return dropped(request)
        if kind == "poll" and not held:
            held = True
            server.log.append((time.monotonic(), "held", ""))
            return web.Response(status=429, headers={"Retry-After": "1"})
        return None

    async with lying(script) as server:
        await run(server, tmp_path, rows=40, concurrency="8")
    at = next(moment for moment, kind, _ in server.log if kind == "held")
    later = [moment - at for moment, kind, _ in server.log if moment > at and kind != "held"]
    assert [moment for moment in later if 0.1 < moment < 0.98] == []


async def test_one_burst_of_429_is_one_hold(tmp_path: Path) -> None:
    begun = time.monotonic()

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put" and 0.2 < time.monotonic() - begun < 0.8:
            return web.Response(status=429, headers={"Retry-After": "1"})
        await asyncio.sleep(0.02)
        return None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, rows=1500, concurrency="64")
    assert (summary.exit_code, statuses(results)) == (0, {"updated": 1500})


async def test_a_session_that_dies_before_reading_back_leaves_unknown(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            server.apply(request, said)
            return dropped(request)
        dead = {"error": {"code": "ID.1001", "description": "expired", "details": "Session expired"}}
        return web.json_response(dead, status=503) if kind == "read" else None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path)
    assert summary.exit_code == 5
    assert set(statuses(results)) <= {"unknown", "unprocessed"}


async def test_a_login_that_is_refused_in_the_middle_is_tried_once(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "login" and server.count("login") > 1:
            return web.json_response({"error": {"code": "ID.1000", "description": "no"}}, status=503)
        return web.Response(status=401) if kind == "put" and server.count("put") > 20 else None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, 200, bulkimg.Account("admin", "hunter22"), concurrency="64")
    assert summary.exit_code == 5
    assert server.count("login") == 2
    assert set(statuses(results)) == {"updated", "unprocessed"}


async def test_a_login_that_hangs_does_not_keep_a_stop_waiting(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "login":
            await asyncio.sleep(20)
        return None

    async with lying(script) as server:
        changes = [{"uuid": "0" * 32, "name": "x"}]
        account = bulkimg.Account("a", "p")
        one = bulkimg.Run(
            changes, credentials=account, endpoint=server.url, runs_dir=tmp_path, timeout="15s", survey=False
        )
        begun = time.monotonic()
        asyncio.get_running_loop().call_later(0.7, one.stop)
        summary = await ended(one)
    assert time.monotonic() - begun < 5
    assert (summary.exit_code, summary.counts["unprocessed"]) == (130, 1)


async def test_what_the_server_echoes_of_our_secrets_is_not_written_down(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            return web.Response(status=400, text="headers were " + json.dumps(dict(request.headers)))
        return None

    async with lying(script) as server:
        await run(server, tmp_path, rows=3)
        await run(server, tmp_path, rows=3, credentials=bulkimg.Account("admin", "hunter22"))
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (SESSION, "a" * 32, "hunter22", hashlib.sha512(b"hunter22").hexdigest()):
        assert secret.encode() not in everything
    assert b"[hidden]" in everything


async def test_a_job_uuid_that_is_a_duplicate_for_ever_gets_a_new_one(tmp_path: Path) -> None:
    seen: set[str] = set()

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        job = request.headers.get("X-Job-UUID", "")
        if kind == "put" and len(seen) < 3:
            seen.add(job)
            return web.Response(status=400, text=f"Duplicate job uuid[{job}]")
        return None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=4, retries="4")
    assert statuses(results) == {"updated": 4}


async def test_answers_swapped_between_rows_never_settle_the_wrong_one(tmp_path: Path) -> None:
    waiting: list[asyncio.Future[str]] = []

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind != "put":
            return None
        uuid = server.apply(request, said)
        mine: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting.append(mine)
        if len(waiting) >= 2:
            waiting.pop(0).set_result(uuid)
        with contextlib.suppress(TimeoutError):
            other = await asyncio.wait_for(mine, 0.3)
            return web.json_response({"inventory": {"uuid": other, "name": server.names[other]}})
        return None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=10)
    assert statuses(results) == {"updated": 10}
    assert all(not result["after"] or result["after"]["name"] == f"new-{int(result['uuid'], 16)}" for result in results)


async def test_retry_after_on_a_poll_of_an_accepted_job_holds_every_request(tmp_path: Path) -> None:
    held = 0.0

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        nonlocal held
        uuid = request.path.split("/")[4]
        if kind == "put":
            server.apply(request, said)
            server.names[request.headers["X-Job-UUID"]] = uuid
            location = f"http://10.0.0.1/zstack/v1/api-jobs/{request.headers['X-Job-UUID']}"
            return web.json_response({"location": location}, status=202)
        if kind == "poll" and not held and server.count("poll") > 5:
            held = time.monotonic()
            return web.Response(status=503, text="busy", headers={"Retry-After": "1"})
        if kind == "poll":
            image = server.names[uuid]
            return web.json_response({"inventory": {"uuid": image, "name": server.names[image]}})
        return None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, rows=40, concurrency="8")
    assert (summary.exit_code, statuses(results)) == (0, {"updated": 40})
    assert [moment - held for moment, _, _ in server.log if held + 0.1 < moment < held + 0.98] == []


@pytest.mark.parametrize("how", ["502", "dropped"])
async def test_polls_that_are_never_answered_do_not_hold_the_run(tmp_path: Path, how: str) -> None:
    """A proxy may not know the path of jobs. The rows are settled by reading, and the breaker probes another path."""

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            server.apply(request, said)
            location = f"http://10.0.0.1/zstack/v1/api-jobs/{request.headers['X-Job-UUID']}"
            return web.json_response({"location": location}, status=202)
        if kind == "poll":
            return web.Response(status=502, text="<html>bad gateway</html>") if how == "502" else dropped(request)
        return None

    async with lying(script) as server:
        given = {"retries": "3", "concurrency": "16", "max_outage": "30s", "job_timeout": "60s"}
        _, results = await run(server, tmp_path, rows=40, **given)
        assert statuses(results) == {"updated": 40}
        assert server.count("put") == 40


async def test_reads_that_are_never_answered_end_with_the_outage(tmp_path: Path) -> None:
    """The results of these changes cannot be read: the run waits as long as it was told to, says so, and ends."""

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            server.apply(request, said)
            return web.Response(text="<html>log in</html>")
        return web.Response(status=502, text="<html>bad gateway</html>") if kind == "read" else None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=5, retries="1", concurrency="5", max_outage="20s", adaptive=False)
    assert statuses(results) == {"unknown": 5}


async def test_a_password_that_is_changed_in_the_middle_stops_the_run_and_the_new_one_resumes_it(cli: Cli) -> None:
    """T28: no row fails because of it. The old password is tried once more, not for every row (accounts are locked)."""
    password = ["hunter22"]
    alive: set[str] = set()

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "login":
            if said["logInByAccount"]["password"] != hashlib.sha512(password[0].encode()).hexdigest():
                return web.json_response({"error": {"code": "ID.1000", "description": "wrong password"}}, status=503)
            alive.add(session := f"{server.count('login'):a>32x}")
            return web.json_response({"inventory": {"uuid": session}})
        if kind in ("put", "read") and request.headers["Authorization"].removeprefix("OAuth ") not in alive:
            return web.json_response({"error": {"code": "ID.1001", "description": "session expired"}}, status=503)
        if kind == "put" and server.count("put") == 60:
            password[0] = "correct horse"
            alive.clear()
        return None

    cli.write("m.csv", "uuid,name\n" + "".join(f"{n:032x},new-{n}\n" for n in range(200)))
    async with lying(script) as server:
        given = {"BULKIMG_ENDPOINT": server.url, "BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "hunter22"}
        given["BULKIMG_SURVEY"] = "false"
        run = ("run", "m.csv", "--yes", "--rate", "unlimited", "--concurrency", "32", "--progress", "none")
        done = await asyncio.to_thread(cli, *run, code=5, **given)
        assert "password" in done.err
        assert set(statuses(cli.results())) == {"updated", "unprocessed"}
        assert server.count("login") <= 2 + 1  # the first, and after the change at most what a stop allows
        resume = ("resume", "last", "--rate", "unlimited", "--progress", "none")
        await asyncio.to_thread(cli, *resume, code=0, **{**given, "BULKIMG_PASSWORD": "correct horse"})
    assert statuses(cli.results()) == {"updated": 200}
    assert server.names == {f"{n:032x}": f"new-{n}" for n in range(200)}


async def test_a_server_that_accepts_nobody_any_more_costs_a_bounded_time(tmp_path: Path) -> None:
    """T22: its queue of new connections is full. Some connect and get no answer, the others do not connect."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        server = Lies(url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        given = {"timeout": "300ms", "retries": "1", "max_outage": "3s", "concurrency": "16"}
        begun = time.monotonic()
        summary, results = await run(server, tmp_path, rows=40, **given)
    assert time.monotonic() - begun < 20
    assert summary.exit_code == 5
    assert set(statuses(results)) <= {"unprocessed", "unknown"}
    assert summary.counts["unprocessed"] >= 20


@pytest.mark.parametrize("how", ["dropped", "html"])
async def test_a_value_that_the_image_does_not_show_is_not_taken_for_applied(tmp_path: Path, how: str) -> None:
    """Servers leave out null values: an image as asked for, except for its missing description, was not changed."""

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            return dropped(request) if how == "dropped" else web.Response(text="<html>log in</html>")
        return None

    changes = [{"uuid": f"{n:032x}", "name": "old", "description": "told"} for n in range(6)]
    async with lying(script) as server:
        one = bulkimg.Run(
            changes,
            credentials=bulkimg.Session(SESSION),
            endpoint=server.url,
            runs_dir=tmp_path,
            retries=1,
            rate="unlimited",
            survey=False,
        )
        summary = await ended(one)
    assert (summary.counts["updated"], summary.counts["unknown"]) == (0, 6)


@pytest.mark.parametrize("password", ["new-1", "0000", "inventory", "uuid", "name"])
async def test_a_password_that_is_a_value_somewhere_makes_no_false_outcome(tmp_path: Path, password: str) -> None:
    """The server's own text is judged. Secrets are redacted only where it is written."""
    async with lying(None) as server:
        _, results = await run(server, tmp_path, rows=12, credentials=bulkimg.Account("admin", password))
    assert statuses(results) == {"updated": 12}


async def test_a_run_that_gives_up_does_not_wait_for_rows_that_wait_at_the_gate(tmp_path: Path) -> None:
    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        return web.Response(status=429, headers={"Retry-After": "86400"}) if kind == "put" else None

    async with lying(script) as server:
        begun = time.monotonic()
        summary, results = await run(server, tmp_path, rows=20, timeout="30s", concurrency="8")
        assert time.monotonic() - begun < 10
    assert summary.exit_code == 5
    assert statuses(results) == {"unprocessed": 20}


async def test_polls_that_are_held_for_ever_end_with_the_outage(tmp_path: Path) -> None:
    """Reading images meanwhile would close the breaker again and again, and the wait would never end."""

    async def script(server: Lies, kind: str, request: web.Request, said: Any) -> web.Response | None:
        if kind == "put":
            location = f"http://10.0.0.1/zstack/v1/api-jobs/{request.headers['X-Job-UUID']}"
            return web.json_response({"location": location}, status=202)
        return web.Response(status=429, headers={"Retry-After": "1"}) if kind == "poll" else None

    async with lying(script) as server:
        begun = time.monotonic()
        summary, results = await run(server, tmp_path, rows=3, max_outage="3s", job_timeout="20s")
        assert time.monotonic() - begun < 15
        assert server.count("read") == 0
    assert summary.exit_code == 5
    assert statuses(results) == {"unknown": 3}
