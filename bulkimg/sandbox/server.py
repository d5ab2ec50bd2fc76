"""This file is the HTTP side of the sandbox: routes, what the REST layer checks, the log of requests."""

import asyncio
import json
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from aiohttp import web

from bulkimg.sandbox import refusals
from bulkimg.sandbox.faults import Fault, Faults
from bulkimg.sandbox.generate import make_images
from bulkimg.sandbox.images import ImageTable, read_message, validate
from bulkimg.sandbox.jobs import Capacity, Jobs
from bulkimg.sandbox.options import Options
from bulkimg.sandbox.query import Table, run_query, without_nulls
from bulkimg.sandbox.sessions import Identity

CONTEXT = "/zstack"
_NODE = "http://172.20.0.2:8080"  # the management node's own address, which clients cannot reach
_LOGGED = 1_000_000  # requests
_IMAGE = "org.zstack.header.image.ImageInventory"
_IMAGE_REF = "org.zstack.header.image.ImageBackupStorageRefInventory"
_SESSION = "org.zstack.header.identity.SessionInventory"
_VALIDATE_ONLY = "ephemeral::validationOnly"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Sandbox:
    """One practice server: its images, sessions, jobs, faults and log."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.table = ImageTable(make_images(options.images, options.seed), _now)
        self.identity = Identity(options.seed, options.session_timeout, time.monotonic, _now)
        self.jobs = Jobs(time.monotonic)
        self.faults = Faults(options.faults, options.seed)
        self.capacity = Capacity(options.workers, options.service_time_ms / 1000)
        self.log: deque[dict[str, Any]] = deque(maxlen=_LOGGED)
        self._key = "updateimage" if options.dialect == "documented" else "updateImage"

    def app(self) -> web.Application:
        """The application; every path the API does not have gets the server's own 404."""
        app = web.Application(client_max_size=16 << 20, middlewares=[self._all])
        v1 = f"{CONTEXT}/v1"
        app.router.add_put(f"{v1}/images/{{uuid}}/actions", self.update)
        app.router.add_route("*", "/_sandbox/requests", self.show_log)
        app.router.add_get("/_sandbox/images", self.show_images)
        app.router.add_put(f"{v1}/accounts/login", self.login)
        app.router.add_delete(f"{v1}/accounts/sessions/{{uuid}}", self.logout)
        app.router.add_get(f"{v1}/api-jobs/{{uuid}}", self.poll)
        if not self.options.only_update:
            app.router.add_get(f"{v1}/images", self.query_images)
            app.router.add_get(f"{v1}/images/{{uuid}}", self.get_image)
            app.router.add_get(f"{v1}/accounts/sessions/{{uuid}}/valid", self.validate_session)
            app.router.add_put(f"{v1}/accounts/sessions/{{uuid}}/renew", self.renew_session)
            for kind in ("user", "system"):
                app.router.add_post(f"{v1}/{kind}-tags", self.create_tag)
                app.router.add_get(f"{v1}/{kind}-tags", self.query_tags)
            app.router.add_post(f"{v1}/system-tags/{{resource}}/tags", self.create_system_tags)
            app.router.add_put(f"{v1}/system-tags/{{uuid}}/actions", self.change_tag)
            app.router.add_delete(f"{v1}/tags/{{uuid}}", self.delete_tag)
        app.on_response_prepare.append(_no_content_type)
        app.on_cleanup.append(lambda _: self.jobs.close())
        return app

    # -- every request --------------------------------------------------------------------------------------------------

    @web.middleware
    async def _all(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Log first, then meet the fault, then act; refusals become what the server would answer."""
        if request.path.startswith("/_sandbox/"):
            return await handler(request)
        body = await request.read()
        self._note(request, body)
        fault = self.faults.draw(_scope(request))
        if fault and (answer := await self._before(fault, request)) is not None:
            return answer
        answer = await self._act(request, handler)
        return await self._after(fault, request, answer) if fault else answer

    async def _act(self, request: web.Request, handler: Handler) -> web.Response:
        try:
            answer = await handler(request)
            assert isinstance(answer, web.Response)
        except refusals.Refusal as refusal:
            return _json(refusal.body, 503)
        except refusals.PlainRefusal as refusal:
            return web.Response(status=refusal.status, text=str(refusal))
        except web.HTTPMethodNotAllowed:
            if "/api-jobs/" in request.path:
                return web.Response(status=405, text="only GET method is allowed for querying job status")
            return self._unmatched(request)
        except web.HTTPNotFound:
            return self._unmatched(request)
        return answer

    @staticmethod
    def _unmatched(request: web.Request) -> web.Response:
        refusal = refusals.no_mapping(request.path.removeprefix(CONTEXT))
        return web.Response(status=refusal.status, text=str(refusal))

    def _note(self, request: web.Request, body: bytes) -> None:
        self.log.append(
            {
                "at": time.time(),
                "method": request.method,
                "path": request.path,
                "query": request.query_string,
                "job_uuid": request.headers.get("X-Job-UUID"),
                "content_type": request.headers.get("Content-Type"),
                "authorization": (request.headers.get("Authorization") or "").partition(" ")[0],
                "body": body.decode("utf-8", "replace") if "/accounts/" not in request.path else "(not kept)",
            }
        )

    async def _before(self, fault: Fault, request: web.Request) -> web.StreamResponse | None:
        if fault.kind == "reset-before":
            _reset(request)
            return web.Response()
        if fault.kind == "429":
            return web.Response(status=429, text="too many requests", headers={"Retry-After": f"{fault.argument:g}"})
        if fault.kind in ("500", "502", "503"):
            return web.Response(status=int(fault.kind), text="<html><body>the proxy is not well</body></html>")
        if fault.kind == "expire":
            self.identity.expire_all()
        return None

    @staticmethod
    async def _after(fault: Fault, request: web.Request, answer: web.Response) -> web.StreamResponse:
        if fault.kind == "reset-after":
            _reset(request)
        elif fault.kind == "slow":
            await asyncio.sleep(fault.argument)
        elif fault.kind == "drop" and request.transport:
            asyncio.get_running_loop().call_later(0.01, request.transport.close)
        elif fault.kind == "truncate":
            whole = answer.body if isinstance(answer.body, bytes) else b""
            cut = web.StreamResponse(status=answer.status, headers={"Content-Length": str(len(whole) + 10)})
            await cut.prepare(request)
            await cut.write(whole[: len(whole) // 2])
            if request.transport:
                request.transport.close()
            return cut
        return answer

    # -- images ---------------------------------------------------------------------------------------------------------

    async def update(self, request: web.Request) -> web.Response:
        """UpdateImage in the sandbox's dialect."""
        uuid = request.match_info["uuid"]
        body = _body(request, await request.read())
        if self._key not in body:
            raise refusals.no_action(_path(request))
        session = self.identity.read_authorization(request.headers, "PUT", _path(request))
        inner = {} if body[self._key] is None else body[self._key]
        if not isinstance(inner, dict):
            raise refusals.PlainRefusal(500, "java.lang.String cannot be cast to java.util.Map")
        message = read_message(inner)
        for name in ("systemTags", "userTags"):
            if not isinstance(body.get(name, inner.get(name)) or [], list):
                raise refusals.PlainRefusal(500, "java.lang.String cannot be cast to java.util.List")
        only_validate = _VALIDATE_ONLY in (body.get("systemTags") or inner.get("systemTags") or [])
        asked = {name: body.get(name) or inner.get(name) or [] for name in ("userTags", "systemTags")}
        tags = asked if self.options.dialect == "documented" else {}  # which real servers ignore (PROTOCOL.md §6)
        work = self._update(uuid, message, session, tags, only_validate=only_validate)
        if self.options.dialect == "documented":
            return _json(await work)
        job = self.jobs.start(request.headers.get("X-Job-UUID"), work)
        return _json({"location": f"{_NODE}{CONTEXT}/v1/api-jobs/{job}", "apiTimeout": 1800000}, 202)

    async def _update(
        self,
        uuid: str,
        message: Mapping[str, Any],
        session: str | None,
        tags: Mapping[str, list[Any]],
        *,
        only_validate: bool,
    ) -> dict[str, Any]:
        def load() -> dict[str, Any]:
            validate(message)  # field validation and existence come before the session check
            loaded = self.table.load(uuid)
            self.identity.use(session)
            return loaded

        def act(loaded: dict[str, Any]) -> dict[str, Any]:
            if only_validate:
                return {}
            image = self.table.store(loaded, message)
            for kind in ("User", "System"):
                has = {tag["tag"] for tag in self.table.tags.kinds[kind].having([uuid])}
                for text in dict.fromkeys(map(str, tags.get(f"{kind.lower()}Tags", ()))):
                    if text not in has:
                        self.table.tags.create(kind, uuid, text)
            shown = self.table.documented(image) if self.options.dialect == "documented" else without_nulls(image)
            return {"inventory": shown}

        return await self.capacity.serve(load, act)

    async def query_images(self, request: web.Request) -> web.Response:
        return self._query(request, self.table, _IMAGE, {"backupStorageRefs[0]": _IMAGE_REF})

    async def get_image(self, request: web.Request) -> web.Response:
        """Also answers `inventories`; a missing image is 200 with an empty list."""
        inner = {"backupStorageRefs[0]": _IMAGE_REF}
        return self._query(request, self.table, _IMAGE, inner, [f"uuid={request.match_info['uuid']}"])

    def _query(
        self, request: web.Request, table: Table, kind: str, inner: Mapping[str, str], conditions: Sequence[str] = ()
    ) -> web.Response:
        self.identity.use(self.identity.read_authorization(request.headers, "GET", _path(request)))
        parameters = {name: request.query.getall(name) for name in request.query}
        parameters["q"] = [*parameters.get("q", ()), *conditions]
        answer = run_query(table, parameters)
        schema = {}
        for at, row in enumerate(answer.get("inventories", ())):
            schema[f"inventories[{at}]"] = kind
            schema |= {
                f"inventories[{at}].{name}": type_ for name, type_ in inner.items() if name.partition("[")[0] in row
            }
        return _json(answer | {"schema": schema})

    # -- jobs -----------------------------------------------------------------------------------------------------------

    async def poll(self, request: web.Request) -> web.Response:
        """No authorization is asked for here, and none is looked at."""
        status, body = self.jobs.poll(request.match_info["uuid"])
        if status == 200 and "X-JSON-Schema" in request.headers and (schema := _schema(body)):
            body = body | {"schema": schema}
        return _json(body, status)

    async def _later(self, request: web.Request, act: Callable[[], dict[str, Any]]) -> web.Response:
        """Every call but GET and login is asynchronous."""
        session = self.identity.read_authorization(request.headers, request.method, _path(request))

        def checked(_: Any) -> dict[str, Any]:
            self.identity.use(session)
            return act()

        work = self.capacity.serve(lambda: None, checked)
        if self.options.dialect == "documented":
            return _json(await work)
        job = self.jobs.start(request.headers.get("X-Job-UUID"), work)
        return _json({"location": f"{_NODE}{CONTEXT}/v1/api-jobs/{job}", "apiTimeout": 1800000}, 202)

    # -- tags -----------------------------------------------------------------------------------------------------------

    async def create_tag(self, request: web.Request) -> web.Response:
        kind = "User" if "/user-tags" in request.path else "System"
        params = _params(request, await request.read())

        def act() -> dict[str, Any]:
            resource, text = str(params.get("resourceUuid")), str(params.get("tag"))
            self.table.load(resource)
            tag = self.table.tags.create(kind, resource, text)
            return {"inventory": tag} if tag else {}

        return await self._later(request, act)

    async def create_system_tags(self, request: web.Request) -> web.Response:
        resource = request.match_info["resource"]
        params = _params(request, await request.read())

        def act() -> dict[str, Any]:
            self.table.load(resource)
            made = [self.table.tags.create("System", resource, str(text)) for text in params.get("tags") or ()]
            return {"inventories": [tag for tag in made if tag]}

        return await self._later(request, act)

    async def change_tag(self, request: web.Request) -> web.Response:
        body = _body(request, await request.read())
        message = body.get("updateSystemTag")
        if not isinstance(message, dict):
            raise refusals.no_action(_path(request))
        uuid = request.match_info["uuid"]
        return await self._later(request, lambda: {"inventory": self.table.tags.change(uuid, str(message.get("tag")))})

    async def delete_tag(self, request: web.Request) -> web.Response:
        uuid = request.match_info["uuid"]

        def act() -> dict[str, Any]:
            self.table.tags.delete(uuid)
            return {}

        return await self._later(request, act)

    async def query_tags(self, request: web.Request) -> web.Response:
        kind = "User" if "/user-tags" in request.path else "System"
        return self._query(request, self.table.tags.kinds[kind], f"org.zstack.header.tag.{kind}TagInventory", {})

    # -- sessions -------------------------------------------------------------------------------------------------------

    async def login(self, request: web.Request) -> web.Response:
        """Synchronous. A wrong key is not a 400 here: the path is unique, so its fields are found missing."""
        message = _body(request, await request.read()).get("logInByAccount")
        inventory = self.identity.login(message if isinstance(message, dict) else {})
        answer: dict[str, Any] = {"inventory": inventory}
        if "X-JSON-Schema" in request.headers:
            answer["schema"] = _schema(answer)
        return _json(answer)

    async def logout(self, request: web.Request) -> web.Response:
        self.identity.logout(request.match_info["uuid"])
        return _json({})

    async def validate_session(self, request: web.Request) -> web.Response:
        return _json({"valid": self.identity.is_valid(request.match_info["uuid"])})

    async def renew_session(self, request: web.Request) -> web.Response:
        session = request.match_info["uuid"]

        def act() -> dict[str, Any]:
            self.identity.use(session)
            return {"inventory": self.identity.inventory(session)}

        return await self._later(request, act)

    # -- looking in -----------------------------------------------------------------------------------------------------

    async def show_log(self, request: web.Request) -> web.Response:
        """Every request so far, oldest first; DELETE empties it."""
        if request.method == "DELETE":
            self.log.clear()
        return web.json_response(list(self.log))

    async def show_images(self, request: web.Request) -> web.Response:
        """The image table by uuid, each image with its tags."""
        tags: dict[str, list[str]] = {}
        for tag in self.table.tags.rows.values():
            tags.setdefault(tag["resourceUuid"], []).append(tag["tag"])
        return web.json_response(
            {uuid: image | {"_tags": sorted(tags.get(uuid, ()))} for uuid, image in self.table.rows.items()}
        )


def _now() -> datetime:
    return datetime.now()


def _path(request: web.Request) -> str:
    return request.path.removeprefix(CONTEXT)


def _scope(request: web.Request) -> str:
    if request.path.endswith("/accounts/login"):
        return "login"
    if "/api-jobs/" in request.path:
        return "poll"
    return "query" if request.method == "GET" else "put"


def _schema(body: Mapping[str, Any]) -> dict[str, str]:
    """Which Java class each part of an answer is: the vendor's Java SDK types its results by it."""
    schema: dict[str, str] = {}
    for path, row in [("inventory", body.get("inventory"))] + [
        (f"inventories[{at}]", row) for at, row in enumerate(body.get("inventories", ()))
    ]:
        if row is None:
            continue
        if "mediaType" in row:
            schema |= {path: _IMAGE, f"{path}.backupStorageRefs[0]": _IMAGE_REF}
        else:
            schema[path] = f"org.zstack.header.tag.{row['type']}TagInventory" if "tag" in row else _SESSION
    return schema


def _body(request: web.Request, raw: bytes) -> dict[str, Any]:
    """The body as the servlet reads it: ISO-8859-1 unless the Content-Type names a charset (PROTOCOL.md §1)."""
    try:
        text = raw.decode(request.charset or "latin-1")
        body = json.loads(text)
    except (ValueError, LookupError, RecursionError) as error:
        raise refusals.PlainRefusal(500, f"com.google.gson.JsonSyntaxException: {type(error).__name__}") from None
    if not isinstance(body, dict):
        raise refusals.PlainRefusal(500, "com.google.gson.JsonSyntaxException: Expected BEGIN_OBJECT")
    return body


def _params(request: web.Request, raw: bytes) -> dict[str, Any]:
    params = _body(request, raw).get("params")
    return params if isinstance(params, dict) else {}


def _json(body: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))


async def _no_content_type(_: web.Request, response: web.StreamResponse) -> None:
    """The real server sets none (PROTOCOL.md §1); whoever parses by it finds out here."""
    if response.content_type != "application/json":
        response.headers.pop("Content-Type", None)


def _reset(request: web.Request) -> None:
    """End the connection with RST, so that the client sees a reset and not an end."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


async def serve(options: Options, ready: Callable[[Sandbox, str], None]) -> None:
    """Serve on 127.0.0.1 until INT or TERM. `ready` gets the sandbox and its URL once it listens. OSError: port in use."""
    sandbox = Sandbox(options)
    runner = web.AppRunner(sandbox.app(), access_log=None, handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        site = web.TCPSite(runner, "127.0.0.1", options.port, backlog=1024)
        await site.start()
        port = runner.addresses[0][1]
        ready(sandbox, f"http://127.0.0.1:{port}")
        await ended.wait()
    finally:
        await runner.cleanup()
