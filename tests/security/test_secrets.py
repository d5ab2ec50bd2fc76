"""T60: no secret is ever written or shown to other users, whatever happens and whatever a server echoes."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.battery.api import Call, Reply, accepted, error, inventory
from tests.conftest import Cli, Server, sandbox_process
from tests.security.canaries import Search, forms, new_key_secret, new_password, new_session
from tests.security.figures import measured
from tests.security.servers import api, scripted
from tests.security.watching import Seen, limit_of, some_rows_are_settled, watch
from tests.zstack.raw import http, raw_server

KINDS = ("session", "account", "access key")
LOUD = ("--yes", "-v", "--rate", "unlimited", "--retries", "1", "--timeout", "5s", "--results", "copy.csv")


@dataclass
class Canaries:
    """One kind of credential, each of its secrets unique. `echoed` are the secrets that its server knows."""

    environment: dict[str, Any]
    secrets: dict[str, str]
    echoed: dict[str, str]
    session: str  # what the server returns at a login


def canaries(kind: str) -> Canaries:
    session, password, key = new_session(), new_password(), new_key_secret()
    if kind == "session":
        return Canaries({"BULKIMG_SESSION": session}, {"session": session}, {"session": session}, session)
    if kind == "account":
        given = {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": password}
        both = {"session": session, "password": password}
        return Canaries(given, both, both, session)
    given = {"BULKIMG_ACCESS_KEY_ID": "key-of-a-test", "BULKIMG_ACCESS_KEY_SECRET": key}
    return Canaries(given, {"secret": key}, {"secret": key}, session)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def searched(cli: Cli, given: Canaries, *runs: Seen) -> None:
    """Check that no secret is in any file, stream or command line. The figure is kept."""
    search = Search(given.secrets)
    search.look_under(cli.place)
    for seen in runs:
        for where, data in (("stdout", seen.out), ("stderr", seen.err), *(("ps", line) for line in seen.command_lines)):
            search.look(where, data)
        assert seen.command_lines
    _totals[0] += search.searched
    _totals[1] += search.files
    measured("T60", f"{_totals[0]:,} bytes in {_totals[1]:,} files and streams searched for secrets")
    assert not search.leaks, "\n".join([f"{len(search.leaks)} leaks", *sorted(search.leaks)[:20]])


_totals = [0, 0]


def rows(count: int) -> str:
    return "uuid,name\n" + "".join(f"{n:032x},new-{n}\n" for n in range(count))


def environment(cli: Cli, given: Canaries, url: str) -> dict[str, Any]:
    temporary = cli.place / "tmp"
    temporary.mkdir(exist_ok=True)
    return {**given.environment, "BULKIMG_ENDPOINT": url, "TMPDIR": str(temporary)}


@pytest.mark.parametrize(
    ("kind", "shown"), list(zip(KINDS, [("--json", "--log-format", "json"), ("--progress", "json"), ()], strict=True))
)
async def test_a_run_writes_no_secret(cli: Cli, kind: str, shown: tuple[str, ...]) -> None:
    given = canaries(kind)
    cli.write("m.csv", rows(40))
    async with raw_server(scripted(good=api(given.session))) as raw:
        seen = await asyncio.to_thread(
            watch, cli, "run", "m.csv", *LOUD, *shown, cold=True, **environment(cli, given, raw.url)
        )
    assert seen.code == 0, seen.err
    searched(cli, given, seen)


SHAPES = ("plain", "details", "description", "code", "name", "job", "login-text")


def shaped(shape: str, text: str, call: Call) -> Reply | bytes:
    """Return the text where a server might put it. `details` is JSON whose escapes are the text's own."""
    if shape == "plain":
        return http(f"bad request, headers were {text}".encode(), "400 Bad Request")
    if shape == "name":
        return inventory(call.uuid, {"name": text})
    field = {"job": "details", "login-text": "details"}.get(shape, shape)
    given: dict[str, Any] = {
        "code": "SYS.1006",
        "description": "refused",
        "details": f"image[uuid:{call.uuid}]",
        field: "@",
    }
    return Reply(503, error(**given).body.replace(b'"@"', f'"{text}"'.encode()))


def echoes(given: Canaries) -> Iterator[tuple[str, str, str]]:
    """Yield (shape, what, text) for each place of an answer, each secret and each of its forms."""
    for shape, (name, secret) in product(SHAPES[:-1], given.echoed.items()):
        for form, data in forms(secret).items():
            if form != "utf-16":
                bare = shape != "plain" and form in ("raw", "upper")  # it would not be JSON otherwise
                text = data.decode()
                yield shape, f"{name} as {form}", json.dumps(text, ensure_ascii=False)[1:-1] if bare else text
        for before in ("", "x", "xy"):
            header = base64.b64encode(f"{before}Authorization: OAuth {secret}, and more".encode()).decode()
            yield shape, f"{name} in a header as base64", header


