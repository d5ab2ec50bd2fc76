"""Build request bodies and signatures, and parse answers (docs/dev/protocol.md); no socket here."""

import base64
import hashlib
import hmac
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic_core import from_json, to_json
from yarl import URL

from bulkimg import __version__

TAG_LISTS = ("systemTags", "userTags")
DOCUMENTED_KEY = "updateimage"  # the vendor's page: docs/dev/protocol.md §0, [D]
SERVER_KEY = "updateImage"  # RestServer.java: exact and case-sensitive (docs/dev/protocol.md §1)

_CODE_NOISE = re.compile(r"[^A-Za-z0-9._-]|^[-]")
_HEX32 = re.compile(r"[0-9a-f]{32}")
_IMAGE_NAMED = re.compile(r"(?:/images/|image\[uuid:|resource\[uuid:)([0-9a-f]{32})(?![0-9a-f])")


class RequestWriter:
    """Write HTTP/1.1 requests to one origin and context path (`base`, such as http://host:8080/zstack) as bytes."""

    def __init__(self, base: str) -> None:
        url = URL(base)
        self._path = url.raw_path.rstrip("/")
        self._fixed = (
            f" HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\nUser-Agent: bulkimg/{__version__}\r\n"
            "Accept: application/json\r\nAccept-Encoding: identity\r\n"
        )

    def request(self, method: str, target: str, headers: str, body: bytes | None = None) -> bytes:
        """Return one request. `target` is path and query below the context path; `headers` are whole lines, each with its end."""
        if body is None:
            return f"{method} {self._path}{target}{self._fixed}{headers}\r\n".encode()
        length = f"Content-Length: {len(body)}\r\n\r\n"
        return f"{method} {self._path}{target}{self._fixed}{headers}{length}".encode() + body


def update_body(action_key: str, fields: Mapping[str, Any]) -> bytes:
    """`{"updateimage": {fields}, "systemTags": […], "userTags": […]}`; tags stand outside, as the page shows."""
    inner = {name: value for name, value in fields.items() if name not in TAG_LISTS}
    outer = {name: fields[name] for name in TAG_LISTS if name in fields}
    return _ascii_json({action_key: inner, **outer})


def tag_body(image: str, tag: str) -> bytes:
    """One new tag of one image (docs/dev/protocol.md §6, "Tags")."""
    return _ascii_json({"params": {"resourceType": "ImageVO", "resourceUuid": image, "tag": tag}})


def _ascii_json(body: Any) -> bytes:
    """JSON in ASCII: immune to a server that forgets the charset (docs/dev/protocol.md §1)."""
    raw = to_json(body)
    return raw if raw.isascii() else json.dumps(body, separators=(",", ":")).encode("ascii")


def login_body(account: str, password: str) -> bytes:
    """The password goes out as the lower-case hex of its SHA-512 (docs/dev/protocol.md §4)."""
    return _ascii_json({"logInByAccount": {"accountName": account, "password": password_hash(password)}})


def password_hash(password: str) -> str:
    """What stands for the password on the wire: as secret as the password."""
    return hashlib.sha512(password.encode("utf-8")).hexdigest()


def sign(secret: str, method: str, date: str, path: str) -> str:
    """The access-key signature: HMAC-SHA1 over method, date and the path without context path and query (§4)."""
    text = f"{method}\n{date}\n{path}".encode()
    return base64.b64encode(hmac.new(secret.encode("utf-8"), text, hashlib.sha1).digest()).decode("ascii")


def new_job_uuid(rng: random.Random) -> str:
    """A version 4 UUID without dashes, which is what X-Job-UUID takes (docs/dev/protocol.md §2.2)."""
    bits = rng.getrandbits(128) & ~(0xF000 << 64) & ~(0xC000 << 48) | (0x4000 << 64) | (0x8000 << 48)
    return f"{bits:032x}"


TURN_LOST = "TURN_LOST"  # the failure of a request that may not be sent any more when its connection is there


class Answer(NamedTuple):
    """What the wire said to one request: a complete HTTP answer, or why there is none.

    `status` is None when there is no complete answer; then `failure` names why, and `sent` says whether bytes may have
    gone out. It is never taken from an exception. `retry_after` is seconds from now, when the header said so; `quota` is
    (requests the server still takes, seconds until it takes more). `failure_id` is what the pace returned for it.
    It is judged as it came; what is kept of it is redacted first (redaction.py).
    `location` is where a redirect leads, which is never followed; `date` is the server's clock, as its header says.
    """

    status: int | None
    raw: bytes = b""
    retry_after: float | None = None
    quota: tuple[int, float] | None = None
    failure: str = ""
    detail: str = ""
    sent: bool = True
    failure_id: int = 0
    location: str = ""
    date: str = ""

    @property
    def text(self) -> str:
        """The beginning of the body, for a message."""
        return self.raw[:2048].decode("utf-8", "replace").replace("\0", " ").strip()

    def json(self) -> Any:
        """The body as JSON, or None where it is not exactly that (UTF-8, no NaN, no absurd depth or numbers)."""
        try:
            return from_json(self.raw, allow_inf_nan=False)
        except ValueError:
            return None


