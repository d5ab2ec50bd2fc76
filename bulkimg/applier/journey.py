"""Take one row to its verdict: read the image, send, wait for the job, check where the answer was lost."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bulkimg.applier.policy import POLL_FIRST, POLL_GROWTH, POLL_MOST, Policy
from bulkimg.applier.tagging import Tagging
from bulkimg.applier.verdict import Next, Verdict, confirm, judge_look, judge_poll, judge_read, judge_update
from bulkimg.errors import TargetError
from bulkimg.model import TAGS, Claim, Fields, Status
from bulkimg.pace import HELD, Flight, Heard, Pace, Patience
from bulkimg.pace.outside import Outside
from bulkimg.planner.diff import left_to_send, written
from bulkimg.planner.reading import QUESTIONS, CannotRead, Image, Reader
from bulkimg.zstack import Answer, ImageApi
from bulkimg.zstack.wire import endpoint_hint, foreign

POLLS_IN_VAIN = 5  # of any rows, without one good answer in between, until images are looked at first
LOOKS = 5  # times that a row is looked at before one attempt
FRESH = 30.0  # seconds between looking at an image and sending its change, unless the rate takes longer over one round
IS_IT_THERE = "check that the server is running and --endpoint is right"
LOOK = "check the image, or send the row again with bulkimg retry"
JOB_LOST = Verdict(
    Next.ASK,
    None,
    "JOB_TIMEOUT",
    "the server accepted the job, but it has no result yet",
    LOOK,
    202,
    maybe_applied=True,
)


@dataclass(slots=True)
class Errand:
    """A claim under way, with what its earlier attempts in this process leave behind."""

    claim: Claim
    patience: Patience
    last: Verdict | None = None  # why its last attempt did not settle it; the next one is still to be claimed
    maybe_applied: bool = False  # one of the earlier attempts may have been applied, or may still be
    started_at: float | None = None  # seconds since the epoch, of the first byte
    begun: float = 0.0  # the same moment on the monotonic clock
    in_flight: bool = False  # bytes of the present attempt may be out
    key: str = ""  # the action key it was last sent with
    flight: Flight | None = None  # while the server works on it, as far as we know
    key_was_switched: bool = False  # because of its answer, so that it is sent again with the other one
    looked_at: float | None = None  # on the monotonic clock: when the image was last compared with the plan

    @property
    def is_doubtful(self) -> bool:
        """Whether an attempt of this row, of whatever process, may have been applied."""
        return self.maybe_applied or self.claim.doubtful


class _Stale(Exception):
    """Too long ago that the image was looked at; nothing has been sent."""


class Journey:
    """Takes rows along their way. `accepted` gets the action key that the server accepted."""

    def __init__(
        self,
        api: ImageApi,
        reader: Reader,
        tagging: Tagging,
        pace: Pace,
        outside: Outside,
        policy: Policy,
        accepted: Callable[[str], None],
    ) -> None:
        self._api = api
        self._reader = reader
        self._tagging = tagging
        self._pace = pace
        self._gate = pace.gate
        self._clock, self._now = outside.clock, outside.now
        self._sleep, self._rng = outside.sleep, outside.rng
        self._retries = policy.retries
        self._job_timeout = policy.job_timeout
        self._replace_tags = policy.replace_tags
        self._accepted = accepted
        self._can_read = True  # as far as it is known
        self._polls_in_vain = 0
        self.jobs_exist = False  # this server answers 202
        self._is_the_api = False  # it has answered a PUT as the API does
        self._halted: Verdict | None = None  # the verdict on the first PUT, where no other one could succeed
        self._spelling = asyncio.Lock()  # held by the one PUT that finds out how the server spells the action key

    async def look(self, errands: Sequence[Errand]) -> dict[int, Verdict]:
        """Compare many rows with their images in one question, before any of them is sent: verdicts by ordinal of those that
        must not be sent.

        Rows that may have been sent before are looked at one by one, when it is known what became of that. CannotRead and
        TargetError where the images cannot be read any more.
        """
        fresh = {e.claim.uuid: e for e in errands if e.claim.before is not None and not e.is_doubtful}
        if not fresh:
            return {}
        names = {name for errand in fresh.values() for name in errand.claim.before or ()}
        images = await self._reader.images(list(fresh), names)
        looked_at = self._clock()
        found = {}
        for uuid, errand in fresh.items():
            errand.looked_at = looked_at
            image = images.get(uuid)
            if verdict := judge_look(errand.claim, image, doubtful=False, replace_tags=self._replace_tags):
                found[errand.claim.ordinal] = verdict
            elif image is not None:
                errand.claim = self._as_it_is_now(errand.claim, image)
        return found

    def _as_it_is_now(self, claim: Claim, image: Image) -> Claim:
        """The row with what still differs, and with the tags that there are now: they may have changed without a conflict."""
        left = left_to_send(claim.fields, image, replace_tags=self._replace_tags)
        tags = {kind: written(image, kind) for kind in TAGS if kind in claim.fields and kind in image}
        return claim._replace(fields=left, before={**(claim.before or {}), **tags})

    async def take(self, errand: Errand) -> Verdict:
        """SETTLED, AGAIN, OTHER_KEY, RENEW or HALT: everything else is resolved on the way."""
        return await self._complete(errand, await self._sent_or_asked(errand))

    async def _sent_or_asked(self, errand: Errand) -> Verdict:
        if not errand.claim.interrupted:
            return again_if_unknown(await self._send(errand))
        self._begin(errand)
        verdict = await self._ask(errand, Verdict(Next.ASK, maybe_applied=True))
        if not self._api.reached:
            return verdict._replace(
                next=Next.HALT, status=None, code="NOT_CONNECTED", message="cannot connect", hint=IS_IT_THERE
            )
        return again_if_unknown(verdict)

    async def second_look(self, errand: Errand, verdict: Verdict) -> Verdict:
        """The end of a row whose tries are spent while one of them may have been applied: what job and image show.

        The server's own refusal of the last try stands where no earlier one is in doubt.
        """
        doubt = verdict._replace(maybe_applied=True)
        found = doubt if verdict.job_used else await self._ask(errand, doubt)  # an error may hide a job that runs
        if found.next is Next.AGAIN and found.job_used:
            found = await self._read(errand, found)
        if found.status in (Status.UPDATED, Status.DRIFTED) or found.next is Next.HALT:
            return await self._complete(errand, found)
        if found.from_server and not errand.maybe_applied and found.next is Next.AGAIN:
            return verdict._replace(next=Next.SETTLED, status=Status.FAILED)
        return unknown(verdict)

    def _begin(self, errand: Errand) -> None:
        errand.in_flight = True
        if errand.started_at is None:
            errand.started_at, errand.begun = self._now(), self._clock()

    async def _send(self, errand: Errand) -> Verdict:
        for _ in range(LOOKS):
            if unsent := await self._look_again(errand):
                return unsent
            try:
                return await self._put(errand)
            except _Stale:
                continue
        message = (
            f"{LOOKS} times the row waited longer than {self._longest:.0f} s for its turn after its image was read"
        )
        hint = "lower --concurrency, raise --rate, or add --no-survey"
        return Verdict(Next.HALT, code="CANNOT_COMPARE", message=message, hint=hint, sent=False)

    async def _look_again(self, errand: Errand) -> Verdict | None:
        """Compare the image with the plan, unless that has just been done; a verdict where the row must not be sent."""
        if errand.claim.before is None or self._is_fresh(errand):
            return None
        try:
            image = await self._reader.one(errand.claim.uuid, set(errand.claim.before))
        except (CannotRead, TargetError) as why:
            message = f"cannot compare the image with the plan any more: {why}"
            return Verdict(Next.HALT, code="CANNOT_COMPARE", message=message, sent=False)
        errand.looked_at = self._clock()
        return judge_look(errand.claim, image, doubtful=errand.is_doubtful, replace_tags=self._replace_tags)

    def _is_fresh(self, errand: Errand) -> bool:
        """At a low rate a request waits for its turn as long as all others take; it must be sent sometime."""
        return errand.looked_at is not None and self._clock() - errand.looked_at <= self._longest

    @property
    def _longest(self) -> float:
        return max(FRESH, 4 * self._pace.concurrency / self._pace.rate.per_second)

    def _admitted(self, errand: Errand) -> None:
        """The last moment before bytes go out."""
        if errand.claim.before is not None and not self._is_fresh(errand):
            raise _Stale
        self._begin(errand)
        errand.flight = self._pace.row_sent()

    async def _put(self, errand: Errand) -> Verdict:
        claim = errand.claim
        ticket = self._api.auth.ticket
        body = self._tagging.body(claim)
        if not body:  # tags only, which go another way
            self._begin(errand)
            return Verdict(Next.SETTLED, Status.UPDATED, unconfirmed=tuple(claim.fields))
        heard = Heard.ELSE
        try:
            answer, verdict = await self._answered(errand, body)
            heard = _load_shown_by(answer)
            if verdict.next is Next.ASK:
                verdict = await self._ask(errand, verdict)
            elif verdict.next is Next.READ:
                verdict = await self._read(errand, verdict)
            else:
                if verdict.next is Next.WAIT:
                    self.jobs_exist = True
                    verdict = await self._wait(errand, POLL_FIRST)
                heard = Heard.WELL if verdict.status is Status.UPDATED else heard
        finally:
            if errand.flight:
                self._pace.row_heard(errand.flight, heard)
                errand.flight = None
        return await self._renewed(verdict, ticket) if verdict.next is Next.RENEW else verdict

    async def _answered(self, errand: Errand, body: Fields) -> tuple[Answer, Verdict]:
        """The answer to the row's PUT. One PUT goes out at a time until the server's spelling of the action key is known."""
        if not self._spelling_is_known:
            async with self._spelling:
                if not self._spelling_is_known:
                    return await self._find_spelling(errand, body)
        return await self._update(errand, body)

    @property
    def _spelling_is_known(self) -> bool:
        return self._is_the_api or self._api.key_is_known

    async def _find_spelling(self, errand: Errand, body: Fields) -> tuple[Answer, Verdict]:
        """One PUT, while all others wait; where it ends the run, none of them is sent."""
        if self._halted:
            return Answer(None, sent=False), self._halted
        answer, verdict = await self._update(errand, body)
        if verdict.next is Next.OTHER_KEY:
            errand.key_was_switched = self._api.switch_key()
        if verdict.next is Next.HALT or (verdict.next is Next.OTHER_KEY and not errand.key_was_switched):
            self._halted = verdict._replace(next=Next.HALT, sent=False, maybe_applied=False)
        return answer, verdict

    async def _update(self, errand: Errand, body: Fields) -> tuple[Answer, Verdict]:
        claim = errand.claim
        errand.key = self._api.action_key
        answer = await self._api.update(claim.uuid, body, claim.job_uuid, lambda: self._admitted(errand))
        verdict = judge_update(answer, claim)
        if verdict.next in (Next.WAIT, Next.READ) or (verdict.next is Next.SETTLED and answer.status == 200):
            self._accepted(errand.key)
        if verdict.next in (Next.WAIT, Next.READ) or verdict.from_server or verdict.status is Status.UPDATED:
            self._is_the_api = True
        elif not self._is_the_api and 300 <= (answer.status or 0) < 400:
            said, hint = foreign(answer), endpoint_hint(answer)
            return answer, verdict._replace(next=Next.HALT, code=f"HTTP_{answer.status}", message=said, hint=hint)
        return answer, verdict

    async def _renewed(self, verdict: Verdict, ticket: str) -> Verdict:
        """The verdict once there is a new session; HALT, with the same doubt, when there is none to be had."""
        try:
            await self._api.auth.renew(ticket)
        except TargetError as error:
            return verdict._replace(next=Next.HALT, code="LOGIN_REFUSED", message=str(error), hint="")
        return verdict

    async def _wait(self, errand: Errand, delay: float) -> Verdict:
        """Poll the job until it has a result. Spaced with jitter, so that many jobs do not poll in step.

        Its time does not run while the gate is closed, nor while the server leaves a poll without an answer.
        """
        deadline = self._gate.open_time() + self._job_timeout
        patience = Patience(max(QUESTIONS, self._retries), self._gate)
        while self._gate.open_time() < deadline:
            await self._sleep(delay * self._rng.uniform(0.8, 1.2))
            delay = min(delay * POLL_GROWTH, POLL_MOST)
            if self._polls_in_vain >= POLLS_IN_VAIN and (seen := await self._seen(errand)):
                return seen
            asked_at = self._gate.open_time()
            answer = await self._api.poll(errand.claim.job_uuid)
            self._polls_in_vain = self._polls_in_vain + (answer.streak != HELD) if answer.streak else 0
            verdict = judge_poll(answer, errand.claim)
            if verdict.next is Next.READ:
                return await self._read(errand, verdict)
            if verdict.next is not Next.WAIT:
                return verdict
            if not answer.streak:
                patience = Patience(max(QUESTIONS, self._retries), self._gate)
            elif answer.status is None:
                patience.note(answer.streak)
                deadline += self._gate.open_time() - asked_at  # an unanswered poll does not count against the job
                if await patience.is_spent():
                    break
        return await self._read(errand, JOB_LOST)

    async def _seen(self, errand: Errand) -> Verdict | None:
        """What the image shows already, while polls fail: a proxy may fail at the path of jobs and at no other.

        Only then: as long as the job can be asked, its result is the row's.
        """
        verdict = judge_read(await self._api.read(errand.claim.uuid), errand.claim)
        return verdict if verdict.status is Status.UPDATED else None

    async def _ask(self, errand: Errand, doubt: Verdict) -> Verdict:
        """What became of a request whose answer is lost or unbound: by its job, else by reading the image."""
        answer = await self._reader.patiently(lambda: self._api.poll(errand.claim.job_uuid))
        verdict = judge_poll(answer, errand.claim)
        if verdict.next is Next.WAIT and verdict.http_status == 202:
            self.jobs_exist = True
            return await self._wait(errand, POLL_FIRST)
        if verdict.next not in (Next.WAIT, Next.READ):
            return verdict
        if doubt.status is Status.FAILED and self.jobs_exist and verdict.http_status == 404:
            return doubt._replace(next=Next.SETTLED)  # the refusal is true: it never became a job
        if verdict.next is Next.WAIT:
            doubt = doubt._replace(
                from_server=False
            )  # no answer about the job: there may be one, whatever the server said
        return await self._read(errand, verdict if verdict.status is Status.DRIFTED else doubt)

    async def _read(self, errand: Errand, doubt: Verdict) -> Verdict:
        """Settle a doubt by the image itself. What reading cannot tell stays in doubt; a refusal in doubt stands."""
        ticket = self._api.auth.ticket
        answer = await self._reader.patiently(lambda: self._api.read(errand.claim.uuid))
        verdict = judge_read(answer, errand.claim)
        if verdict.next is Next.RENEW:
            verdict = await self._renewed(verdict, ticket)
            if verdict.next is Next.HALT:
                return verdict._replace(maybe_applied=True)
            verdict = judge_read(await self._api.read(errand.claim.uuid), errand.claim)
        if doubt.status is Status.FAILED and verdict.status is not Status.UPDATED:
            return doubt._replace(next=Next.SETTLED)
        if doubt.status is Status.DRIFTED and verdict.status is None:
            return doubt._replace(next=Next.SETTLED, after=verdict.after or doubt.after)
        if verdict.next is Next.SETTLED:
            return verdict
        if verdict.next in (Next.NOT_APPLIED, Next.NOT_SHOWN) and doubt is not JOB_LOST:
            message = f"{doubt.message or 'no result'}; {verdict.message}"
            again = doubt._replace(next=Next.AGAIN, code=doubt.code or "NOT_APPLIED", message=message)
            return again if verdict.next is Next.NOT_APPLIED else again._replace(from_server=False, maybe_applied=True)
        return unknown(doubt)

    async def _complete(self, errand: Errand, verdict: Verdict) -> Verdict:
        """An `updated` row with what its answer did not carry: fields, the boot mode that goes with an architecture, tags."""
        if verdict.status is not Status.UPDATED:
            return verdict
        claim = errand.claim
        names = {name for name in verdict.unconfirmed if name not in TAGS}
        if claim.before is not None and "architecture" in claim.fields:
            names.add("systemTags")
        if names and self._can_read:
            verdict = await self._read_back(claim, verdict, names)
        if verdict.status is Status.UPDATED and any(kind in claim.fields for kind in TAGS):
            try:
                return await self._tagging.complete(claim, verdict)
            except TargetError as error:
                return verdict._replace(
                    next=Next.HALT, status=None, code="TAGS", message=str(error), maybe_applied=True
                )
        return verdict

    async def _read_back(self, claim: Claim, verdict: Verdict, names: set[str]) -> Verdict:
        """Where it cannot be read, the row stays `updated`, and its message names what nothing has shown."""
        try:
            image = await self._reader.one(claim.uuid, names)
        except CannotRead:
            self._can_read = False
            return verdict
        except TargetError:
            return verdict
        return confirm(verdict, claim, image) if image is not None else verdict


def _load_shown_by(answer: Answer) -> Heard:
    """A lost answer, or one of a server in trouble, shows too much load; a refusal, or a request to wait, does not."""
    return Heard.SICK if answer.streak and answer.streak != HELD else Heard.ELSE


def again_if_unknown(verdict: Verdict) -> Verdict:
    """A row whose outcome is not known is sent again: its values are absolute. Its tries count like all others.

    One whose job was accepted and has no result is not: the job may still come to its turn.
    """
    if verdict.status is not Status.UNKNOWN or verdict.code == JOB_LOST.code or not verdict.sent:
        return verdict
    return verdict._replace(next=Next.AGAIN, status=None, maybe_applied=True)


def unknown(doubt: Verdict) -> Verdict:
    """End a row whose outcome is not known."""
    return doubt._replace(
        next=Next.SETTLED,
        after=None,
        status=Status.UNKNOWN,
        code=doubt.code or "UNKNOWN",
        message=f"{doubt.message or 'no clear answer'}; outcome not known",
        hint=LOOK,
    )
