"""Requests for the tests of the sandbox: a query, an update, any call that makes a job."""

import json
from typing import Any
from urllib.parse import quote

from tests.conftest import Server
from tests.sandbox.test_golden import call, oauth, poll

NO_COLUMN = "inventory class[class org.zstack.header.image.ImageInventory] not having field[{}]"


def ask(server: Server, query: str, what: str = "images") -> tuple[int, Any]:
    """Return the status and answer of `GET /v1/images?QUERY`. Blanks, `%` and similar characters need no quoting."""
    status, text, _ = call(server, "GET", f"/zstack/v1/{what}?{quote(query, safe='?=&,!~<>+')}", **oauth(server))
    return status, json.loads(text) if text.startswith("{") else text


def found(server: Server, *conditions: str, what: str = "images") -> list[str]:
    """Return the uuids that the conditions find, in their order."""
    query = "&".join(f"q={condition}" for condition in conditions)
    status, answer = ask(server, f"{query}&sort=uuid&limit=100000", what)
    assert status == 200, answer
    return [row["uuid"] for row in answer["inventories"]]


def refused(answered: tuple[int, Any]) -> tuple[str, str]:
    """Return the code and details of a refusal, which is always a 503."""
    status, answer = answered
    assert status == 503, answer
    return answer["error"]["code"], answer["error"]["details"]


def done(server: Server, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Return the result of a call, whether it was answered at once or by a job."""
    status, text, _ = call(server, method, f"/zstack/v1/{path}", body, **oauth(server))
    answer = json.loads(text)
    return poll(server, answer["location"].rsplit("/", 1)[1]) if status == 202 else (status, answer)


def create_tag(server: Server, kind: str, **params: Any) -> tuple[int, Any]:
    """Create an image's tag, or another `resourceType`'s. None leaves a parameter out."""
    given = {"resourceType": "ImageVO", **params}
    return done(server, "POST", f"{kind}-tags", {"params": {k: v for k, v in given.items() if v is not None}})
