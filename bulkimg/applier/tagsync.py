"""Apply tags: UpdateImage accepts them, but real servers ignore them (docs/dev/protocol.md §6, "Tags").

Every call here may be made twice without harm: a tag that exists is refused or passed over, one that is gone is gone. So
nothing of it is in the ledger: after a crash the tags are read again, and what is missing is done.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

from bulkimg.applier.judge import Verdict, drifted
from bulkimg.applier.policy import POLL_FIRST, POLL_GROWTH, POLL_MOST, Policy
from bulkimg.model import HIDDEN, SERVER_TRIMS, TAGS, Claim, Fields, Status
from bulkimg.pace import full_jitter
from bulkimg.planner.diff import BOOT_MODE, fulfilled, missing_tags, redacted
from bulkimg.planner.reading import QUESTIONS, CannotRead, Reader
from bulkimg.runtime import Runtime
from bulkimg.zstack import Answer, ImageApi
from bulkimg.zstack.wire import error_of, new_job_uuid


class TagSync:
    """Looks whether an image has the tags its row asks for, and sees to it where the server has ignored them."""

    def __init__(self, api: ImageApi, reader: Reader, runtime: Runtime, policy: Policy) -> None:
        self._api = api
        self._reader = reader
        self._clock, self._sleep, self._rng = runtime.clock, runtime.sleep, runtime.rng
        self._how = policy.tags
        self._replace = policy.replace_tags
        self._rounds = max(QUESTIONS, policy.retries)
        self._job_timeout = policy.job_timeout

    def body(self, claim: Claim) -> Fields:
        """What the PUT carries of a row. Tags that are only to be added go with those there are: a server that keeps what
        it gets must not lose any."""
        if self._how == "api":
            return {name: value for name, value in claim.fields.items() if name not in TAGS}
        return {name: self._with_present(claim, name) if name in TAGS else claim.fields[name] for name in claim.fields}

    def _with_present(self, claim: Claim, kind: str) -> list[str]:
        asked, before = claim.fields[kind], (claim.before or {}).get(kind)
        assert isinstance(asked, list)
        if not isinstance(before, list) or self._replace:
            return asked
        return [*(tag for tag in before if HIDDEN not in tag), *asked]  # what is not kept cannot be sent again

    async def complete(self, claim: Claim, verdict: Verdict) -> Verdict:
        """The verdict on a row that is `updated` but for its tags."""
        try:
            return await self._completed(claim, verdict)
        except CannotRead as why:
            tags_only = all(name in TAGS for name in claim.fields)  # then no answer has confirmed anything of the row
            return _cannot_tell(verdict, f"cannot read the tags: {why}") if tags_only or self._how == "api" else verdict

    async def _completed(self, claim: Claim, verdict: Verdict) -> Verdict:
        kinds = [kind for kind in TAGS if kind in claim.fields]
        said = ""
        for number in range(self._rounds + 1):
            image = await self._reader.one(claim.uuid, kinds)
            if image is None:
                return _cannot_tell(verdict, "the image no longer exists, so its tags cannot be read")
            if hidden := [kind for kind in kinds if kind not in image]:
                raise CannotRead(self._reader.unreadable[hidden[0]])
            wrong = [k for k in kinds if not fulfilled(k, claim.fields[k], image[k], replace_tags=self._replace)]
            after = {**(verdict.after or {}), **{kind: redacted(image, kind) for kind in kinds}}
            verdict = verdict._replace(after=after)
            if not wrong:
                return verdict._replace(unconfirmed=tuple(n for n in verdict.unconfirmed if n not in kinds))
            if self._how == "body" or number == self._rounds:
                break
            if number > 1:
                await self._sleep(full_jitter(number, self._rng))
            made, refused = await self._sync(claim, wrong)
            said = refused or said
            if not made:
                said = "it has tags that were added after the row was sent, and they are kept"
                break
        found = drifted(verdict._replace(unconfirmed=()), wrong)
        if self._how == "body":
            found = found._replace(
                hint="this server ignores tags in UpdateImage; use --tags auto, which sets them by the tag API"
            )
        return found._replace(message=f"{found.message}: {said}") if said else found

    async def _sync(self, claim: Claim, kinds: list[str]) -> tuple[int, str]:
        """Add and remove what is wrong: the number of changes made, and what the server said where it refused one."""
        made, said = 0, ""
        for kind in kinds:
            async for call in self._changes(claim, kind):
                said = await self._carry_out(call) or said
                made += 1
        return made, said

    async def _changes(self, claim: Claim, kind: str) -> "AsyncIterator[Callable[[str], Awaitable[Answer]]]":
        asked, image = claim.fields[kind], claim.uuid
        has = (await self._reader.tags(kind, [image])).get(image, {})
        if self._replace:
            assert isinstance(asked, list)
            gone = has.keys() - {tag.strip(SERVER_TRIMS) for tag in asked}
            if claim.before is not None:  # tags that came after the image was read are another client's
                known = claim.before.get(kind)
                ours = set(known) if isinstance(known, list) else set()
                if "architecture" in claim.fields:  # the server has just made a boot mode of its own
                    ours |= {tag for tag in gone if tag.startswith(BOOT_MODE)}
                gone &= ours
            for tag in gone:
                yield lambda job, t=has[tag].uuid: self._api.delete_tag(t, job)  # type: ignore[misc]
        for tag in missing_tags(asked, list(has)):
            yield lambda job, t=tag: self._api.create_tag(kind, image, t, job)  # type: ignore[misc]

    async def _carry_out(self, call: Callable[[str], Awaitable[Answer]]) -> str:
        """One change of tags to the end of its job; what the server said where it refused."""
        job, ticket = new_job_uuid(self._rng), self._api.auth.ticket
        answer = await call(job)
        deadline, delay = self._clock() + self._job_timeout, POLL_FIRST
        while answer.status == 202 and self._clock() < deadline:
            await self._sleep(delay * self._rng.uniform(0.8, 1.2))
            delay = min(delay * POLL_GROWTH, POLL_MOST)
            answer = await self._reader.patiently(lambda: self._api.poll(job))
        if answer.status == 200:
            return ""
        error = error_of(answer.json())
        if error and error.code == "ID.1001":
            await self._api.auth.renew(ticket)
        return f"{error.code} {error.text}" if error else answer.detail or f"HTTP {answer.status}"


def _cannot_tell(verdict: Verdict, message: str) -> Verdict:
    hint = "check the image, or send the row again with bulkimg retry"
    return verdict._replace(status=Status.UNKNOWN, code="TAGS", message=message, hint=hint, unconfirmed=())