async def test_what_a_server_echoes_in_any_form_is_not_written(cli: Cli, kind: str) -> None:
    """One row for each place of an answer and each form of each secret."""
    given = canaries(kind)
    said = list(echoes(given))
    cli.write("m.csv", rows(len(said)))

    def script(call: Call) -> Reply | bytes | None:
        if call.kind not in ("put", "poll"):
            return None
        shape, _, text = said[int(call.uuid, 16)] if call.kind == "put" else said[jobs[call.uuid]]
        if call.kind == "put":
            jobs[call.job] = int(call.uuid, 16)
        if call.kind == "put" and shape == "job":
            return accepted(call.job)
        return shaped(shape, text, call) if call.kind == "put" or shape == "job" else None

    jobs: dict[str, int] = {}
    async with raw_server(scripted(script, api(given.session))) as raw:
        where = environment(cli, given, raw.url)
        seen = await asyncio.to_thread(watch, cli, "run", "m.csv", *LOUD, "--max-errors", "none", **where)
        told = await asyncio.to_thread(watch, cli, "status")
    assert seen.code == 1, seen.err
    assert len(cli.results()) == len(said)
    searched(cli, given, seen, told)


async def test_the_signature_and_the_hash_that_a_server_echoes_are_not_written(cli: Cli, kind: str) -> None:
    """What replaces the secret in a request gives the same access: session, ZStack signature, SHA-512 of a login."""
    given = canaries(kind)
    cli.write("m.csv", rows(20))
    sent: dict[str, str] = {}

    def script(call: Call) -> Reply | bytes | None:
        if call.kind == "login":
            sent["hash"] = call.document["logInByAccount"]["password"]
        if call.kind != "put":
            return None
        number = int(call.uuid, 16)
        authorization = call.headers["authorization"]
        sent[f"authorization {number}"] = re.split("[ :]", authorization)[-1]
        text = json.dumps([dict(call.headers), sent.get("hash", "")])
        if number % 2:
            return http(text.encode(), "400 Bad Request")
        return error("SYS.1006", f"image[uuid:{call.uuid}] {text}", description=authorization)

    async with raw_server(scripted(script, api(given.session))) as raw:
        where = environment(cli, given, raw.url)
        seen = await asyncio.to_thread(watch, cli, "run", "m.csv", *LOUD, "--max-errors", "none", **where)
    assert seen.code == 1, seen.err
    given.secrets |= sent
    searched(cli, given, seen)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", ["503 Service Unavailable", "401 Unauthorized"])
async def test_a_refused_login_writes_no_secret(cli: Cli, kind: str, status: str) -> None:
    """The refusal echoes the request, body and headers, in its text and in its error object."""
    given = canaries(kind)
    known = {name: secret for name, secret in given.secrets.items() if secret in given.environment.values()}
    cli.write("m.csv", rows(2))

    def script(call: Call) -> Reply | bytes | None:
        if call.kind not in ("login", "put"):
            return None
        text = f"{json.dumps(call.document)} {call.headers.get('authorization', '').partition(':')[0]} {known}"
        if status.startswith("503"):
            return error("ID.1000", text, description=text)
        return http(text.encode(), status, f"WWW-Authenticate: Basic realm={given.session}")

    async with raw_server(scripted(script, api(given.session))) as raw:
        where = environment(cli, given, raw.url)
        seen = await asyncio.to_thread(watch, cli, "run", "m.csv", *LOUD, "--log-format", "json", **where)
    assert seen.code in (1, 5), seen.err
    searched(cli, given, seen)


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    with sandbox_process("--images", "120", "--workers", "4", "--service-time", "30") as found:
        yield found


def sandbox_canaries(kind: str, server: Server) -> Canaries:
    """Return the sandbox's own credentials: random except for the password, which is the word «password»."""
    words = dict(re.findall(r"(BULKIMG_\w+)=(\w+)", server.greeting))
    if kind == "session":
        return Canaries({"BULKIMG_SESSION": server.session}, {"session": server.session}, {}, server.session)
    if kind == "account":
        found = {name: words[name] for name in ("BULKIMG_ACCOUNT", "BULKIMG_PASSWORD")}
        return Canaries(found, {"hash": forms("password")["sha512"].decode()}, {}, "")
    found = {name: words[name] for name in ("BULKIMG_ACCESS_KEY_ID", "BULKIMG_ACCESS_KEY_SECRET")}
    return Canaries(found, {"secret": words["BULKIMG_ACCESS_KEY_SECRET"]}, {}, "")


