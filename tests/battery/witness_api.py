"""The witness's API: images, sessions and jobs, in both dialects (docs/dev/protocol.md §1-§6).

Every change of the table goes through `Api.apply`, which writes it to the witness's log. So what was applied is known
and not concluded.
"""

import asyncio
import hashlib
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.battery.witness_wire import Reply, Request

ACCOUNT, PASSWORD = "admin", "password"
ONLY_THROUGH_SPACE = "".join(map(chr, range(33)))  # Java's trim
TEXTS = {"name": 255, "description": 2048, "guestOsType": 255, "mediaType": 255, "format": 255, "platform": 255,
         "architecture": 32}  # fmt: skip
FLAGS = ("system", "virtio")
CHOICES = {
    "mediaType": ("RootVolumeTemplate", "DataVolumeTemplate", "ISO"),
    "format": ("raw", "qcow2", "iso"),
    "platform": ("Linux", "Windows", "Other", "Paravirtualization", "WindowsVirtio"),
    "architecture": ("x86_64", "aarch64", "mips64el", "loongarch64"),
}
DESCRIPTIONS = {
    "SYS.1000": "An internal error happened in system",
    "SYS.1003": "A resource can not be found",
    "SYS.1007": "One or more API argument is invalid",
    "ID.1000": "Unable to authenticate a user",
    "ID.1001": "The session is invalid, either wrong session id or the session has been expired",
}
ACTIONS = re.compile(r"/zstack/v1/images/([0-9a-fA-F]{32})/actions")
IMAGE = re.compile(r"/zstack/v1/images/([0-9a-fA-F]{32})")
JOB = re.compile(r"/zstack/v1/api-jobs/([0-9a-f]{32})")
SESSION = re.compile(r"/zstack/v1/accounts/sessions/([0-9a-f]{32})")


def error(code: str, details: str, status: int = 503) -> Reply:
    said = {"code": code, "description": DESCRIPTIONS.get(code, "An operation error happened"), "details": details}
    return Reply.of(status, {"error": said})


def session_dead() -> Reply:
    return error("ID.1001", "Session expired")


def make_table(count: int, seed: int) -> dict[str, dict[str, Any]]:
    """Make the table. Every fifteenth image is a data volume: null platform, architecture and guestOsType (§5.2)."""
    rng = random.Random(f"images {seed}")
    uuids = [f"{rng.getrandbits(128):032x}" for _ in range(count)]
    table = {
        uuid: {
            "uuid": uuid, "name": f"image-{n}", "description": "", "guestOsType": "Linux", "platform": "Other",
            "mediaType": "RootVolumeTemplate", "format": "qcow2", "architecture": "x86_64", "system": False,
            "virtio": True, "state": "Enabled", "status": "Ready", "type": "zstack", "size": 1 << 30,
            "createDate": "Apr 27, 2026 3:10:09 PM", "lastOpDate": "Apr 27, 2026 3:10:09 PM",
        }
        for n, uuid in enumerate(uuids)
    }  # fmt: skip
    for uuid in uuids[7::15]:
        for name in ("platform", "architecture", "guestOsType"):
            del table[uuid][name]
        table[uuid] |= {"mediaType": "DataVolumeTemplate", "virtio": False}
    return table


@dataclass(slots=True)
class Job:
    """A job of the zstack dialect. `forced` is set by a fault: missing, stuck."""

    uuid: str
    image: str
    result: Reply | None = None
    forced: str = ""


