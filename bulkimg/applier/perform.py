"""Take one step of one row: send it, ask what became of it, read its image. Every step ends with a verdict."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from bulkimg.applier.decide import JOB_LOST, Known, Resolve, Step, names_to_confirm
from bulkimg.applier.judge import (
    Next,
    Verdict,
    confirm,
    judge_look,
    judge_poll,
    judge_read,
    judge_update,
)
from bulkimg.applier.policy import POLL_FIRST, POLL_GROWTH, POLL_MOST, Policy
from bulkimg.applier.row import RowState
from bulkimg.applier.tagsync import TagSync
from bulkimg.errors import TargetError
from bulkimg.model import TAGS, Claim, Fields, Status
from bulkimg.pace import RATE_LIMITED, Pace, RetryCounter
from bulkimg.planner.diff import left_to_send, redacted
from bulkimg.planner.reading import QUESTIONS, CannotRead, Image, Reader
from bulkimg.runtime import Runtime
from bulkimg.zstack import Answer, ImageApi
from bulkimg.zstack.wire import endpoint_hint, foreign

POLLS_IN_VAIN = 5  # of any rows, without one good answer in between, until images are looked at first
LOOKS = 5  # times that a row is looked at before one attempt
FRESH = 30.0  # seconds between looking at an image and sending its change, unless the rate takes longer over one round


class Performer:
    """Takes steps. `accepted` gets the action key that the server accepted."""

    def __init__(
        self,
        api: ImageApi,
        reader: Reader,
        pace: Pace,
        runtime: Runtime,
        policy: Policy,
        accepted: Callable[[str], None],
    ) -> None:
        self._api = api
        self._reader = reader
        self._tags = TagSync(api, reader, runtime, policy)
        self._pace = pace
        self._clock, self._now = runtime.clock, runtime.now
        self._sleep, self._rng = runtime.sleep, runtime.rng
        self._retries = policy.retries
        self._job_timeout = policy.job_timeout
        self._replace_tags = policy.replace_tags
        self._accepted = accepted
        self._can_read = True  # as far as it is known
        self._polls_in_vain = 0
        self._jobs_exist = False  # this server answers 202
        self._is_the_api = False  # it has answered a PUT as the API does
        self.knows_spelling = api.key_is_known  # of the action key: nothing has to be found out before a row is sent
        self._halted: Verdict | None = None  # the verdict on the first PUT, where no other one could succeed
        self._spelling = asyncio.Lock()  # held by the one PUT that finds out how the server spells the action key

    def known(self, row: RowState, step: Resolve) -> Known:
        """What is known of a row and its server now, for `decide`."""
        return Known(
            row.claim,
            step.so_far,
            step.last_try,
            row.maybe_applied,
            self._jobs_exist,
            self._can_read,
            self._api.reached,
        )

    async def take(self, row: RowState, resolve: Resolve) -> Verdict:
        """Take the step; HALT where the session is dead, or nothing can be asked any more."""
        match resolve.step:
            case Step.PUT:
                return await self._put(row)
            case Step.ASK:
                return await self._ask(row)
            case Step.WAIT:
                return await self._wait(row)
            case Step.READ:
                return await self._read(row)
            case Step.CONFIRM:
                return await self._confirm(row.claim, resolve.so_far)
            case Step.TAGS:
                return await self._sync_tags(row.claim, resolve.so_far)

    # -- before a row is sent -------------------------------------------------------------------------------------------

    async def compare(self, rows: Sequence[RowState]) -> dict[int, Verdict]:
        """Compare many rows with their images in one question, before any of them is sent: verdicts by ordinal of those that
        must not be sent.

        Rows that may have been sent before are compared one by one, when it is known what became of that. CannotRead and
        TargetError where the images cannot be read any more.
        """
        fresh = {row.claim.uuid: row for row in rows if row.claim.before is not None and not row.is_doubtful}
        if not fresh:
            return {}
        names = {name for row in fresh.values() for name in row.claim.before or ()}
        images = await self._reader.images(list(fresh), names)
        compared_at = self._clock()
        found = {}
        for uuid, row in fresh.items():
            row.compared_at = compared_at
            image = images.get(uuid)
            if verdict := judge_look(row.claim, image, doubtful=False, replace_tags=self._replace_tags):
                found[row.claim.ordinal] = verdict
            elif image is not None:
                claim = self._as_it_is_now(row.claim, image)
                row.is_plain &= claim is row.claim
                row.claim = claim
        return found

    def _as_it_is_now(self, claim: Claim, image: Image) -> Claim:
        """The row with what still differs, and with the tags that there are now: they may have changed without a conflict."""
        left = left_to_send(claim.fields, image, replace_tags=self._replace_tags)
        tags = {kind: redacted(image, kind) for kind in TAGS if kind in claim.fields and kind in image}
        if not tags and len(left) == len(claim.fields):
            return claim
        return claim._replace(fields=left, before={**(claim.before or {}), **tags})

    async def _compare_again(self, row: RowState) -> Verdict | None:
        """Compare the image with the plan, unless that has just been done; a verdict where the row must not be sent."""
        if row.claim.before is None or self._is_fresh(row):
            return None
        try:
            image = await self._reader.one(row.claim.uuid, set(row.claim.before))
        except (CannotRead, TargetError) as why:
            message = f"cannot compare the image with the plan any more: {why}"
            return Verdict(Next.HALT, code="CANNOT_COMPARE", message=message, sent=False)
        row.compared_at = self._clock()
        return judge_look(row.claim, image, doubtful=row.is_doubtful, replace_tags=self._replace_tags)

    def _is_fresh(self, row: RowState) -> bool:
        """At a low rate a request waits for its turn as long as all others take; it must be sent sometime."""
        return row.compared_at is not None and self._clock() - row.compared_at <= self._longest

    @property
    def _longest(self) -> float:
        return max(FRESH, 4 * self._pace.concurrency / self._pace.rate.per_second)

    # -- PUT ------------------------------------------------------------------------------------------------------------

    async def straight(self, row: RowState) -> Answer | None:
        """Send a clean row; None where its image has to be compared again first, and nothing was sent."""
        epoch = await self._pace.admit()
        if not self._leaves(row, epoch):
            return None
        return await self._api.update_plain(epoch, row.claim, partial(self._begun, row))

    def _leaves(self, row: RowState, epoch: int) -> bool:
        """Let an admitted row go; False, and its turn is given back, where its image was compared too long ago by now."""
        if row.claim.before is not None and not self._is_fresh(row):
            self._pace.give_back(epoch)
            return False
        row.key, row.ticket = self._api.action_key, self._api.auth.ticket
        row.sent_since = self._pace.row_sent()
        return True

    def _begun(self, row: RowState) -> None:
        """Mark a row as sent. Until its connection is there, which may take long, a stop gives it back."""
        row.begin(self._now(), self._clock())

    def judged(self, row: RowState, answer: Answer) -> Verdict:
        """The verdict on the answer to a PUT, and what it shows of the server."""
        verdict = judge_update(answer, row.claim)
        if verdict.next in (Next.WAIT, Next.READ) or (verdict.next is Next.SETTLED and answer.status == 200):
            self._accepted(row.key)
        self._jobs_exist |= verdict.next is Next.WAIT
        if verdict.next in (Next.WAIT, Next.READ) or verdict.from_server or verdict.status is Status.UPDATED:
            self._is_the_api = self.knows_spelling = True
        elif not self._is_the_api and 300 <= (answer.status or 0) < 400:
            said, hint = foreign(answer), endpoint_hint(answer)
            return verdict._replace(next=Next.HALT, code=f"HTTP_{answer.status}", message=said, hint=hint)
        return verdict

    async def _put(self, row: RowState) -> Verdict:
        for _ in range(LOOKS):
            if unsent := await self._compare_again(row):
                return unsent
            body = self._tags.body(row.claim)
            if not body:  # tags only, which go another way
                row.begin(self._now(), self._clock())
                return Verdict(Next.SETTLED, Status.UPDATED, unconfirmed=tuple(row.claim.fields))
            if verdict := await self._in_turn(row, body):
                return verdict
        message = (
            f"{LOOKS} times the row waited longer than {self._longest:.0f} s for its turn after its image was read"
        )
        hint = "lower --concurrency, raise --rate, or add --no-survey"
        return Verdict(Next.HALT, code="CANNOT_COMPARE", message=message, hint=hint, sent=False)

    async def _in_turn(self, row: RowState, body: Fields) -> Verdict | None:
        """One PUT goes out at a time until the server's spelling of the action key is known; None where nothing was sent."""
        if not self.knows_spelling:
            async with self._spelling:
                if not self.knows_spelling:
                    return await self._find_spelling(row, body)
        return await self._update(row, body)

    async def _find_spelling(self, row: RowState, body: Fields) -> Verdict | None:
        """One PUT, while all others wait; where it ends the run, none of them is sent."""
        if self._halted:
            return self._halted
        verdict = await self._update(row, body)
        if verdict is None:
            return None
        if verdict.next is Next.OTHER_KEY:
            row.key_was_switched = self._api.switch_key()
        if verdict.next is Next.HALT or (verdict.next is Next.OTHER_KEY and not row.key_was_switched):
            self._halted = verdict._replace(next=Next.HALT, sent=False, maybe_applied=False)
        return verdict

    async def _update(self, row: RowState, body: Fields) -> Verdict | None:
        """Send the row, once the pace admits it; None where its image was compared too long ago by then."""
        epoch = await self._pace.admit()
        if not self._leaves(row, epoch):
            return None
        begun = partial(self._begun, row)
        answer = await self._api.update(epoch, row.claim.uuid, body, row.claim.job_uuid, begun)
        return self.judged(row, answer)

    # -- the job and the image ------------------------------------------------------------------------------------------

    async def _ask(self, row: RowState) -> Verdict:
        """What became of a request whose answer is lost or unbound, by its job."""
        row.begin(self._now(), self._clock())
        answer = await self._reader.patiently(lambda: self._api.poll(row.claim.job_uuid))
        verdict = judge_poll(answer, row.claim)
        self._jobs_exist |= verdict.next is Next.WAIT and verdict.http_status == 202
        return verdict

    async def _wait(self, row: RowState) -> Verdict:
        """Poll the job until it has a result. Spaced with jitter, so that many jobs do not poll in step.

        Its time does not run while the gate is closed, nor while the server leaves a poll without an answer.
        """
        breaker = self._pace.breaker
        deadline, delay = breaker.closed_time() + self._job_timeout, POLL_FIRST
        tries = RetryCounter(max(QUESTIONS, self._retries), breaker)
        while breaker.closed_time() < deadline:
            await self._sleep(delay * self._rng.uniform(0.8, 1.2))
            delay = min(delay * POLL_GROWTH, POLL_MOST)
            if self._polls_in_vain >= POLLS_IN_VAIN and (seen := await self._seen(row)):
                return seen
            asked_at = breaker.closed_time()
            answer = await self._api.poll(row.claim.job_uuid)
            self._polls_in_vain = self._polls_in_vain + (answer.failure_id != RATE_LIMITED) if answer.failure_id else 0
            verdict = judge_poll(answer, row.claim)
            if verdict.next is not Next.WAIT:
                return verdict
            if not answer.failure_id:
                tries = RetryCounter(max(QUESTIONS, self._retries), breaker)
            elif answer.status is None:
                tries.note(answer.failure_id)
                deadline += breaker.closed_time() - asked_at  # an unanswered poll does not count against the job
                if await tries.is_spent():
                    break
        return JOB_LOST

    async def _seen(self, row: RowState) -> Verdict | None:
        """What the image shows already, while polls fail: a proxy may fail at the path of jobs and at no other.

        Only then: as long as the job can be asked, its result is the row's.
        """
        verdict = judge_read(await self._api.read(row.claim.uuid), row.claim)
        return verdict if verdict.status is Status.UPDATED else None

    async def _read(self, row: RowState) -> Verdict:
        """The image as it is now, with a new session where the old one is dead."""
        ticket = self._api.auth.ticket
        answer = await self._reader.patiently(lambda: self._api.read(row.claim.uuid))
        verdict = judge_read(answer, row.claim)
        if verdict.next is not Next.RENEW:
            return verdict
        if refused := await self.renew(ticket, verdict):
            return refused._replace(maybe_applied=True)
        return judge_read(await self._api.read(row.claim.uuid), row.claim)

    async def renew(self, ticket: str, verdict: Verdict) -> Verdict | None:
        """Get a new session for a dead one; HALT, with the same doubt, when there is none to be had."""
        try:
            await self._api.auth.renew(ticket)
        except TargetError as error:
            return verdict._replace(next=Next.HALT, code="LOGIN_REFUSED", message=str(error), hint="")
        return None

    async def _confirm(self, claim: Claim, so_far: Verdict) -> Verdict:
        """Where it cannot be read, the row stays `updated`, and its message names what nothing has shown."""
        try:
            image = await self._reader.one(claim.uuid, names_to_confirm(claim, so_far))
        except CannotRead:
            self._can_read = False
            return so_far
        except TargetError:
            return so_far
        return confirm(so_far, claim, image) if image is not None else so_far

    async def _sync_tags(self, claim: Claim, so_far: Verdict) -> Verdict:
        try:
            return await self._tags.complete(claim, so_far)
        except TargetError as error:
            return so_far._replace(next=Next.HALT, status=None, code="TAGS", message=str(error), maybe_applied=True)
