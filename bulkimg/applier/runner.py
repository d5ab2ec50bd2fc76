"""Send all rows: keep as many journeys under way as allowed, and act on their verdicts."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bulkimg.applier.agenda import Agenda
from bulkimg.applier.errorwatch import ErrorWatch
from bulkimg.applier.journey import Errand, Journey
from bulkimg.applier.policy import Policy
from bulkimg.applier.tagging import Tagging
from bulkimg.applier.verdict import Next, Verdict, message_of
from bulkimg.errors import Exit, TargetError
from bulkimg.model import Claim, Event, Outcome, Retrying, Status, Stopping
from bulkimg.pace import HELD, Pace, Patience, full_jitter
from bulkimg.pace.outside import Outside
from bulkimg.planner.reading import BATCH, CannotRead, Reader
from bulkimg.zstack import ImageApi
from bulkimg.zstack.wire import new_job_uuid

_ERRORS = (Status.FAILED, Status.UNKNOWN, Status.DRIFTED)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run ended before its rows did, and the exit code that says so. `resumable`: typing resume or apply may do better;
    a guard would stop it again."""

    exit_code: Exit
    why: str
    resumable: bool = True
    elsewhere: bool = False  # the endpoint is not the API's


class Store(Protocol):
    """The ledger as the runner needs it; every coroutine returns when its writes are durable."""

    async def claim(
        self, after: int, limit: int, new_job: Callable[[], str], now: float, only: Sequence[int] | None
    ) -> list[Claim]: ...
    async def claim_again(self, item: Claim, now: float) -> None: ...
    async def close_attempt(self, item: Claim, fate: str, code: str, http_status: int | None) -> None: ...
    async def release(self, items: Sequence[Claim]) -> None: ...
    def settle(self, outcome: Outcome) -> None: ...
    def remember_key(self, key: str) -> None: ...


