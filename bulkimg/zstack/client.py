"""Call the image API: update, poll, read, query, tags. Every call returns an Answer; nothing here decides."""

from collections.abc import Callable, Collection, Sequence

from bulkimg.model import Claim, Fields
from bulkimg.zstack import wire
from bulkimg.zstack.auth import Auth
from bulkimg.zstack.redaction import Redactor
from bulkimg.zstack.transport import Transport
from bulkimg.zstack.wire import Answer

NOBODY = "0" * 32  # the uuid of no job and no image
TAG_PATHS = {"userTags": "/v1/user-tags", "systemTags": "/v1/system-tags"}
CONTENT_TYPE = "Content-Type: application/json;charset=UTF-8\r\n"


class ImageApi:
    """The API of one server. `action_key` is the spelling in use; `key_is_known` once a server has accepted it."""

    def __init__(self, transport: Transport, auth: Auth, action_key: str = "auto") -> None:
        self.auth = auth
        self.key_is_known = action_key != "auto"
        self.action_key = action_key if self.key_is_known else wire.DOCUMENTED_KEY
        self._transport = transport
        self._questions = [f"/v1/api-jobs/{NOBODY}", f"/v1/images/{NOBODY}"]

    @property
    def reached(self) -> bool:
        """Whether the server has answered anything yet."""
        return self._transport.reached

    @property
    def server_date(self) -> str:
        """The Date header of the latest answer; "" where there was none."""
        return self._transport.date

    def switch_key(self) -> bool:
        """Use the server's spelling from now on; False when it is in use already, or fixed, or the other one works."""
        if self.key_is_known or self.action_key == wire.SERVER_KEY:
            return False
        self.action_key = wire.SERVER_KEY
        return True

    async def admit(self) -> int:
        """Wait for the turn of one more request; the result is handed to `update`."""
        return await self._transport.admit()

    async def update(
        self, epoch: int, uuid: str, fields: Fields, job_uuid: str, begun: Callable[[], None] | None = None
    ) -> Answer:
        """`PUT /v1/images/{uuid}/actions` under a job uuid of ours (docs/dev/protocol.md §2.2), once it is admitted.

        `begun` is called right before its first byte.
        """
        path = f"/v1/images/{uuid}/actions"
        headers = f"{CONTENT_TYPE}X-Job-UUID: {job_uuid}\r\n{self.auth.headers('PUT', path)}"
        return await self._transport.send(
            epoch, "PUT", path, headers, wire.update_body(self.action_key, fields), begun=begun
        )

    async def update_plain(self, epoch: int, claim: Claim, begun: Callable[[], None] | None = None) -> Answer:
        """The same for a row without tags whose ASCII JSON the ledger has made."""
        path = f"/v1/images/{claim.uuid}/actions"
        headers = f"{CONTENT_TYPE}X-Job-UUID: {claim.job_uuid}\r\n{self.auth.headers('PUT', path)}"
        body = f'{{"{self.action_key}":{claim.text}}}'.encode()
        return await self._transport.send(epoch, "PUT", path, headers, body, begun=begun)

    @property
    def redactor(self) -> Redactor:
        """What knows the credentials that a server may echo."""
        return self._transport.redactor

    async def poll(self, job_uuid: str) -> Answer:
        """`GET /v1/api-jobs/{job}` on our own origin; the server asks for no credentials here, so none are sent."""
        return await self._transport.exchange("GET", f"/v1/api-jobs/{job_uuid}", headers=str)

    async def is_there(self) -> bool:
        """Whether a server answers at all, asked with what changes nothing and carries no credential.

        A proxy may fail at one kind of path and not at the other: where it can be reached, both are asked, the one
        that was answered last time first.
        """
        for path in tuple(self._questions):
            answer = await self._transport.exchange("GET", path, headers=str, probe=True)
            if answer.failure_id == 0 or answer.status == 500:  # some server may fail at a question that odd
                return True
            self._questions.reverse()
            if answer.failure == "NOT_CONNECTED":
                return False
        return False

    async def read(self, uuid: str) -> Answer:
        """`GET /v1/images/{uuid}`: the image as it is now."""
        path = f"/v1/images/{uuid}"
        return await self._transport.exchange("GET", path, headers=lambda: self.auth.headers("GET", path))

    async def query_images(self, conditions: Sequence[str], fields: Collection[str] | None, limit: int) -> Answer:
        """`GET /v1/images?q=…`: at most `limit` images that meet all conditions, by uuid, with the named fields, or all (§6)."""
        return await self._query("/v1/images", conditions, fields, limit)

    async def query_tags(self, kind: str, conditions: Sequence[str], limit: int) -> Answer:
        """`GET /v1/user-tags?q=…` or system-tags, by uuid. `kind` is the field of UpdateImage: userTags or systemTags."""
        images_only = ["resourceType=ImageVO", *conditions]
        return await self._query(TAG_PATHS[kind], images_only, ("uuid", "resourceUuid", "tag"), limit)

    async def _query(self, path: str, conditions: Sequence[str], fields: Collection[str] | None, limit: int) -> Answer:
        asked = [("q", condition) for condition in conditions]
        asked += [("limit", str(limit)), ("sort", "uuid")]
        if fields is not None:
            asked.append(("fields", ",".join(sorted(fields))))
        return await self._transport.exchange("GET", path, headers=lambda: self.auth.headers("GET", path), query=asked)

    async def create_tag(self, kind: str, image: str, tag: str, job_uuid: str) -> Answer:
        """`POST /v1/user-tags` or system-tags: asynchronous, like every change (§6)."""
        return await self._change("POST", TAG_PATHS[kind], job_uuid, wire.tag_body(image, tag))

    async def delete_tag(self, tag_uuid: str, job_uuid: str) -> Answer:
        """`DELETE /v1/tags/{uuid}`; a tag that is not there any more is deleted too."""
        return await self._change("DELETE", f"/v1/tags/{tag_uuid}", job_uuid, None)

    async def _change(self, method: str, path: str, job_uuid: str, body: bytes | None) -> Answer:
        def headers() -> str:
            return f"{CONTENT_TYPE}X-Job-UUID: {job_uuid}\r\n{self.auth.headers(method, path)}"

        return await self._transport.exchange(method, path, headers=headers, body=body)
