"""Servers that lie, stall, echo and refuse: no false outcome, no hang, no secret on disk."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import bulkimg
from tests.battery.api import Api, Call, Reply, accepted, error, inventory, session_dead
from tests.conftest import Cli
from tests.ended import ended
from tests.zstack.raw import Raw, raw_server

SESSION = "5e551017" * 4


READS = ("read", "query", "tags")
DROPPED = b""  # the connection ends without an answer


@dataclass
class Lies:
    """A good server with the answers that a test gives instead."""

    good: Api
    script: "Script | None" = None
    url: str = ""
    log: list[tuple[float, str, str]] = field(default_factory=list)

    async def reply(self, raw: Raw, writer: asyncio.StreamWriter) -> bool:
        call = Call.of(*raw.requests[-1])
        self.log.append((time.monotonic(), call.kind, call.uuid))
        said = await self.script(self, call) if self.script else None
        said = self.good.answer(call) if said is None else said
        writer.write(said.wire() if isinstance(said, Reply) else said)
        await writer.drain()
        return said != DROPPED

    @property
    def names(self) -> dict[str, str]:
        return {uuid: image["name"] for uuid, image in self.good.table.items()}

    def count(self, *kinds: str) -> int:
        return sum(entry[1] in kinds for entry in self.log)


Script = Callable[[Lies, Call], Awaitable[Reply | bytes | None]]


@contextlib.asynccontextmanager
async def lying(script: Script | None, good: Api | None = None) -> AsyncIterator[Lies]:
    server = Lies(good=good or Api(unseen={"name": "old"}), script=script)
    async with raw_server(server.reply) as raw:
        server.url = raw.url
        yield server


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
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put" and server.count("put") == 1:
            server.good.execute(call)
            return DROPPED
        if call.kind == "put" and "updateimage" in call.document:
            return Reply.text(400, f"the body doesn't contain action mapping to the URL[{call.path}]")
        return None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, rows=30)
    assert (summary.exit_code, statuses(results)) == (0, {"updated": 30})


@pytest.mark.parametrize("status", [201, 204, 206, 299, 302, 403, 404, 409, 418, 500, 502, 503, 999])
async def test_an_applied_change_is_never_failed_whatever_status_says_so(tmp_path: Path, status: int) -> None:
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            server.good.execute(call)
            return Reply(status, b"<html>the captive portal</html>" if status != 204 else b"")
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
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        return Reply.text(status, "no") if call.kind == "put" else None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=6)
    assert set(statuses(results)) <= {"failed", "unknown", *(["unprocessed"] if status == 302 else [])}


async def test_an_accepted_job_that_is_lost_is_unknown(tmp_path: Path) -> None:
    calls: list[Call] = []

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            calls.append(call)  # and it is executed when the run has ended
            return accepted(call.job)
        return None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=4, retries="0")
    assert len(calls) == 4
    assert statuses(results) == {"unknown": 4}


async def test_a_late_change_and_a_refused_retry_are_not_failed(tmp_path: Path) -> None:
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind != "put":
            return None
        if sum(entry[1:] == ("put", call.uuid) for entry in server.log) == 1:
            asyncio.get_running_loop().call_later(1.2, server.good.execute, call)
            return DROPPED
        return Reply.text(403, f"no, not {call.uuid}")

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=3)
        await asyncio.sleep(1.3)
    assert set(statuses(results)) <= {"unknown", "updated"}


class Hold:
    """The second for which an answer has asked to send nothing. Client and server run in the same loop."""

    def __init__(self) -> None:
        self.begun = self.heard = 0.0

    def begin(self) -> None:
        """Note the answer's moment, and that at which the client has read it and the server all that was on its way."""
        self.begun = time.monotonic()
        self._hearing = asyncio.ensure_future(self._hear())

    async def _hear(self) -> None:
        for _ in range(100):  # turns of the loop: they do not pass while the process stands still
            await asyncio.sleep(0)
        self.heard = time.monotonic()

    def check(self, server: Lies) -> None:
        """Check that nothing came in that second, and that something did before and afterwards."""
        assert self.heard < self.begun + 0.9, "this process stood still for too long to see anything"
        moments = [moment for moment, _, _ in server.log]
        assert [moment - self.begun for moment in moments if self.heard < moment < self.begun + 1] == []
        assert min(moments) < self.begun
        assert max(moments) >= self.begun + 1


