"""The calls that create, change and delete tags, with the server's checks (docs/dev/protocol.md §6)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from bulkimg.sandbox import refusals
from bulkimg.sandbox.images import ImageTable
from bulkimg.sandbox.rest import CONTEXT, path_of, read_body, read_params
from bulkimg.sandbox.systemtags import check_system_tag

# Makes a job of two steps: the first runs before the session is checked, the second after it.
Later = Callable[[web.Request, Callable[[], None], Callable[[], dict[str, Any]]], Awaitable[web.Response]]


class TagCalls:
    """The routes of tags, over the image table."""

    def __init__(self, table: ImageTable, later: Later) -> None:
        self._table, self._tags, self._later = table, table.tags, later

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add all routes but the queries."""
        for kind in ("user", "system"):
            router.add_post(f"{CONTEXT}/v1/{kind}-tags", self.create)
        router.add_post(f"{CONTEXT}/v1/system-tags/{{resource}}/tags", self.create_several)
        router.add_put(f"{CONTEXT}/v1/system-tags/{{uuid}}/actions", self.change)
        router.add_delete(f"{CONTEXT}/v1/tags/{{uuid}}", self.delete)

    async def create(self, request: web.Request) -> web.Response:
        """Create one user tag or system tag."""
        kind = "User" if "/user-tags" in request.path else "System"
        params = read_params(request, await request.read())

        def act() -> dict[str, Any]:
            _check_type(params)
            text = str(params["tag"])
            if kind == "System":
                check_system_tag(text)
            tag = self._tags.create(kind, self._image(params["resourceUuid"]), text)
            return {"inventory": tag} if tag else {}

        return await self._later(request, lambda: self._check(params, "tag"), act)

    async def create_several(self, request: web.Request) -> web.Response:
        """Create system tags. None is created if one is refused."""
        resource = request.match_info["resource"]
        params = read_params(request, await request.read()) | {"resourceUuid": resource}

        def act() -> dict[str, Any]:
            _check_type(params)
            for text in params["tags"]:
                check_system_tag(str(text))
            made = [self._tags.create("System", self._image(resource), str(text)) for text in params["tags"]]
            return {"inventories": [tag for tag in made if tag]}

        return await self._later(request, lambda: self._check(params, "tags"), act)

    async def change(self, request: web.Request) -> web.Response:
        """Change a system tag's text."""
        message = read_body(request, await request.read()).get("updateSystemTag")
        if not isinstance(message, dict):
            raise refusals.no_action(path_of(request))
        uuid = request.match_info["uuid"]

        def check() -> None:
            if message.get("tag") is None:
                raise refusals.mandatory("tag")

        return await self._later(request, check, lambda: {"inventory": self._tags.change(uuid, str(message["tag"]))})

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a tag. It also succeeds for a tag that does not exist."""
        uuid = request.match_info["uuid"]

        def act() -> dict[str, Any]:
            self._tags.delete(uuid)
            return {}

        return await self._later(request, lambda: None, act)

    def _check(self, params: Mapping[str, Any], last: str) -> None:
        """Check that every field is there and the resource exists (APIAbstractCreateTagMsg.java:11-17)."""
        for field in ("resourceType", "resourceUuid", last):
            if params.get(field) is None:
                raise refusals.mandatory(field)
        if self._table.find(str(params["resourceUuid"])) is None:
            raise refusals.not_found("resourceUuid", str(params["resourceUuid"]), "ResourceVO")

    def _image(self, uuid: Any) -> str:
        """Return the image's uuid as the table has it."""
        return str(self._table.load(str(uuid))["uuid"])


def _check_type(params: Mapping[str, Any]) -> None:
    """Check the resource type: only images have tags here (TagApiInterceptor.java:77-80)."""
    if params["resourceType"] != "ImageVO":
        raise refusals.Refusal("SYS.1007", f"no resource type[{params['resourceType']}] found in tag system")