def test_a_killed_run_and_its_resumption_write_no_secret(cli: Cli, kind: str, slow: Server) -> None:
    given = sandbox_canaries(kind, slow)
    cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},{kind}\n" for uuid in slow.images()))
    where = environment(cli, given, slow.url)
    killed = watch(cli, "run", "m.csv", *LOUD, cold=True, kill_when=lambda: some_rows_are_settled(cli), **where)
    assert killed.code == -9
    searched(cli, given, killed)  # left in the directory after the crash
    resumed = watch(cli, "resume", "last", "-v", "--rate", "unlimited", cold=True, **where)
    assert resumed.code == 0, resumed.err
    searched(cli, given, killed, resumed)


BUG = """
import sys
import bulkimg.applier.perform as room
def broken(answer, claim):
    raise RuntimeError("a bug of ours")
room.judge_update = broken
from bulkimg.cli.main import main
main()
"""


async def test_a_bug_writes_no_secret(cli: Cli, kind: str) -> None:
    """An unexpected exception in the middle of a run: its traceback shows no secret."""
    given = canaries(kind)
    cli.write("m.csv", rows(3))
    async with raw_server(scripted(good=api(given.session))) as raw:
        where = environment(cli, given, raw.url)
        seen = await asyncio.to_thread(watch, cli, "run", "m.csv", *LOUD, program=("-c", BUG), **where)
    assert seen.code not in (0, None)
    assert b"a bug of ours" in seen.err
    searched(cli, given, seen)


async def test_try_shows_no_secret(cli: Cli, kind: str) -> None:
    given = canaries(kind)

    def script(call: Call) -> Reply | bytes | None:
        return error("SYS.1006", f"{call.headers} {given.echoed}") if call.kind == "put" else None

    async with raw_server(scripted(script, api(given.session))) as raw:
        where = environment(cli, given, raw.url)
        words = ("try", "0" * 32, "--set", "name=x")
        shown = await asyncio.to_thread(watch, cli, *words, **where)
        sent = await asyncio.to_thread(watch, cli, *words, "--send", **where)
    assert (shown.code, sent.code) == (0, 1)
    searched(cli, given, shown, sent)


def test_a_secret_given_as_an_argument_is_refused_and_not_repeated(cli: Cli) -> None:
    """There is no such option, and an endpoint that contains a secret is not echoed."""
    secret = new_password().replace('"', "").replace("\\", "")
    for words in (["--endpoint", f"http://admin:{secret}@127.0.0.1:9"], ["--endpoint", f"http://{secret[:12]}@h"]):
        done = cli("run", "m.csv", *words, code=2)
        assert secret[:12] not in done.out + done.err


def test_a_secret_file_is_read_and_not_copied(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    given = canaries("account")
    secret = tmp_path_factory.mktemp("private") / "secret"
    secret.write_text(given.secrets["password"])
    secret.chmod(0o600)
    cli.write("m.csv", rows(2))
    where: dict[str, Any] = {
        "BULKIMG_ACCOUNT": "a",
        "BULKIMG_PASSWORD_FILE": str(secret),
        "BULKIMG_ENDPOINT": "http://127.0.0.1:9",
    }
    seen = watch(cli, "run", "m.csv", *LOUD, **where)
    assert seen.code == 5
    searched(cli, given, seen)


async def test_no_core_is_dumped(cli: Cli) -> None:
    """A core holds the memory, and so the secret. A run sets its limit to zero, whatever the shell allows."""
    given = canaries("session")
    cli.write("m.csv", rows(3))
    core = 'import resource, runpy, sys\nresource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))\nsys.argv[0] = "bulkimg"\n'
    program = ("-c", core + 'runpy.run_module("bulkimg", run_name="__main__")')
    async with raw_server(scripted(good=api(given.session))) as raw:
        where = environment(cli, given, raw.url)
        seen = await asyncio.to_thread(watch, cli, "run", "m.csv", *LOUD, "--rate", "5/s", program=program, **where)
    assert seen.code == 0, seen.err
    assert limit_of(seen, "Max core file size") == "0"


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """The search itself finds every form, between other bytes."""
    secret = new_password()
    for name, form in forms(secret).items():
        search = Search({"it": secret})
        search.look("here", b"before" + form + b"behind")
        assert any(f"as {name} " in leak for leak in search.leaks), name
    for before, coded in product(("", "x", "xy"), (base64.b64encode, base64.urlsafe_b64encode)):
        search = Search({"it": secret})
        (tmp_path / "file").write_bytes(coded(f"{before}{secret}behind".encode()))
        search.look_under(tmp_path)
        assert search.leaks