async def test_a_long_retry_after_while_asking_stops_the_run(tmp_path: Path) -> None:
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            server.good.execute(call)
            return DROPPED
        return Reply(503, b"later", {"Retry-After": "86400"}) if call.kind == "poll" else None

    async with lying(script) as server:
        summary, _ = await asyncio.wait_for(run(server, tmp_path), 30)
    assert summary.exit_code == 5
    assert "asked to wait 86400 s" in summary.reason


async def test_retry_after_on_any_answer_holds_every_request(tmp_path: Path) -> None:
    hold = Hold()

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put" and server.count("put") == 5:
            return DROPPED
        if call.kind == "poll" and not hold.begun:
            hold.begin()
            return Reply(429, headers={"Retry-After": "1"})
        return None

    async with lying(script) as server:
        await run(server, tmp_path, rows=40, concurrency="8")
    hold.check(server)


async def test_one_burst_of_429_is_one_hold(tmp_path: Path) -> None:
    begun = time.monotonic()

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put" and 0.2 < time.monotonic() - begun < 0.8:
            return Reply(429, headers={"Retry-After": "1"})
        await asyncio.sleep(0.02)
        return None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, rows=1500, concurrency="64")
    assert (summary.exit_code, statuses(results)) == (0, {"updated": 1500})


async def test_a_session_that_dies_before_reading_back_leaves_unknown(tmp_path: Path) -> None:
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            server.good.execute(call)
            return DROPPED
        return session_dead() if call.kind in READS else None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path)
    assert summary.exit_code == 5
    assert set(statuses(results)) <= {"unknown", "unprocessed"}


async def test_a_login_that_is_refused_in_the_middle_is_tried_once(tmp_path: Path) -> None:
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "login" and server.count("login") > 1:
            return error("ID.1000", "no")
        return Reply(401) if call.kind == "put" and server.count("put") > 20 else None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, 200, bulkimg.Account("admin", "hunter22"), concurrency="64")
    assert summary.exit_code == 5
    assert server.count("login") == 2
    assert set(statuses(results)) == {"updated", "unprocessed"}


async def test_a_login_that_hangs_does_not_keep_a_stop_waiting(tmp_path: Path) -> None:
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "login":
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
    assert time.monotonic() - begun < 13, "the login would end after 15 s"
    assert (summary.exit_code, summary.counts["unprocessed"]) == (130, 1)


async def test_what_the_server_echoes_of_our_secrets_is_not_written_down(tmp_path: Path) -> None:
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            return Reply.text(400, "headers were " + json.dumps(dict(call.headers)))
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

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put" and len(seen) < 3:
            seen.add(call.job)
            return Reply.text(400, f"Duplicate job uuid[{call.job}]")
        return None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=4, retries="4")
    assert statuses(results) == {"updated": 4}


async def test_answers_swapped_between_rows_never_settle_the_wrong_one(tmp_path: Path) -> None:
    waiting: list[asyncio.Future[str]] = []

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind != "put":
            return None
        server.good.execute(call)
        mine: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting.append(mine)
        if len(waiting) >= 2:
            waiting.pop(0).set_result(call.uuid)
        with contextlib.suppress(TimeoutError):
            other = await asyncio.wait_for(mine, 0.3)
            return inventory(other, server.good.table[other])
        return None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=10)
    assert statuses(results) == {"updated": 10}
    assert all(not result["after"] or result["after"]["name"] == f"new-{int(result['uuid'], 16)}" for result in results)


async def test_retry_after_on_a_poll_of_an_accepted_job_holds_every_request(tmp_path: Path) -> None:
    hold = Hold()

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            return server.good.accept(call)
        if call.kind == "poll" and not hold.begun and server.count("poll") > 5:
            hold.begin()
            return Reply(503, b"busy", {"Retry-After": "1"})
        return None

    async with lying(script) as server:
        summary, results = await run(server, tmp_path, rows=40, concurrency="8")
    assert (summary.exit_code, statuses(results)) == (0, {"updated": 40})
    hold.check(server)


