"""The HTTP side of the sandbox: routes, calls of images and sessions, the log of requests."""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from bulkimg.sandbox import refusals, rest, trouble
from bulkimg.sandbox.faults import Faults
from bulkimg.sandbox.generate import make_images
from bulkimg.sandbox.images import ImageTable, read_message, validate
from bulkimg.sandbox.jobs import Capacity, Jobs
from bulkimg.sandbox.options import Options
from bulkimg.sandbox.query import Parameters, Table, one_row, run_query, without_nulls
from bulkimg.sandbox.rest import CONTEXT
from bulkimg.sandbox.sessions import Identity
from bulkimg.sandbox.systemtags import check_system_tag
from bulkimg.sandbox.tagcalls import TagCalls

_NODE = "http://172.20.0.2:8080"  # the management node's own address, which clients cannot reach
_LOGGED = 1_000_000  # requests
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
        """Return the application. A path that the API does not have gets the server's own 404."""
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
                app.router.add_get(f"{v1}/{kind}-tags", self.query_tags)
            TagCalls(self.table, self._later).add_routes(app.router)
        app.on_response_prepare.append(rest.no_content_type)
        app.on_cleanup.append(lambda _: self.jobs.close())
        return app

    # -- every request --------------------------------------------------------------------------------------------------

    @web.middleware
    async def _all(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Log the request, apply its fault, then execute it. Refusals become the server's answers."""
        if request.path.startswith("/_sandbox/"):
            return await handler(request)
        body = await request.read()
        self._note(request, body)
        fault = self.faults.draw(rest.scope_of(request))
        if fault and (instead := trouble.before(fault, request, self.identity)) is not None:
            return instead
        answer = await self._act(request, handler)
        return await trouble.after(fault, request, answer) if fault else answer

    async def _act(self, request: web.Request, handler: Handler) -> web.Response:
        try:
            answer = await handler(request)
            assert isinstance(answer, web.Response)
        except refusals.Refusal as refusal:
            return rest.as_json(refusal.body, 503)
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

    # -- images ---------------------------------------------------------------------------------------------------------

    async def update(self, request: web.Request) -> web.Response:
        """Execute UpdateImage in the sandbox's dialect."""
        uuid = request.match_info["uuid"]
        body = rest.read_body(request, await request.read())
        if self._key not in body:
            raise refusals.no_action(rest.path_of(request))
        session = self.identity.read_authorization(request.headers, "PUT", rest.path_of(request))
        inner = {} if body[self._key] is None else body[self._key]
        if not isinstance(inner, dict):
            raise refusals.PlainRefusal(500, "java.lang.String cannot be cast to java.util.Map")
        message = read_message(inner)
        for name in ("systemTags", "userTags"):
            if not isinstance(body.get(name, inner.get(name)) or [], list):
                raise refusals.PlainRefusal(500, "java.lang.String cannot be cast to java.util.List")
        only_validate = _VALIDATE_ONLY in (body.get("systemTags") or inner.get("systemTags") or [])
        asked = {name: body.get(name) or inner.get(name) or [] for name in ("userTags", "systemTags")}
        tags = (
            asked if self.options.dialect == "documented" else {}
        )  # which real servers ignore (docs/dev/protocol.md §6)
        work = self._update(uuid, message, session, tags, only_validate=only_validate)
        if self.options.dialect == "documented":
            return rest.as_json(await work)
        job = self.jobs.start(request.headers.get("X-Job-UUID"), work)
        return rest.as_json({"location": f"{_NODE}{CONTEXT}/v1/api-jobs/{job}", "apiTimeout": 1800000}, 202)

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
            validate(message)  # fields and existence are checked before the session
            for text in map(str, tags.get("systemTags", ())):
                if text != _VALIDATE_ONLY:
                    check_system_tag(text)
            loaded = self.table.load(uuid)
            self.identity.use(session)
            return loaded

        def act(loaded: dict[str, Any]) -> dict[str, Any]:
            if only_validate:
                return {}
            image = self.table.store(loaded, message)
            for kind in ("User", "System"):
                has = set(self.table.tags_of(kind, image["uuid"]))
                for text in dict.fromkeys(map(str, tags.get(f"{kind.lower()}Tags", ()))):
                    if text not in has:
                        self.table.tags.create(kind, image["uuid"], text)
            shown = self.table.documented(image) if self.options.dialect == "documented" else without_nulls(image)
            return {"inventory": shown}

        return await self.capacity.serve(load, act)

    async def query_images(self, request: web.Request) -> web.Response:
        return self._query(request, self.table, run_query)

    async def get_image(self, request: web.Request) -> web.Response:
        """Answer with `inventories`. A missing image is 200 with an empty list."""
        return self._query(request, self.table, lambda table, _: one_row(table, request.match_info["uuid"]))

    async def query_tags(self, request: web.Request) -> web.Response:
        kind = "User" if "/user-tags" in request.path else "System"
        return self._query(request, self.table.tags.kinds[kind], run_query)

    def _query(
        self, request: web.Request, table: Table, ask: Callable[[Table, Parameters], dict[str, Any]]
    ) -> web.Response:
        self.identity.use(self.identity.read_authorization(request.headers, "GET", rest.path_of(request)))
        answer = ask(table, {name: request.query.getall(name) for name in request.query})
        schema: dict[str, str] = {}
        for at, row in enumerate(answer.get("inventories", ())):
            schema |= rest.schema_of_row(f"inventories[{at}]", row, table.inventory.java)
        return rest.as_json(answer | {"schema": schema})

    # -- jobs -----------------------------------------------------------------------------------------------------------

    async def poll(self, request: web.Request) -> web.Response:
        """Answer a poll. No authorization is needed or checked here."""
        status, body = self.jobs.poll(request.match_info["uuid"])
        if status == 200 and "X-JSON-Schema" in request.headers and (schema := rest.schema_of(body)):
            body = body | {"schema": schema}
        return rest.as_json(body, status)

    async def _later(
        self, request: web.Request, check: Callable[[], None], act: Callable[[], dict[str, Any]]
    ) -> web.Response:
        """Start a job: every call but GET and login is asynchronous. `check` runs before the session is checked."""
        session = self.identity.read_authorization(request.headers, request.method, rest.path_of(request))

        def begin() -> None:
            check()
            self.identity.use(session)

        work = self.capacity.serve(begin, lambda _: act())
        if self.options.dialect == "documented":
            return rest.as_json(await work)
        job = self.jobs.start(request.headers.get("X-Job-UUID"), work)
        return rest.as_json({"location": f"{_NODE}{CONTEXT}/v1/api-jobs/{job}", "apiTimeout": 1800000}, 202)

    # -- sessions -------------------------------------------------------------------------------------------------------

    async def login(self, request: web.Request) -> web.Response:
        """Log in, synchronously. A wrong key is not a 400 here: the path is unique, so its fields are found missing."""
        message = rest.read_body(request, await request.read()).get("logInByAccount")
        inventory = self.identity.login(message if isinstance(message, dict) else {})
        answer: dict[str, Any] = {"inventory": inventory}
        if "X-JSON-Schema" in request.headers:
            answer["schema"] = rest.schema_of(answer)
        return rest.as_json(answer)

    async def logout(self, request: web.Request) -> web.Response:
        self.identity.logout(request.match_info["uuid"])
        return rest.as_json({})

    async def validate_session(self, request: web.Request) -> web.Response:
        return rest.as_json({"valid": self.identity.is_valid(request.match_info["uuid"])})

    async def renew_session(self, request: web.Request) -> web.Response:
        session = request.match_info["uuid"]

        def act() -> dict[str, Any]:
            self.identity.use(session)
            return {"inventory": self.identity.inventory(session)}

        return await self._later(request, lambda: None, act)

    # -- the log and the images -----------------------------------------------------------------------------------------

    async def show_log(self, request: web.Request) -> web.Response:
        """Return every request so far, oldest first. DELETE empties the log."""
        if request.method == "DELETE":
            self.log.clear()
        return web.json_response(list(self.log))

    async def show_images(self, request: web.Request) -> web.Response:
        """Return the image table by uuid, each image with its tags."""
        tags: dict[str, list[str]] = {}
        for tag in self.table.tags.rows.values():
            tags.setdefault(tag["resourceUuid"], []).append(tag["tag"])
        return web.json_response(
            {uuid: image | {"_tags": sorted(tags.get(uuid, ()))} for uuid, image in self.table.rows.items()}
        )


def _now() -> datetime:
    return datetime.now()


async def serve(options: Options, ready: Callable[[Sandbox, str], None]) -> None:
    """Serve on 127.0.0.1 until INT or TERM. Raises OSError if the port is in use.

    `ready` gets the sandbox and its URL once it listens.
    """
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