@dataclass
class Api:
    """The server above HTTP. `note` writes a line to the log."""

    dialect: str
    images: int
    seed: int
    workers: int
    service: float  # seconds
    note: Callable[..., None]
    table: dict[str, dict[str, Any]] = field(default_factory=dict)
    before: dict[str, dict[str, Any]] = field(default_factory=dict)  # the table before any change
    sessions: set[str] = field(default_factory=set)
    jobs: dict[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(f"sessions {self.seed}")
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(self.workers)
        self.session = self.new_session()
        self.reset()

    def reset(self) -> None:
        self.table = make_table(self.images, self.seed)
        self.before = {uuid: dict(image) for uuid, image in self.table.items()}
        self.jobs.clear()
        self.sessions.add(self.session)

    def new_session(self) -> str:
        session = f"{self._rng.getrandbits(128):032x}"
        self.sessions.add(session)
        return session

    async def answer(self, request: Request, number: int) -> Reply:
        """Execute the request and return a healthy server's answer."""
        path = request.path
        if request.method == "PUT" and (found := ACTIONS.fullmatch(path)):
            return await self._update(request, found[1], number)
        if request.method == "GET" and (found := JOB.fullmatch(path)) and self.dialect == "zstack":
            return self._poll(found[1])
        if request.method == "GET" and (found := IMAGE.fullmatch(path)):
            return self._authorised(request) or self._images([found[1]])
        if request.method == "GET" and path == "/zstack/v1/images":
            return self._authorised(request) or self._query(request)
        if request.method == "PUT" and path == "/zstack/v1/accounts/login":
            return self._login(request)
        if request.method == "DELETE" and (found := SESSION.fullmatch(path)):
            self.sessions.discard(found[1])
            return Reply.of(200, {})
        return Reply.text(404, f"no api mapping to {path.removeprefix('/zstack')}")

    def _authorised(self, request: Request) -> Reply | None:
        scheme, credential = request.authorization
        if not scheme:
            return Reply.text(400, "missing header 'Authorization'")
        if scheme != "OAuth":
            return Reply.text(400, "Authorization type must be 'OAuth'")
        return None if credential in self.sessions else session_dead()

    def wanted(self, request: Request) -> dict[str, Any] | None:
        """Return the fields under the dialect's action key."""
        try:
            body = json.loads(request.body)
        except ValueError:
            return None
        fields = body.get("updateImage" if self.dialect == "zstack" else "updateimage") if isinstance(body, dict) else 0
        return fields if isinstance(fields, dict) else None

    async def _update(self, request: Request, uuid: str, number: int) -> Reply:
        plain = request.path.removeprefix("/zstack")
        fields, refusal = self.wanted(request), self._authorised(request)
        if refusal and refusal.status == 400:
            return refusal
        if fields is None:
            return Reply.text(400, f"the body doesn't contain action mapping to the URL[{plain}]")
        if self.dialect == "documented":
            await self._work()
            return self.execute(uuid, fields, number, request)
        if len(request.job) != 32:
            return Reply.text(400, "Invalid header[X-Job-UUID], it must be a UUID with '-' stripped")
        if request.job in self.jobs:
            return Reply.text(400, f"Duplicate job uuid[{request.job}]")
        return self.accept(uuid, fields, number, request)

    def accept(self, uuid: str, fields: dict[str, Any], number: int, request: Request, forced: str = "") -> Reply:
        """Make a job of the request: 202, and its result later."""
        job = self.jobs[request.job] = Job(request.job, uuid, forced=forced)
        if forced != "stuck":
            if self.service:
                task = asyncio.get_running_loop().create_task(self._run(job, fields, number, request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                job.result = self.execute(uuid, fields, number, request)
        return Reply.of(202, {"location": f"http://172.20.0.2:8080/zstack/v1/api-jobs/{request.job}"})

    async def _run(self, job: Job, fields: dict[str, Any], number: int, request: Request) -> None:
        await self._work()
        job.result = self.execute(job.image, fields, number, request)

    async def _work(self) -> None:
        if self.service:
            async with self._turn:
                await asyncio.sleep(self.service)

    def execute(self, uuid: str, fields: dict[str, Any], number: int, request: Request) -> Reply:
        """Validate, then check the session, then apply, as the real server does (docs/dev/protocol.md §1)."""
        refused = self._invalid(uuid, fields) or self._authorised(request)
        return refused or self.apply(uuid, fields, number, request.job)

    def _invalid(self, uuid: str, fields: dict[str, Any]) -> Reply | None:
        if uuid not in self.table:
            return error("SYS.1003", f"invalid field[uuid], resource[uuid:{uuid}, type:ImageVO] not found")
        for name, value in fields.items():
            if name in CHOICES and stored(value) not in CHOICES[name]:
                return error("SYS.1007", f"valid value for field[{name}] are {CHOICES[name]}, but {value} found")
            if name in TEXTS and isinstance(value, str) and len(stored(value).encode("utf-16-le")) // 2 > TEXTS[name]:
                return error("SYS.1007", f"field[{name}] exceeds max length of string")
        return None

    def apply(self, uuid: str, fields: dict[str, Any], number: int, job: str) -> Reply:
        """Change the image and write it to the log. Nothing else changes images."""
        image = self.table[uuid]
        self.note("applied", request=number, uuid=uuid, job=job)
        image.update(as_applied(fields))
        image["lastOpDate"] = time.strftime("%b %d, %Y %I:%M:%S %p")
        return Reply.of(200, {"inventory": image})

    def _poll(self, uuid: str) -> Reply:
        job = self.jobs.get(uuid)
        if job is None or job.forced == "missing":
            return Reply.text(404, "the job has been expired")
        return job.result or Reply.of(202, {})

    def _images(self, uuids: list[str]) -> Reply:
        return Reply.of(200, {"inventories": [self.table[uuid] for uuid in uuids if uuid in self.table]})

    def _query(self, request: Request) -> Reply:
        asked = parse_qs(request.query)
        limit, start = int(asked.get("limit", ["1000"])[0]), int(asked.get("start", ["0"])[0])
        listed = [one.partition("?=")[2].split(",") for one in asked.get("q", ()) if one.startswith("uuid?=")]
        found = [uuid for uuid in self.table if all(uuid in uuids for uuids in listed)][start : start + limit]
        if "platform" in asked.get("fields", [""])[0].split(",") and any(
            "platform" not in self.table[u] for u in found
        ):
            # A real server calls toString() on the null (ZQLMetadata.java:96-97). Without `fields`, whole images are
            # answered.
            return error(
                "SYS.1000", "org.zstack.header.exception.CloudRuntimeException: java.lang.NullPointerException"
            )
        reply = self._images(found).document
        return Reply.of(200, {**reply, "total": len(found)} if "replyWithCount" in asked else reply)

    def _login(self, request: Request) -> Reply:
        try:
            said = json.loads(request.body)["logInByAccount"]
            right = (said["accountName"], said["password"]) == (ACCOUNT, hashlib.sha512(PASSWORD.encode()).hexdigest())
        except (ValueError, KeyError, TypeError):
            right = False
        if not right:
            return error("ID.1000", "wrong account name or password")
        return Reply.of(200, {"inventory": {"uuid": self.new_session(), "expiredDate": "Jan 1, 2036 11:31:06 AM"}})


def stored(value: Any) -> Any:
    return value.strip(ONLY_THROUGH_SPACE) if isinstance(value, str) else value


def as_applied(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the changed values of an image: known fields that are not null, trimmed. Everything else is ignored."""
    return {name: stored(value) for name, value in fields.items() if name in (*TEXTS, *FLAGS) and value is not None}
