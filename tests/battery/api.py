"""The image API as a server without a socket: a call goes in, a reply comes out (docs/dev/protocol.md §1-§6).

The witness, the simulated network and the scripted servers answer with it. They add faults, weather and sockets. It
imports nothing of bulkimg, and it shares nothing with the sandbox.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

ACCOUNT, PASSWORD = "admin", "password"
DOCUMENTED, ZSTACK = "documented", "zstack"
EITHER = "either"  # answers as documented, and takes both keys
KEYS = {DOCUMENTED: ("updateimage",), ZSTACK: ("updateImage",), EITHER: ("updateimage", "updateImage")}
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
_UUID = "([0-9a-fA-F]{32})"
_CALLS = [
    (method, re.compile(f"/zstack/v1/{path}"), kind)
    for method, path, kind in (
        ("PUT", f"images/{_UUID}/actions", "put"),
        ("GET", f"api-jobs/{_UUID}", "poll"),
        ("GET", f"images/{_UUID}", "read"),
        ("GET", "images()", "query"),
        ("GET", "(?:user|system)-tags()", "tags"),
        ("PUT", "accounts/login()", "login"),
        ("DELETE", f"accounts/sessions/{_UUID}", "logout"),
    )
]
_CONDITION = re.compile(r"(\w+)(\?=|=|>)(.*)")

Row = dict[str, Any]  # of an image or a tag


@dataclass(frozen=True)
class Call:
    """A received request. `number`: which one of its server it was."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    number: int = 0

    @classmethod
    def of(cls, method: str, target: str, headers: Mapping[str, str], body: bytes, number: int = 0) -> "Call":
        path, _, query = target.partition("?")
        return cls(method, path, query, {name.lower(): value for name, value in headers.items()}, body, number)

    @cached_property
    def _what(self) -> tuple[str, str]:
        for method, pattern, kind in _CALLS:
            if method == self.method and (found := pattern.fullmatch(self.path)):
                return kind, found[1]
        return "other", ""

    @property
    def kind(self) -> str:
        """Return put, poll, read, query, tags, login, logout, or other."""
        return self._what[0]

    @property
    def uuid(self) -> str:
        """Return the uuid of the image, the job or the session; "" if the path has none."""
        return self._what[1]

    @property
    def asked(self) -> dict[str, list[str]]:
        return parse_qs(self.query)

    @property
    def job(self) -> str:
        return self.headers.get("x-job-uuid", "")

    @property
    def authorization(self) -> tuple[str, str]:
        """(scheme, credential)."""
        scheme, _, credential = self.headers.get("authorization", "").partition(" ")
        return scheme, credential.strip()

    @cached_property
    def document(self) -> Any:
        return _parsed(self.body)

    def fields(self, keys: Iterable[str] = KEYS[EITHER]) -> Row | None:
        """Return the object under one of the keys of the body."""
        said = self.document if isinstance(self.document, dict) else {}
        return next((said[key] for key in keys if isinstance(said.get(key), dict)), None)

    @property
    def wanted(self) -> Row:
        return self.fields() or {}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before it is bytes."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, status: int, document: Any) -> "Reply":
        return cls(status, json.dumps(document).encode())

    @classmethod
    def text(cls, status: int, text: str, kind: str = "text/plain") -> "Reply":
        return cls(status, text.encode(), {"Content-Type": kind})

    @property
    def document(self) -> Any:
        return _parsed(self.body)

    def head(self, *, length: bool = True, **more: str) -> bytes:
        headers = {**self.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        if length:
            headers.setdefault("Content-Length", str(len(self.body)))
        return status_line(self.status) + b"".join(f"{k}: {v}\r\n".encode() for k, v in headers.items()) + b"\r\n"

    def wire(self) -> bytes:
        return self.head() + self.body


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def status_line(status: int) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unheard Of"
    return f"HTTP/1.1 {status} {reason}\r\n".encode()


# ---------------------------------------------------------------------------------------------------------- answers


def error(code: str, details: str, status: int = 503, description: str = "") -> Reply:
    said = description or DESCRIPTIONS.get(code, "An operation error happened")
    return Reply.of(status, {"error": {"code": code, "description": said, "details": details}})


def session_dead() -> Reply:
    return error("ID.1001", "Session expired")


def accepted(job: str) -> Reply:
    """Return the answer to a request that became a job. Its location names a host that clients cannot reach."""
    return Reply.of(202, {"location": f"http://172.20.0.2:8080/zstack/v1/api-jobs/{job}"})


def job_unknown() -> Reply:
    return Reply.text(404, "the job has been expired")


def inventory(uuid: str, fields: Mapping[str, Any]) -> Reply:
    return Reply.of(200, {"inventory": {**fields, "uuid": uuid}})


def inventories(rows: Iterable[Mapping[str, Any]], **more: Any) -> Reply:
    return Reply.of(200, {"inventories": list(rows), **more})


# ---------------------------------------------------------------------------------------------------------- the server


def stored(value: Any) -> Any:
    return value.strip(ONLY_THROUGH_SPACE) if isinstance(value, str) else value


def as_applied(fields: Mapping[str, Any]) -> Row:
    """Return the changed values of an image: known fields that are not null, trimmed. Everything else is ignored."""
    return {name: stored(value) for name, value in fields.items() if name in (*TEXTS, *FLAGS) and value is not None}


def select(rows: Iterable[Row], asked: Mapping[str, list[str]]) -> list[Row]:
    """Return the rows that meet all conditions, from `start`, at most `limit`."""
    for text in asked.get("q", ()):
        found = _CONDITION.fullmatch(text)
        assert found, f"a condition that this server does not know: {text}"
        name, sign, value = found.groups()
        if sign == ">":
            rows = [row for row in rows if row[name] > value]
        else:
            among = set(value.split(",")) if sign == "?=" else {value}
            rows = [row for row in rows if row.get(name) in among]
    if "sort" in asked:
        rows = sorted(rows, key=lambda row: str(row[asked["sort"][0]]))
    start = int(asked.get("start", ["0"])[0])
    return list(rows)[start : start + int(asked.get("limit", ["1000"])[0])]


@dataclass
class Job:
    """A job of the zstack dialect. Without a reply it is still running."""

    call: Call
    reply: Reply | None = None


@dataclass
class Api:
    """A healthy server. Whoever has faults answers instead of it, or overrides `apply`."""

    dialect: str = EITHER
    table: dict[str, Row] = field(default_factory=dict)
    tags: dict[str, dict[str, Row]] = field(default_factory=dict)  # by the path of their kind, then by uuid
    sessions: set[str] | None = None  # None: every credential is good
    accounts: Mapping[str, str] | None = None  # passwords; None: everyone may log in
    new_session: Callable[[], str] = lambda: "a" * 32
    unseen: Row | None = None  # what images show that are not in the table; None: there are none
    jobs: dict[str, Job] = field(default_factory=dict)

    def answer(self, call: Call) -> Reply:
        """Execute the call."""
        match call.kind:
            case "put":
                return self.refusal(call) or (self.accept if self.dialect == ZSTACK else self.execute)(call)
            case "poll" if self.dialect != DOCUMENTED:
                return self.poll(call.uuid)
            case "read":
                image = self.image(call.uuid)
                return self._unauthorised(call) or inventories([image] if image else [])
            case "query" | "tags":
                return self._unauthorised(call) or self._query(call)
            case "login":
                return self._login(call)
            case "logout":
                (self.sessions or set()).discard(call.uuid)
                return Reply.of(200, {})
        return Reply.text(404, f"no api mapping to {call.path.removeprefix('/zstack')}")

    def image(self, uuid: str) -> Row | None:
        if self.unseen is not None:
            self.table.setdefault(uuid, {"uuid": uuid, **self.unseen})
        return self.table.get(uuid)

    def wanted(self, call: Call) -> Row | None:
        """Return the fields of a PUT under the dialect's key."""
        return call.fields(KEYS[self.dialect])

    # -- changes --------------------------------------------------------------------------------------------------------

    def refusal(self, call: Call) -> Reply | None:
        """Return why a PUT is not even tried."""
        unauthorised = self._unauthorised(call)
        if unauthorised and unauthorised.status == 400:
            return unauthorised
        if self.wanted(call) is None:
            url = call.path.removeprefix("/zstack")
            return Reply.text(400, f"the body doesn't contain action mapping to the URL[{url}]")
        if self.dialect == ZSTACK and len(call.job) != 32:
            return Reply.text(400, "Invalid header[X-Job-UUID], it must be a UUID with '-' stripped")
        if self.dialect == ZSTACK and call.job in self.jobs:
            return Reply.text(400, f"Duplicate job uuid[{call.job}]")
        return None

    def accept(self, call: Call, *, executes: bool = True) -> Reply:
        """Make a job of the call."""
        self.jobs[call.job] = Job(call, self.execute(call) if executes else None)
        return accepted(call.job)

    def execute(self, call: Call) -> Reply:
        """Validate, then check the session, then apply, as the real server does (docs/dev/protocol.md §1)."""
        return self._invalid(call) or self._unauthorised(call) or self.apply(call)

    def apply(self, call: Call) -> Reply:
        """Change the image. No call changes it in another way."""
        image = self.table[call.uuid]
        image.update(as_applied(self.wanted(call) or {}))
        return inventory(call.uuid, image)

    def _invalid(self, call: Call) -> Reply | None:
        if not self.image(call.uuid):
            return error("SYS.1003", f"invalid field[uuid], resource[uuid:{call.uuid}, type:ImageVO] not found")
        for name, value in (self.wanted(call) or {}).items():
            if name in CHOICES and stored(value) not in CHOICES[name]:
                return error("SYS.1007", f"valid value for field[{name}] are {CHOICES[name]}, but {value} found")
            if name in TEXTS and isinstance(value, str) and len(stored(value).encode("utf-16-le")) // 2 > TEXTS[name]:
                return error("SYS.1007", f"field[{name}] exceeds max length of string")
        return None

    # -- questions and sessions -----------------------------------------------------------------------------------------

    def _unauthorised(self, call: Call) -> Reply | None:
        if self.sessions is None:
            return None
        scheme, credential = call.authorization
        if not scheme:
            return Reply.text(400, "missing header 'Authorization'")
        if scheme != "OAuth":
            return Reply.text(400, "Authorization type must be 'OAuth'")
        return None if credential in self.sessions else session_dead()

    def poll(self, uuid: str) -> Reply:
        job = self.jobs.get(uuid)
        return (job.reply or Reply.of(202, {})) if job else job_unknown()

    def _query(self, call: Call) -> Reply:
        asked = call.asked
        for text in asked.get("q", ()):
            if call.kind == "query" and text.startswith("uuid?="):
                for uuid in text.removeprefix("uuid?=").split(","):
                    self.image(uuid)
        rows = self.table if call.kind == "query" else self.tags.get(call.path.rpartition("/")[2], {})
        found = select(rows.values(), asked)
        names = asked["fields"][0].split(",") if "fields" in asked else None
        if names and "platform" in names and any("platform" not in row for row in found):
            # A real server calls toString() on the null (ZQLMetadata.java:96-97). Without `fields`, whole images are
            # answered.
            why = "org.zstack.header.exception.CloudRuntimeException: java.lang.NullPointerException"
            return error("SYS.1000", why)
        total = {"total": len(found)} if "replyWithCount" in asked else {}
        return inventories(({name: row[name] for name in names or row if name in row} for row in found), **total)

    def _login(self, call: Call) -> Reply:
        said = call.fields(("logInByAccount",)) or {}
        known = {} if self.accounts is None else self.accounts
        right = hashlib.sha512(known.get(str(said.get("accountName")), "").encode()).hexdigest()
        if self.accounts is not None and said.get("password") != right:
            return error("ID.1000", "wrong account name or password")
        session = self.new_session()
        if self.sessions is not None:
            self.sessions.add(session)
        return Reply.of(200, {"inventory": {"uuid": session, "expiredDate": "Jan 1, 2036 11:31:06 AM"}})