class Runner:
    """One run of one ledger against one server. `only`: none but the rows with these ordinals."""

    def __init__(
        self,
        store: Store,
        api: ImageApi,
        reader: Reader,
        pace: Pace,
        policy: Policy,
        emit: Callable[[Event], None],
        outside: Outside,
        *,
        only: Sequence[int] | None = None,
    ) -> None:
        self._store = store
        self._api = api
        self._pace = pace
        self._policy = policy
        self._emit = emit
        self._clock, self._now, self._rng = outside.clock, outside.now, outside.rng
        self._only = only
        self._looks = False  # rows are compared with their plan before they are sent
        tagging = Tagging(api, reader, outside, policy)
        self._journey = Journey(api, reader, tagging, pace, outside, policy, self._key_accepted)
        self._errors = ErrorWatch(policy.max_errors, policy.errors_before)
        self._agenda = Agenda(self._claim, self._errand, self._look, pace, self._clock, self.fail, self._ahead)
        self._workers: dict[asyncio.Task[None], Errand | None] = {}
        self._stop: Stop | None = None
        self._failure: BaseException | None = None

    # -- from outside ---------------------------------------------------------------------------------------------------

    async def run(self) -> Stop | None:
        """Until every row is settled, or a stop has drained. Raises what a worker raised: a bug, or a StorageError."""
        self._pace.on_concurrency_change(self._spawn)
        self._spawn()
        while self._workers:
            await asyncio.wait(self._workers, return_when=asyncio.FIRST_COMPLETED)
        left_over = await self._agenda.left_over()
        if self._failure:
            raise self._failure
        await self._give_back(*left_over)
        return self._stop

    def stop(self, exit_code: Exit, why: str, *, elsewhere: bool = False) -> None:
        """Start no new row; rows of which nothing was sent are given back, those in flight finish within the drain time."""
        if self._stop:
            return
        self._stop = Stop(exit_code, why, elsewhere=elsewhere)
        self._emit(Stopping(why))
        self._agenda.close()
        for worker, errand in self._workers.items():
            if errand is not None and not errand.in_flight:
                worker.cancel()
        asyncio.get_running_loop().call_later(self._policy.drain_timeout, self.stop_now)

    @property
    def is_stopping(self) -> bool:
        return self._stop is not None

    def stop_now(self) -> None:
        """End every journey at once; the ledger keeps their attempts open, and resuming asks about them."""
        for worker in self._workers:
            worker.cancel()

    # -- workers --------------------------------------------------------------------------------------------------------

    def _key_accepted(self, key: str) -> None:
        """The server's own answer to a PUT shows that it knows the action by this name."""
        if not self._api.key_is_known and key == self._api.action_key:
            self._api.key_is_known = True
            self._store.remember_key(key)

    def _spawn(self) -> None:
        while len(self._workers) < self._pace.concurrency and not self._stop:
            worker = asyncio.create_task(self._work())
            self._workers[worker] = None
            worker.add_done_callback(self._ended)
        self._agenda.wake()

    def _ended(self, worker: asyncio.Task[None]) -> None:
        errand = self._workers.pop(worker, None)
        if worker.cancelled():
            if errand is not None and not errand.in_flight:
                self._agenda.not_begun(errand)  # run() gives it back
        elif error := worker.exception():
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End at once, and let run() raise: after a bug or a failed disk nothing more is sent."""
        self._failure = self._failure or error
        self._stop = self._stop or Stop(Exit.STORAGE, str(error))
        self.stop_now()
        self._agenda.close()

    async def _work(self) -> None:
        """Carry errands until there are no more or the workers are too many."""
        me = asyncio.current_task()
        assert me is not None
        while errand := await self._agenda.next():
            self._workers[me] = errand
            await self._carry(errand)
            self._workers[me] = None
            if len(self._workers) > self._pace.concurrency:
                del self._workers[me]  # at once, so that not all of them leave
                return

    def _ahead(self) -> int:
        """Rows claimed at a time: many where one question looks at all of them, but no more than is sent soon, because open
        claims are asked about after a crash and what was looked at grows old."""
        per_second = min(self._pace.rate.per_second, 1e6)
        most = min(BATCH, per_second * 2) if self._looks else min(4 * self._pace.concurrency, per_second / 4)
        return max(1, int(most))

    async def _claim(self, after: int, limit: int) -> list[Claim]:
        claims = await self._store.claim(after, limit, self._new_job, self._now(), self._only)
        self._looks = any(item.before is not None for item in claims) or self._looks
        return claims

    async def _look(self, errands: list[Errand]) -> list[Errand]:
        """The rows that are to be sent; those whose images have changed since the plan are settled here."""
        try:
            verdicts = await self._journey.look(errands)
        except (CannotRead, TargetError) as why:
            self.stop(Exit.TARGET, f"cannot compare the images with the plan any more: {why}")
            return errands
        for errand in errands:
            if verdict := verdicts.get(errand.claim.ordinal):
                await self._settle_unsent(errand, verdict)
        return [errand for errand in errands if errand.claim.ordinal not in verdicts]

    def _errand(self, claim: Claim) -> Errand:
        patience = Patience(self._policy.retries, self._pace.gate)
        return Errand(claim, patience, maybe_applied=claim.doubtful and not claim.interrupted)

    def _new_job(self) -> str:
        return new_job_uuid(self._rng)

    # -- one errand -----------------------------------------------------------------------------------------------------

    async def _carry(self, errand: Errand) -> None:
        try:
            if errand.last is not None:
                if await errand.patience.is_spent():
                    await self._give_up(errand, errand.last)
                    return
                await self._claim_again(errand, errand.last)
            verdict = await self._journey.take(errand)
            await self._obey(errand, verdict)
        except asyncio.CancelledError:
            await self._give_back(errand)
            raise
        finally:
            self._agenda.done()

    async def _claim_again(self, errand: Errand, last: Verdict) -> None:
        """One more attempt, durable before it begins; it keeps the job's uuid where that is unused."""
        job = self._new_job() if last.job_used else errand.claim.job_uuid
        errand.claim = errand.claim._replace(attempt=errand.claim.attempt + 1, job_uuid=job, interrupted=False)
        await self._store.claim_again(errand.claim, self._now())
        errand.last = None

    async def _give_back(self, *errands: Errand) -> None:
        """Take back claims of which nothing was sent; those of an earlier process stay open until they are checked."""
        await self._store.release([e.claim for e in errands if not e.in_flight and not e.claim.interrupted])

    async def _obey(self, errand: Errand, verdict: Verdict) -> None:
        match verdict.next:
            case Next.SETTLED if not verdict.sent:
                await self._settle_unsent(errand, verdict)
            case Next.SETTLED if verdict.status is Status.FAILED and errand.maybe_applied:
                await self._last_word(errand, verdict)
            case Next.SETTLED:
                self._settle(errand, verdict)
            case Next.OTHER_KEY:
                await self._other_key(errand, verdict)
            case Next.RENEW:
                await self._at_once(errand, verdict)
            case Next.AGAIN if errand.claim.interrupted:
                await self._at_once(errand, verdict)  # a crash is not the row's fault either
            case Next.HALT:
                await self._halt(errand, verdict)
            case _:
                await self._retry(errand, verdict)

    async def _other_key(self, errand: Errand, verdict: Verdict) -> None:
        """Send again with the spelling the server knows; there are two, and an operator may have fixed one."""
        switched, errand.key_was_switched = errand.key_was_switched, False
        if not switched and errand.key == self._api.action_key and not self._api.switch_key():
            hint = "check --endpoint, --base-path and --action-key: this may not be the image API of a ZStack server"
            await self._halt(errand, verdict._replace(hint=hint))
        else:
            await self._at_once(errand, verdict)

    async def _retry(self, errand: Errand, verdict: Verdict) -> None:
        if not self._api.reached and verdict.code == "NOT_CONNECTED":
            await self._halt(errand, verdict)
            return
        if verdict.streak != HELD:
            errand.patience.note(verdict.streak)
        if errand.patience.spent:
            await self._give_up(errand, verdict)
            return
        after = 0.0 if verdict.streak == HELD else full_jitter(errand.patience.own, self._rng)
        await self._again(errand, verdict)
        self._agenda.after(after, errand)
        self._emit(Retrying(errand.claim.ordinal, errand.claim.uuid, verdict.code, after))

    async def _at_once(self, errand: Errand, verdict: Verdict) -> None:
        """Send again for a reason that is the run's, not the row's: a new session, the other spelling."""
        await self._again(errand, verdict)
        self._agenda.at_once(errand)

    async def _give_up(self, errand: Errand, verdict: Verdict) -> None:
        """No more tries are left."""
        if errand.maybe_applied or verdict.maybe_applied:
            await self._last_word(errand, verdict)
        else:
            self._settle(errand, verdict._replace(status=Status.FAILED))

    async def _last_word(self, errand: Errand, verdict: Verdict) -> None:
        """No more tries, and one of them may have been applied: the image itself is asked."""
        found = await self._journey.second_look(errand, verdict)
        if found.next is Next.HALT:
            await self._halt(errand, found)
        else:
            self._settle(errand, found)

    async def _again(self, errand: Errand, verdict: Verdict) -> None:
        """Close the attempt; the errand continues later."""
        await self._close(errand, verdict)
        errand.maybe_applied |= verdict.maybe_applied
        errand.last, errand.in_flight = verdict, False

    async def _close(self, errand: Errand, verdict: Verdict) -> None:
        fate = "unclear" if verdict.maybe_applied else "refused" if verdict.sent else "unsent"
        await self._store.close_attempt(errand.claim, fate, verdict.code, verdict.http_status)

    async def _halt(self, errand: Errand, verdict: Verdict) -> None:
        await self._close(errand, verdict)
        why = ": ".join(part for part in (verdict.code, verdict.message) if part)
        elsewhere = 300 <= (verdict.http_status or 0) < 400
        self.stop(Exit.TARGET, f"{why}; {verdict.hint}" if verdict.hint else why, elsewhere=elsewhere)

    async def _settle_unsent(self, errand: Errand, verdict: Verdict) -> None:
        await self._take_back(errand)
        self._settle(errand, verdict)

    async def _take_back(self, errand: Errand) -> None:
        """The attempt that was claimed for it: nothing was sent under it."""
        await self._store.release([errand.claim])
        errand.claim = errand.claim._replace(attempt=errand.claim.attempt - 1)
        errand.in_flight = False

    def _settle(self, errand: Errand, verdict: Verdict) -> None:
        claim = errand.claim
        status = verdict.status
        assert status is not None
        self._errors.note(error=status in _ERRORS)
        self._store.settle(
            Outcome(
                ordinal=claim.ordinal,
                line=claim.line,
                uuid=claim.uuid,
                status=status,
                code=verdict.code,
                message=message_of(verdict),
                hint=verdict.hint,
                http_status=verdict.http_status,
                attempts=claim.attempt,
                job_uuid=claim.job_uuid,
                started_at=errand.started_at,
                duration_ms=round((self._clock() - errand.begun) * 1000) if errand.started_at is not None else None,
                changed=tuple(claim.fields) if claim.attempt else (),
                before={name: claim.before[name] for name in claim.fields if name in claim.before}
                if claim.before and claim.attempt
                else None,
                after=verdict.after,
            )
        )
        if why := self._errors.exceeded:
            self.stop(Exit.ERROR_LIMIT, why)
