"""Read requests and write answers as the REST layer does: bodies, charsets, the schema of an answer."""

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from bulkimg.sandbox import refusals
from bulkimg.sandbox.inventory import IMAGE, IMAGE_REF, TAGS

CONTEXT = "/zstack"
_SESSION = "org.zstack.header.identity.SessionInventory"


def path_of(request: web.Request) -> str:
    """Return the path as the API knows it, without the servlet's context."""
    return request.path.removeprefix(CONTEXT)


def scope_of(request: web.Request) -> str:
    """Return which faults may apply to the request."""
    if request.path.endswith("/accounts/login"):
        return "login"
    if "/api-jobs/" in request.path:
        return "poll"
    return "query" if request.method == "GET" else "put"


def schema_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the Java class of each part of an answer. The vendor's Java SDK types its results by it."""
    schema: dict[str, str] = {}
    for path, row in [("inventory", body.get("inventory"))] + [
        (f"inventories[{at}]", row) for at, row in enumerate(body.get("inventories", ()))
    ]:
        if row is None:
            continue
        if "mediaType" in row:
            schema |= schema_of_row(path, row, IMAGE.java)
        else:
            schema[path] = TAGS[row["type"]].java if "tag" in row else _SESSION
    return schema


def schema_of_row(path: str, row: Mapping[str, Any], java: str) -> dict[str, str]:
    """Return the class of a row and of its refs."""
    refs = range(len(row.get("backupStorageRefs", ())))
    return {path: java} | {f"{path}.backupStorageRefs[{at}]": IMAGE_REF.java for at in refs}


def read_body(request: web.Request, raw: bytes) -> dict[str, Any]:
    """Read the body like the servlet: ISO-8859-1 unless the Content-Type names a charset (docs/dev/protocol.md §1)."""
    try:
        text = raw.decode(request.charset or "latin-1")
        body = json.loads(text)
    except (ValueError, LookupError, RecursionError) as error:
        raise refusals.PlainRefusal(500, f"com.google.gson.JsonSyntaxException: {type(error).__name__}") from None
    if not isinstance(body, dict):
        raise refusals.PlainRefusal(500, "com.google.gson.JsonSyntaxException: Expected BEGIN_OBJECT")
    return body


def read_params(request: web.Request, raw: bytes) -> dict[str, Any]:
    """Return the object in `params`."""
    params = read_body(request, raw).get("params")
    return params if isinstance(params, dict) else {}


def as_json(body: Mapping[str, Any], status: int = 200) -> web.Response:
    """Return an answer without a Content-Type (see `no_content_type`)."""
    return web.Response(status=status, body=json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))


async def no_content_type(_: web.Request, response: web.StreamResponse) -> None:
    """Remove the Content-Type: the real server sends none (docs/dev/protocol.md §1), and a client must not need one."""
    if response.content_type != "application/json":
        response.headers.pop("Content-Type", None)
