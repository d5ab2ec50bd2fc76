"""Compare HttpClient's answers with ClientSession's under every fault of the witness (T20 to T34).

Each comparison has two witnesses in this process with the same script, one for each client. A client changes an image,
asks for the job, reads the image, and logs in.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bulkimg.zstack.wire import Answer
from tests.battery.api import ACCOUNT, KEYS, PASSWORD
from tests.battery.differential import LONG_PATIENCE, Kind, Ours, client_of, for_each, settle
from tests.battery.faults_catalogue import BOTH, CATALOGUE
from tests.battery.witness_api import WitnessApi
from tests.battery.witness_script import Script
from tests.battery.witness_server import Log, Server
from tests.zstack.reference import Session

PATIENCE = 0.7  # seconds; longer than the slowest fault that answers
AT_ONCE = 24  # comparisons at the same time
JOB = "1234567890ab4def8234567890abcdef"
_WHEN = re.compile(rb'"lastOpDate": "[^"]*"')  # the witness's clock

# The parts of the catalogue that other tests cover.
_MORE: tuple[dict[str, Any], ...] = (
    *({"on": "any", "do": "redirect", "arg": [f"http://127.0.0.1:1/{n}", n]} for n in (301, 302, 303, 307, 308)),
    *({"on": "any", "do": "retry-after", "arg": [status, wait]} for status in (429, 503) for wait in ("5", "soon", "")),
    {"on": "any", "do": "rate-limit", "arg": {"ratelimit": '"default";r=5;t=30'}},
    {"on": "any", "do": "rate-limit", "arg": {"X-RATELIMIT-REMAINING": "0", "x-ratelimit-reset": "9"}},
    *({"on": "any", "do": "status", "arg": status} for status in (400, 401, 403, 404, 405, 413, 500, 502, 503, 504)),
    *({"on": "any", "do": "status", "arg": status} for status in (200, 204, 304, 418, 599)),
    {"on": "login", "do": "login-refused"},
    {"on": "login", "do": "login-slow", "arg": 0.1},
    {"on": "put", "do": "kill-session"},
)


class Scene(NamedTuple):
    """A script of the witness."""

    name: str
    dialect: str
    rules: tuple[dict[str, Any], ...]


def scenes() -> Iterator[Scene]:
    """Yield every fault, on every request that it applies to. The request is executed even if its answer is damaged."""
    for fault in CATALOGUE:
        for dialect in fault.dialects:
            yield Scene(fault.name, dialect, tuple({"act": True, **rule} for rule in fault.script(1.0)))
    for rule in _MORE:
        for dialect in BOTH:
            yield Scene(f"{rule['do']} {rule.get('arg')}", dialect, (rule,))


class _Heard(Log):
    """The witness's log, in memory."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.ended = asyncio.Event()  # an answer, or what replaces it
        self._sync = False

    def note(self, kind: str, **facts: Any) -> None:
        self.lines.append({"kind": kind, **facts})
        if kind == "end":
            self.ended.set()

    @property
    def requests(self) -> int:
        return sum(line["kind"] == "request" for line in self.lines)


@asynccontextmanager
async def _witness(scene: Scene) -> AsyncIterator[tuple[Server, _Heard]]:
    log, script = _Heard(), Script(1)
    script.replace(scene.rules)
    server = Server(WitnessApi(scene.dialect, 3, 1, 50, 0.0, log.note), script, log)
    await server.listen()
    try:
        yield server, log
    finally:
        await server.close()


class Made(NamedTuple):
    """One client's results of a scene. `received` counts the requests after each call."""

    answers: tuple[Answer, ...]
    received: tuple[int, ...]


async def play(kind: Kind, scene: Scene, patience: float) -> Made:
    """Send the four requests, one after another."""
    answers, received = [], []
    async with _witness(scene) as (server, log), client_of(kind, server.url, patience) as client:
        for method, target, body in _requests(server.api):
            headers = {"Authorization": f"OAuth {server.api.session}", "X-Job-UUID": JOB}
            log.ended.clear()
            answer = await client.send(method, target, headers, body)
            with suppress(TimeoutError):
                await asyncio.wait_for(log.ended.wait(), patience)
            await settle()
            answers.append(answer._replace(detail="", raw=_WHEN.sub(b"", answer.raw)))
            received.append(log.requests)
    return Made(tuple(answers), tuple(received))


def _requests(api: WitnessApi) -> list[tuple[str, str, bytes | None]]:
    image = next(iter(api.table))
    (key,) = KEYS[api.dialect]
    password = hashlib.sha512(PASSWORD.encode()).hexdigest()
    login = {"logInByAccount": {"accountName": ACCOUNT, "password": password}}
    return [
        ("PUT", f"/zstack/v1/images/{image}/actions", json.dumps({key: {"name": "wanted"}}).encode()),
        ("GET", f"/zstack/v1/api-jobs/{JOB}", None),
        ("GET", f"/zstack/v1/images/{image}", None),
        ("PUT", "/zstack/v1/accounts/login", json.dumps(login).encode()),
    ]


@dataclass
class FaultsTold:
    """The results of all scenes. `expected` names those in which only HttpClient was right."""

    compared: int = 0
    expected: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


def _judge(scene: Scene, ours: Made, session: Made) -> tuple[bool, str]:
    """Return whether a difference is a known one, and what is wrong."""
    name = f"{scene.name}, {scene.dialect}"
    if ours.received != (1, 2, 3, 4):
        return False, f"{name}: requests received {ours.received}"
    if ours == session:
        return False, ""
    # Endless 1xx: HttpClient is right to end it. ClientSession waits until the timeout.
    impatient = scene.name == "endless-1xx" and ours.answers[0].failure == "NOT_HTTP"
    # One answer too many: HttpClient is right. ClientSession may give it to the next request.
    shifted = scene.name.startswith("ghost") and _own(ours, scene)
    return impatient or shifted, f"{name}: {ours} differs from {session}"


def _own(made: Made, scene: Scene) -> bool:
    """Return whether every answer belongs to its request."""
    login = made.answers[3]
    return login.status is None or b"expiredDate" in login.raw


async def hold_faults() -> FaultsTold:
    """Compare both clients in every scene, some at a time. A difference is compared again with a longer timeout."""
    told, again = FaultsTold(), list[Scene]()
    swapping = asyncio.Lock()  # the witness would exchange answers between any two requests of this process

    async def compare(scene: Scene, patience: float) -> tuple[bool, str]:
        async with swapping if "swap" in scene.name else nullcontext():
            return _judge(scene, await play(Ours, scene, patience), await play(Session, scene, patience))

    async def first(scene: Scene) -> None:
        told.compared += 1
        if (await compare(scene, PATIENCE))[1]:
            again.append(scene)

    async def second(scene: Scene) -> None:
        known, trouble = await compare(scene, LONG_PATIENCE)
        if known:
            told.expected.append(scene.name)
        elif trouble:
            told.troubles.append(trouble)

    await for_each(first, scenes(), AT_ONCE)
    await for_each(second, again, 4)
    return told
