"""Read many images with one query, and repeat it until the answer is certain.

Batches shrink where a server finds a URL or an answer too long; an image counts as missing only when the server has left it
out twice; an answer about other images is rejected.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from bulkimg.errors import LoginRefused, TargetError
from bulkimg.model import TAGS, normal_uuid
from bulkimg.pace import RATE_LIMITED, CircuitBreaker, RetryCounter, full_jitter
from bulkimg.runtime import Runtime
from bulkimg.zstack import Answer, ImageApi
from bulkimg.zstack.redaction import Redactor
from bulkimg.zstack.rules import CODES, TEXTS, Move, rule_for_status
from bulkimg.zstack.wire import endpoint_hint, error_of, foreign, inventories_of, printable

BATCH = 200  # images a question: their uuids fit into the 8 KiB of a stock Tomcat (docs/dev/protocol.md §6)
PAGE = 1000  # what the server itself takes for a limit when none is given
# A question does no harm and is asked again at least so often: with --retries 0 one lost answer would be the end of a row.
QUESTIONS = 3
GATHER = 0.05  # seconds in which single questions become one
_TOO_LONG = frozenset({400, 413, 414, 431})  # what servers say to an address that is too long for them


class Image(dict[str, Any]):
    """What a server showed of an image. `redacted` is the same without credentials, where a server put one into a value, or
    where a value happens to be one."""

    redacted: Mapping[str, Any]

    def __init__(self, values: Mapping[str, Any], redacted: Mapping[str, Any] | None = None) -> None:
        super().__init__(values)
        self.redacted = self if redacted is None else redacted

    def add_tags(self, kind: str, tags: Mapping[str, "Tag"]) -> None:
        """The tags of one kind, in the order of their texts."""
        self[kind] = sorted(tags)
        redacted = sorted(tag.redacted for tag in tags.values())
        if self.redacted is not self or redacted != self[kind]:
            self.redacted = {**self.redacted, kind: redacted}


class Tag(NamedTuple):
    """A tag's own uuid, and its text with credentials redacted."""

    uuid: str
    redacted: str


class CannotRead(Exception):
    """Why this server or account cannot show its images, in one sentence; not an error by itself."""