@pytest.mark.parametrize("how", ["502", "dropped"])
async def test_polls_that_are_never_answered_do_not_hold_the_run(tmp_path: Path, how: str) -> None:
    """A proxy may not know the path of jobs. The rows are settled by reading, and the breaker probes another path."""

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            server.good.execute(call)
            return accepted(call.job)
        if call.kind == "poll":
            return Reply(502, b"<html>bad gateway</html>") if how == "502" else DROPPED
        return None

    async with lying(script) as server:
        given = {"retries": "3", "concurrency": "16", "max_outage": "30s", "job_timeout": "60s"}
        _, results = await run(server, tmp_path, rows=40, **given)
        assert statuses(results) == {"updated": 40}
        assert server.count("put") == 40


async def test_reads_that_are_never_answered_end_with_the_outage(tmp_path: Path) -> None:
    """The results of these changes cannot be read: the run waits as long as it was told to, says so, and ends."""

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            server.good.execute(call)
            return Reply(200, b"<html>log in</html>")
        return Reply(502, b"<html>bad gateway</html>") if call.kind in READS else None

    async with lying(script) as server:
        _, results = await run(server, tmp_path, rows=5, retries="1", concurrency="5", max_outage="5s", adaptive=False)
    assert statuses(results) == {"unknown": 5}


async def test_a_password_that_is_changed_in_the_middle_stops_the_run_and_the_new_one_resumes_it(cli: Cli) -> None:
    """T28: no row fails because of it. The old password is tried once more, not for every row (accounts are locked)."""
    numbers = itertools.count(1)
    good = Api(
        accounts={"admin": "hunter22"},
        sessions=set(),
        new_session=lambda: f"{next(numbers):a>32x}",
        unseen={"name": "old"},
    )

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put" and server.count("put") == 60:
            good.accounts, good.sessions = {"admin": "correct horse"}, set()
        return None

    cli.write("m.csv", "uuid,name\n" + "".join(f"{n:032x},new-{n}\n" for n in range(200)))
    async with lying(script, good) as server:
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
        server = Lies(Api(), url=f"http://127.0.0.1:{deaf.getsockname()[1]}")
        given = {"timeout": "300ms", "retries": "1", "max_outage": "3s", "concurrency": "16"}
        begun = time.monotonic()
        summary, results = await run(server, tmp_path, rows=40, **given)
    assert time.monotonic() - begun < 40
    assert summary.exit_code == 5
    assert set(statuses(results)) <= {"unprocessed", "unknown"}
    assert summary.counts["unprocessed"] >= 20


@pytest.mark.parametrize("how", ["dropped", "html"])
async def test_a_value_that_the_image_does_not_show_is_not_taken_for_applied(tmp_path: Path, how: str) -> None:
    """Servers leave out null values: an image as asked for, except for its missing description, was not changed."""

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            return DROPPED if how == "dropped" else Reply(200, b"<html>log in</html>")
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
    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        return Reply(429, headers={"Retry-After": "86400"}) if call.kind == "put" else None

    async with lying(script) as server:
        begun = time.monotonic()
        summary, results = await run(server, tmp_path, rows=20, timeout="30s", concurrency="8")
        assert time.monotonic() - begun < 28, "the timeout is 30 s"
    assert summary.exit_code == 5
    assert statuses(results) == {"unprocessed": 20}


async def test_polls_that_are_held_for_ever_end_with_the_outage(tmp_path: Path) -> None:
    """Reading images meanwhile would close the breaker again and again, and the wait would never end."""

    async def script(server: Lies, call: Call) -> Reply | bytes | None:
        if call.kind == "put":
            return accepted(call.job)
        return Reply(429, headers={"Retry-After": "1"}) if call.kind == "poll" else None

    async with lying(script) as server:
        begun = time.monotonic()
        summary, results = await run(server, tmp_path, rows=3, max_outage="3s", job_timeout="20s")
        assert time.monotonic() - begun < 18, "the jobs would be given up after 20 s"
        assert server.count(*READS) == 0
    assert summary.exit_code == 5
    assert statuses(results) == {"unknown": 3}