def foreign(answer: Answer) -> str:
    """What an answer says that does not come from the API: a redirect, or a page of a proxy or a login; "" for the API's own.

    It names the redirect's target and the page's title, printable, without secrets.
    """
    status = answer.status
    if status is None:
        return ""
    if 300 <= status < 400:
        to = f" to {printable(answer.location.partition('?')[0])[:300]}" if answer.location else ""
        return f"HTTP {status}, a redirect{to}"
    text = answer.text
    if text.startswith("<"):
        title = page_title(text)
        return f"HTTP {status}, a web page: {title!r}" if title else f"HTTP {status}, a web page"
    return ""


def page_title(html: str) -> str:
    """The title of a page, or the first words of its text."""
    title = re.search(r"<title[^>]*>(.*?)</title>", html, re.IGNORECASE | re.DOTALL)
    text = title[1] if title else re.sub(r"<[^>]*>", " ", html)
    return printable(" ".join(text.split())[:100])


def endpoint_hint(answer: Answer) -> str:
    """What to do about an answer that does not come from the API."""
    status = answer.status or 0
    if 300 <= status < 400:
        url = urlsplit(answer.location if answer.location.startswith(("http://", "https://")) else "")
        to = (
            f"use --endpoint {url.scheme}://{printable(url.netloc.rpartition('@')[2])}"
            if url.netloc
            else "fix --endpoint"
        )
        return f"{to}, unless that is a login page in front of the API"
    return {
        401: "check whether a proxy in front of the API needs a login of its own",
        403: "check that this account is allowed to do that, and that --endpoint is right",
        404: "check --endpoint and --base-path (/zstack on most servers)",
        405: "check --endpoint and --base-path (/zstack on most servers)",
    }.get(status, "check --endpoint, and whether a proxy or a login page is in front of the API")


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """ZStack's error object (docs/dev/protocol.md §3.1)."""

    code: str
    description: str
    details: str

    @property
    def text(self) -> str:
        """What it says, in one line of at most 500 characters."""
        said = self.details if self.details and self.details != self.description else ""
        return printable(" ".join(" — ".join(part for part in (self.description, said) if part).split())[:500])


def error_of(body: Any) -> ErrorCode | None:
    """The error object of `{"error": {"code": …}}`; its deepest `cause` does not matter to us."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str) or not error["code"]:
        return None
    return ErrorCode(
        _CODE_NOISE.sub("?", error["code"])[:64], _string(error.get("description")), _string(error.get("details"))
    )


def printable(text: str) -> str:
    """The text with what a terminal, a log or a spreadsheet might obey blanked: control and direction characters."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def inventory_of(body: Any) -> dict[str, Any] | None:
    """The one image of `{"inventory": {…}}` (an update's answer, a job's result)."""
    found = body.get("inventory") if isinstance(body, dict) else None
    return found if isinstance(found, dict) and "error" not in body else None


def inventories_of(body: Any) -> list[dict[str, Any]] | None:
    """The images of `{"inventories": […]}` (a query's answer; a single GET has the same shape)."""
    found = body.get("inventories") if isinstance(body, dict) else None
    return found if isinstance(found, list) and all(isinstance(item, dict) for item in found) else None


def job_of(body: Any) -> str | None:
    """The job's uuid: the last segment of a 202's `location`. Its host is never looked at (docs/dev/protocol.md §2.1)."""
    location = body.get("location") if isinstance(body, dict) else None
    if not isinstance(location, str):
        return None
    path, _, last = location.rpartition("/")
    return last if path.endswith("/v1/api-jobs") and _HEX32.fullmatch(last) else None


def session_of(body: Any) -> str | None:
    """The session's uuid in a login's answer."""
    inventory = inventory_of(body)
    uuid = inventory.get("uuid") if inventory else None
    return uuid if isinstance(uuid, str) and _HEX32.fullmatch(uuid) else None


def names_another(text: str, uuid: str) -> bool:
    """Whether an error's text is about images, and not about this one: an answer meant for another row."""
    found = _IMAGE_NAMED.findall(text)
    return bool(found) and uuid not in found