class Reader:
    """Reads images from one server. `retries` is how often an unanswered query is repeated.

    `on_unreadable(kind, why)` is called once for each kind of tag that this server or account does not show.
    """

    def __init__(
        self,
        api: ImageApi,
        breaker: CircuitBreaker,
        runtime: Runtime,
        retries: int,
        on_unreadable: Callable[[str, str], None] = lambda kind, why: None,
    ) -> None:
        self._api = api
        self._breaker = breaker
        self._sleep, self._rng = runtime.sleep, runtime.rng
        self._retries = max(QUESTIONS, retries)
        self._most = BATCH
        self._tells = False  # it has answered a question about images
        self._names_fields = True  # until the server fails at a question that names them
        self._first_fields = asyncio.Lock()  # of the question that finds that out
        self._has_named_fields = False
        self._on_unreadable = on_unreadable
        self.unreadable: dict[str, str] = {}  # kinds of tags that the server does not show, and what it says
        self._gathered: dict[str, tuple[Collection[str], asyncio.Future[Image | None]]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def server_date(self) -> str:
        """The server's clock, as the Date header of its latest answer has it; "" where there was none."""
        return self._api.server_date

    async def images(self, uuids: Sequence[str], names: Collection[str]) -> dict[str, Image]:
        """The images that exist, by uuid, each with the named fields as far as it has them; tags as sorted texts.

        A kind of tags that the server does not show is missing in every image, and `unreadable` says why. CannotRead where this server, or this account, cannot be asked; TargetError where nothing can be asked any more.
        """
        fields = {"uuid", *(name for name in names if name not in TAGS)}
        found = await self._by_uuid(uuids, fields)
        missing = [uuid for uuid in uuids if uuid not in found]
        while missing:  # a server may give fewer than it was asked for
            again = await self._by_uuid(missing, fields)
            found |= again
            missing = [uuid for uuid in missing if uuid not in found] if again else []
        for kind in TAGS:
            if kind in names and found and kind not in self.unreadable:
                await self._add_tags(kind, found)
        return found

    async def _add_tags(self, kind: str, images: Mapping[str, Image]) -> None:
        """Tags that cannot be read cost only what depends on them."""
        try:
            tags = await self.tags(kind, list(images))
        except CannotRead as why:
            if kind not in self.unreadable:
                self.unreadable[kind] = str(why).partition("; ")[0]
                self._on_unreadable(kind, self.unreadable[kind])
            return
        for uuid, image in images.items():
            image.add_tags(kind, tags.get(uuid, {}))

    async def _query_images(self, conditions: Sequence[str], fields: Collection[str], limit: int) -> Answer:
        """One question. A server fails at one that names a field which is null in some image, and answers it without
        `fields` (docs/dev/protocol.md §5.2: ZQLMetadata.java:96-97 calls toString() on the null). Until one such question
        has come back, the others wait: each of them would fail too."""
        if self._has_named_fields:
            return await self._query(conditions, fields, limit)
        async with self._first_fields:
            try:
                return await self._query(conditions, fields, limit)
            finally:
                self._has_named_fields = True

    async def _query(self, conditions: Sequence[str], fields: Collection[str], limit: int) -> Answer:
        if self._names_fields:
            answer = await self._api.query_images(conditions, fields, limit)
            if not _failed_inside(answer):
                return answer
        plain = await self._api.query_images(conditions, None, limit)
        if plain.status == 200:
            self._names_fields = False
        return plain

    async def one(self, uuid: str, names: Collection[str]) -> Image | None:
        """One image, or None where there is none. What others ask at about the same time is one question with it."""
        if not self._gathered:
            asyncio.get_running_loop().call_later(GATHER, self._ask_gathered)
        answer: asyncio.Future[Image | None] = asyncio.get_running_loop().create_future()
        self._gathered[uuid] = (names, answer)
        if len(self._gathered) >= BATCH:
            self._ask_gathered()
        return await answer

    def _ask_gathered(self) -> None:
        # The others were given up meanwhile.
        gathered = {uuid: asked for uuid, asked in self._gathered.items() if not asked[1].done()}
        self._gathered = {}
        if gathered:
            task = asyncio.create_task(self._answer(gathered))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _answer(self, gathered: Mapping[str, tuple[Collection[str], "asyncio.Future[Image | None]"]]) -> None:
        names = {name for wanted, _ in gathered.values() for name in wanted}
        try:
            found = await self.images(list(gathered), names)
        except Exception as error:  # every waiter gets it
            for _, answer in gathered.values():
                if not answer.done():
                    answer.set_exception(error)
        else:
            for uuid, (_, answer) in gathered.items():
                if not answer.done():
                    answer.set_result(found.get(uuid))

    async def tags(self, kind: str, uuids: Sequence[str]) -> dict[str, dict[str, Tag]]:
        """The tags of each image by their texts: `{image: {text: Tag}}`. `kind`: userTags or systemTags."""
        found: dict[str, dict[str, Tag]] = {}
        for begin in range(0, len(uuids), self._most):
            batch = uuids[begin : begin + self._most]
            last = ""
            while True:
                conditions = [_among("resourceUuid", batch), *([f"uuid>{last}"] if last else [])]
                answer = await self._ask(partial(self._api.query_tags, kind, conditions, PAGE))
                page = _rows(answer, self._api.redactor)
                for tag in page:
                    named = tag.get("resourceUuid") in batch and isinstance(tag.get("tag"), str)
                    if not named or not normal_uuid(str(tag.get("uuid"))):
                        raise CannotRead("the server answered a tag query with the tags of other images")
                    found.setdefault(tag["resourceUuid"], {})[tag["tag"]] = Tag(
                        str(tag.get("uuid")), str(tag.redacted["tag"])
                    )
                if len(page) < PAGE:
                    break
                last = _next_page(last, page)
        return found

    async def pages(self, conditions: Sequence[str], fields: Collection[str]) -> AsyncIterator[list[Image]]:
        """All images that meet the conditions, in the order of their uuids, page by page.

        A page begins after the last uuid of the one before, so that what comes or goes meanwhile moves no other image.
        """
        last = ""
        while True:
            asked, most = [*conditions, *([f"uuid>{last}"] if last else [])], self._most
            answer = await self._ask(lambda a=asked, m=most: self._query_images(a, {"uuid", *fields}, m))  # type: ignore[misc]
            if answer.failure == "BODY_TOO_LARGE" and most > 1:
                self._most = most // 2
                continue
            if page := _rows(answer, self._api.redactor):
                if not all(normal_uuid(str(image.get("uuid"))) for image in page):
                    raise CannotRead("the server returned images without a uuid")
                yield page
            if len(page) < most:
                return
            last = _next_page(last, page)

    # -- one question ---------------------------------------------------------------------------------------------------

    async def _by_uuid(self, uuids: Sequence[str], fields: Collection[str]) -> dict[str, Image]:
        found: dict[str, Image] = {}
        at = 0
        while at < len(uuids):
            part = uuids[at : at + self._most]
            ask = partial(self._query_images, [_among("uuid", part)], fields, len(part))
            answer = await self._ask(ask)
            if len(part) > 1 and (answer.failure == "BODY_TOO_LARGE" or answer.status in _TOO_LONG):
                self._most = min(self._most, len(part) // 2)
                continue
            for image in await self._certain(answer, part, ask):
                found[image["uuid"]] = image
            at += len(part)
        return found

    async def _certain(
        self, answer: Answer, part: Sequence[str], again: Callable[[], Awaitable[Answer]]
    ) -> list[Image]:
        """The images of an answer. A malformed one is requested once more; from a server that has answered correctly
        before, it is an error, and no reason to send without reading."""
        for last in (False, True):
            try:
                images = _rows(answer, self._api.redactor)
                if any(image.get("uuid") not in part for image in images):
                    raise CannotRead("the server answered an image query with other images")
            except CannotRead as why:
                if last and self._tells:
                    raise TargetError(f"cannot read the images any more: {why}") from None
                if last:
                    raise
                answer = await self._ask(again)
            else:
                break
        self._tells = True
        return images

    async def _ask(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat until the answer is final; with a new session where the old one has expired."""
        left = self._retries
        while True:
            ticket = self._api.auth.ticket
            answer = await self.patiently(call)
            move = _move(answer)
            if move is Move.RENEW:
                await self._renew(ticket, answer)
            elif move is Move.AGAIN and answer.status is not None and left > 0:
                left -= 1
                await self._sleep(full_jitter(self._retries - left, self._rng))
            else:
                return answer

    async def _renew(self, ticket: str, answer: Answer) -> None:
        try:
            await self._api.auth.renew(ticket)
        except LoginRefused as error:
            answer = self._api.redactor.answer(answer)
            said = foreign(answer) or error_text(answer)
            raise LoginRefused(f"cannot read the images: {said}; {error}") from None

    async def patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat until the server answers at all: a query may be repeated often, unlike a PUT."""
        tries, silent = RetryCounter(self._retries, self._breaker), 0
        while (answer := await call()).failure_id:
            if answer.failure_id == RATE_LIMITED:
                continue
            silent += answer.status is None
            if not self._api.reached and (answer.failure == "NOT_CONNECTED" or silent >= QUESTIONS):
                break  # it has not been there since this process began
            tries.note(answer.failure_id)
            if await tries.is_spent():
                break
            await self._sleep(full_jitter(tries.own, self._rng))
        return answer


def _among(name: str, uuids: Sequence[str]) -> str:
    return f"{name}?={','.join(uuids)}"


def _next_page(last: str, page: Sequence[Image]) -> str:
    """Where the next page begins; CannotRead where the server does not turn pages."""
    uuids = [str(row.get("uuid")) for row in page]
    if min(uuids) <= last or uuids != sorted(uuids):
        raise CannotRead("the server does not return its results in pages")
    return uuids[-1]


def _move(answer: Answer) -> Move | None:
    """What kind of refusal an answer is, if it is one."""
    if answer.status is None or answer.status == 200:
        return None
    error = error_of(answer.json())
    if error:
        return CODES[error.code].move if error.code in CODES else Move.REFUSED
    return rule_for_status(answer.status).move


def _rows(answer: Answer, redactor: Redactor) -> list[Image]:
    """The rows of an answer; CannotRead says why there are none, TargetError that no other query can succeed."""
    found = inventories_of(answer.json()) if answer.status == 200 else None
    if found is not None:
        is_clean = redactor.raw(answer.raw) is answer.raw
        return [Image(row, None if is_clean else redactor.value(row)) for row in found]
    answer = redactor.answer(answer)
    if answer.failure == "BODY_TOO_LARGE":
        raise CannotRead(f"even for one image, {answer.detail}")
    if answer.status is None:
        raise TargetError(f"cannot read the images: {answer.detail}; {unreached_hint(answer)}")
    if said := foreign(answer):
        if answer.failure_id:
            raise TargetError(f"cannot read the images: {said}, repeatedly; check the server")
        raise CannotRead(f"{said}; {endpoint_hint(answer)}")
    said, hopeless = _by_the_table(answer, error_text(answer))
    if hopeless:
        kind = LoginRefused if said.startswith("ACCESS_KEY:") else TargetError
        raise kind(f"cannot read the images: {said}")
    error = error_of(answer.json())
    if answer.failure_id or (error and error.code in CODES and CODES[error.code].move is Move.AGAIN):
        raise TargetError(f"cannot read the images: {said}, repeatedly; check the server")
    if error:
        raise CannotRead(
            f"{said}; {CODES[error.code].hint if error.code in CODES else 'check that this account may query images'}"
        )
    raise CannotRead(said if "; " in said else f"{said}; {endpoint_hint(answer)}")


def error_text(answer: Answer) -> str:
    """What the server said, in one line: the code and text of its JSON error, or the status and the beginning of its text."""
    if error := error_of(answer.json()):
        return f"{error.code} {error.text}"
    return f"HTTP {answer.status} {printable(' '.join(answer.text.split())[:120])}".strip()


def unreached_hint(answer: Answer) -> str:
    """What to do where there is no answer at all."""
    if answer.failure == "TLS":
        return "check --ca-file, and that the certificate is for the host in --endpoint"
    if answer.failure == "NOT_CONNECTED":
        return "check that the server is running and --endpoint is right"
    return "check that the server is running and --endpoint is right, including http:// or https://"


def _failed_inside(answer: Answer) -> bool:
    error = error_of(answer.json()) if answer.status == 503 else None
    return error is not None and error.code == "SYS.1000"


def _by_the_table(answer: Answer, said: str) -> tuple[str, bool]:
    """What the server said, with its hint, and whether every other request would get the same answer. A server without
    queries also answers NO_SUCH_PATH."""
    error = error_of(answer.json())
    if error:
        rule = CODES.get(error.code)
        return (f"{said}; {rule.hint}", True) if rule and rule.move is Move.HALT else (said, False)
    for pattern, code, rule in TEXTS:
        if rule.move is Move.HALT and pattern.search(answer.text):
            return f"{code}: {said}; {rule.hint}" if rule.hint else f"{code}: {said}", code != "NO_SUCH_PATH"
    return said, False
