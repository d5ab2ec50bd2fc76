"""This file is one row's way: send, wait for its job, ask when the answer was lost; until a verdict that the runner acts on."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from bulkimg.apply.backoff import full_jitter
from bulkimg.apply.patience import Patience
from bulkimg.apply.verdict import Next, Verdict, judge_poll, judge_read, judge_update
from bulkimg.errors import TargetError
from bulkimg.model import Claim, Status
from bulkimg.pace import HELD, Gate
from bulkimg.zstack import Answer, ImageApi

POLL_FIRST = 0.05  # seconds to a job's first poll
POLL_GROWTH = 1.6
# A question does no harm and is asked again at least so often: with --retries 0 one lost answer would be the end of a row.
QUESTIONS = 3
POLLS_IN_VAIN = 5  # of any rows, without one good answer in between, until images are looked at first
POLL_MOST = 2.0  # the vendor's SDKs poll every 1 or 2 s
IS_IT_THERE = "is the server there, and --endpoint right?"
LOOK = "look at the image, then `bulkimg retry last`"
JOB_LOST = Verdict(
    Next.ASK, None, "JOB_TIMEOUT", "the job was accepted and has no result yet", LOOK, 202, maybe_applied=True
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


class Outside(Protocol):
    """What comes from outside: `clock` is monotonic seconds, `now` seconds since the epoch."""

    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def now(self) -> Callable[[], float]: ...
    @property
    def sleep(self) -> Callable[[float], Awaitable[None]]: ...
    @property
    def rng(self) -> random.Random: ...


class Journey:
    """Takes rows along their way. `job_timeout` is seconds; `accepted` is told the action key that the server took."""

    def __init__(
        self,
        api: ImageApi,
        gate: Gate,
        outside: Outside,
        *,
        retries: int,
        job_timeout: float,
        accepted: Callable[[str], None],
    ) -> None:
        self._api = api
        self._gate = gate
        self._clock, self._now = outside.clock, outside.now
        self._sleep, self._rng = outside.sleep, outside.rng
        self._retries = retries
        self._job_timeout = job_timeout
        self._accepted = accepted
        self._polls_in_vain = 0
        self.jobs_exist = False  # this server answers 202

    async def take(self, errand: Errand) -> Verdict:
        """SETTLED, AGAIN, OTHER_KEY, RENEW or HALT: everything else is resolved on the way."""
        if not errand.claim.interrupted:
            return await self._send(errand)
        self._begin(errand)
        verdict = await self._ask(errand, Verdict(Next.ASK, maybe_applied=True))
        if not self._api.reached:
            return verdict._replace(
                next=Next.HALT, status=None, code="NOT_CONNECTED", message="no connection", hint=IS_IT_THERE
            )
        # Nobody can say what became of the interrupted request: the same absolute values are sent once more.
        return verdict._replace(next=Next.AGAIN, status=None) if verdict.status is Status.UNKNOWN else verdict

    async def second_look(self, errand: Errand, verdict: Verdict) -> Verdict:
        """The end of a row whose tries are spent while one of them may have been applied: what job and image show.

        The server's own refusal of the last try stands where no earlier one is in doubt.
        """
        doubt = verdict._replace(maybe_applied=True)
        found = doubt if verdict.job_used else await self._ask(errand, doubt)  # an error may hide a job that runs
        if found.next is Next.AGAIN and found.job_used:
            found = await self._read(errand, found)
        if found.status in (Status.UPDATED, Status.DRIFTED) or found.next is Next.HALT:
            return found
        if found.from_server and not errand.maybe_applied and found.next is Next.AGAIN:
            return verdict._replace(next=Next.SETTLED, status=Status.FAILED)
        return unknown(verdict)

    def _begin(self, errand: Errand) -> None:
        errand.in_flight = True
        if errand.started_at is None:
            errand.started_at, errand.begun = self._now(), self._clock()

    async def _send(self, errand: Errand) -> Verdict:
        claim = errand.claim
        ticket = self._api.auth.ticket
        errand.key = self._api.action_key
        answer = await self._api.update(claim.uuid, claim.fields, claim.job_uuid, lambda: self._begin(errand))
        verdict = judge_update(answer, claim)
        if verdict.next in (Next.WAIT, Next.READ) or (verdict.next is Next.SETTLED and answer.status == 200):
            self._accepted(errand.key)
        if verdict.next is Next.WAIT:
            self.jobs_exist = True
            verdict = await self._wait(errand, POLL_FIRST)
        elif verdict.next is Next.ASK:
            verdict = await self._ask(errand, verdict)
        elif verdict.next is Next.READ:
            verdict = await self._read(errand, verdict)
        return await self._renewed(verdict, ticket) if verdict.next is Next.RENEW else verdict

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
                deadline += self._gate.open_time() - asked_at  # a poll that nobody answers is not the job's time
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
        verdict = await self._patiently(lambda: self._api.poll(errand.claim.job_uuid), judge_poll, errand)
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
            )  # nobody told of a job: there may be one, whatever the server said
        return await self._read(errand, verdict if verdict.status is Status.DRIFTED else doubt)

    async def _patiently(
        self, call: Callable[[], Awaitable[Answer]], judge: Callable[[Answer, Claim], Verdict], errand: Errand
    ) -> Verdict:
        """Ask until the server says anything at all: a question may be asked often, unlike a PUT."""
        patience = Patience(max(QUESTIONS, self._retries), self._gate)
        while (answer := await call()).streak:
            if answer.streak == HELD:
                continue
            if answer.failure == "NOT_CONNECTED" and not self._api.reached:
                break  # it has not been there since this process began
            patience.note(answer.streak)
            if await patience.is_spent():
                break
            await self._sleep(full_jitter(patience.own, self._rng))
        return judge(answer, errand.claim)

    async def _read(self, errand: Errand, doubt: Verdict) -> Verdict:
        """Settle a doubt by the image itself. What reading cannot tell stays in doubt; a refusal in doubt stands."""
        ticket = self._api.auth.ticket
        verdict = await self._patiently(lambda: self._api.read(errand.claim.uuid), judge_read, errand)
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


def unknown(doubt: Verdict) -> Verdict:
    """The honest end of a row that nobody can tell about."""
    return doubt._replace(
        next=Next.SETTLED,
        after=None,
        status=Status.UNKNOWN,
        code=doubt.code or "UNKNOWN",
        message=f"{doubt.message or 'no certain answer'}; the server could not tell what became of it",
        hint=LOOK,
    )
