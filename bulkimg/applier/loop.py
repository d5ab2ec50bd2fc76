"""Carry all rows: as many in flight as allowed, each from its claim to its durable outcome."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bulkimg.applier.decide import Decision, Resolve, Retry, Settle, Step, Stop, decide, first_step, give_up
from bulkimg.applier.errorwatch import ErrorWatch
from bulkimg.applier.judge import Next, Verdict, is_clean, is_plain, message_of
from bulkimg.applier.perform import Performer
from bulkimg.applier.policy import Policy
from bulkimg.applier.row import RowState
from bulkimg.applier.scheduler import Scheduler
from bulkimg.errors import Exit, TargetError
from bulkimg.model import Claim, Event, Outcome, Retrying, Status, Stopping, as_stored
from bulkimg.pace import RATE_LIMITED, LoadSignal, Pace, RetryCounter, full_jitter
from bulkimg.planner.reading import BATCH, CannotRead, Reader
from bulkimg.runtime import Runtime
from bulkimg.zstack import ImageApi
from bulkimg.zstack.wire import TURN_LOST, new_job_uuid

ERRORS = (Status.FAILED, Status.UNKNOWN, Status.DRIFTED)
_RENAMED = (Status.UPDATED, Status.DRIFTED, Status.UNKNOWN)  # the name that was read before may be another one now


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run ended before its rows did, and the exit code that says so. `resumable`: typing resume or apply may do better;
    a guard would stop it again."""

    exit_code: Exit
    why: str
    resumable: bool = True
    elsewhere: bool = False  # the endpoint is not the API's


class Store(Protocol):
    """Where rows come from and outcomes go: the ledger. Every coroutine returns when its writes are durable."""

    async def claim(
        self, after: int, limit: int, new_job: Callable[[], str], now: float, only: Sequence[int] | None
    ) -> list[Claim]: ...
    async def claim_again(self, item: Claim, now: float) -> None: ...
    async def close_attempt(self, item: Claim, fate: str, code: str, http_status: int | None) -> None: ...
    async def release(self, items: Sequence[Claim]) -> None: ...
    def settle(self, outcome: Outcome, *, as_sent: bool = False) -> "asyncio.Future[None]": ...
    def remember_key(self, key: str) -> None: ...


class Loop:
    """One run of one ledger against one server. `only`: none but the rows with these ordinals."""

    def __init__(
        self,
        store: Store,
        api: ImageApi,
        reader: Reader,
        pace: Pace,
        policy: Policy,
        emit: Callable[[Event], None],
        runtime: Runtime,
        *,
        only: Sequence[int] | None = None,
    ) -> None:
        self._store = store
        self._api = api
        self._pace = pace
        self._policy = policy
        self._emit = emit
        self._clock, self._now, self._rng = runtime.clock, runtime.now, runtime.rng
        self._only = only
        self._compares = False  # rows are compared with their plan before they are sent
        self._performer = Performer(api, reader, pace, runtime, policy, self._key_accepted)
        self._errors = ErrorWatch(policy.max_errors, policy.errors_before)
        self._scheduler = Scheduler(self._claimed, pace, self._clock, self.fail, self._ahead)
        self._slots: dict[asyncio.Task[None], RowState | None] = {}
        self._ending: Ending | None = None
        self._failure: BaseException | None = None

    # -- from runtime ---------------------------------------------------------------------------------------------------

    async def run(self) -> Ending | None:
        """Until every row is settled, or a stop has drained. Raises what a slot raised: a bug, or a StorageError."""
        self._pace.on_concurrency_change(self._spawn)
        self._spawn()
        while self._slots:
            await asyncio.wait(self._slots, return_when=asyncio.FIRST_COMPLETED)
        left_over = await self._scheduler.left_over()
        if self._failure:
            raise self._failure
        await self._give_back(*left_over)
        return self._ending

    def stop(self, exit_code: Exit, why: str, *, elsewhere: bool = False) -> None:
        """Start no new row; rows of which nothing was sent are given back, those in flight finish within the drain time."""
        if self._ending:
            return
        self._ending = Ending(exit_code, why, elsewhere=elsewhere)
        self._emit(Stopping(why))
        self._scheduler.close()
        for slot, row in self._slots.items():
            if row is not None and not row.in_flight:
                slot.cancel()
        asyncio.get_running_loop().call_later(self._policy.drain_timeout, self.stop_now)

    @property
    def is_stopping(self) -> bool:
        return self._ending is not None

    def stop_now(self) -> None:
        """End every row at once; the ledger keeps their attempts open, and resuming asks about them."""
        for slot in self._slots:
            slot.cancel()

    def fail(self, error: BaseException) -> None:
        """End at once, and let run() raise: after a bug or a failed disk nothing more is sent."""
        self._failure = self._failure or error
        self._ending = self._ending or Ending(Exit.STORAGE, str(error))
        self.stop_now()
        self._scheduler.close()

    # -- slots ----------------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        while len(self._slots) < self._pace.concurrency and not self._ending:
            slot = asyncio.create_task(self._work())
            self._slots[slot] = None
            slot.add_done_callback(self._ended)
        self._scheduler.wake()

    def _ended(self, slot: asyncio.Task[None]) -> None:
        row = self._slots.pop(slot, None)
        if slot.cancelled():
            if row is not None and not row.in_flight:
                self._scheduler.not_begun(row)  # run() gives it back
        elif error := slot.exception():
            self.fail(error)

    async def _work(self) -> None:
        """Carry rows until there are no more or the slots are too many."""
        me = asyncio.current_task()
        assert me is not None
        while row := self._scheduler.ready() or await self._scheduler.next():
            self._slots[me] = row
            try:
                await self._carry(row)
            except asyncio.CancelledError:
                await self._give_back(row)
                raise
            finally:
                self._scheduler.done()
            self._slots[me] = None
            if len(self._slots) > self._pace.limit.value:
                del self._slots[me]  # at once, so that not all of them leave
                return

    # -- claims ---------------------------------------------------------------------------------------------------------

    def _ahead(self) -> int:
        """Rows claimed at a time: many where one question compares all of them, but no more than is sent soon, because open
        claims are asked about after a crash and what was compared grows old."""
        per_second = min(self._pace.rate.per_second, 1e6)
        most = min(BATCH, per_second * 2) if self._compares else min(4 * self._pace.concurrency, per_second / 4)
        return max(1, int(most))

    async def _claimed(self, after: int, limit: int) -> tuple[int, list[RowState]]:
        """The next rows to send, and the last ordinal that was claimed, 0 when there are no more. Rows whose images have changed
        since the plan are settled here."""
        claims = await self._store.claim(after, limit, self._new_job, self._now(), self._only)
        rows = [self._row(claim) for claim in claims]
        if not claims:
            return 0, []
        self._compares |= any(claim.before is not None for claim in claims)
        return claims[-1].ordinal, await self._compared(rows) if self._compares and not self._ending else rows

    async def _compared(self, rows: list[RowState]) -> list[RowState]:
        """The rows that are to be sent; all of them, to be given back, where the run stops meanwhile."""
        try:
            verdicts = await self._scheduler.until_closed(self._performer.compare(rows))
        except (CannotRead, TargetError) as why:
            self.stop(Exit.TARGET, f"cannot compare the images with the plan any more: {why}")
            return rows
        if not verdicts:
            return rows
        await self._settle_unsent([(row, verdicts[row.claim.ordinal]) for row in rows if row.claim.ordinal in verdicts])
        return [row for row in rows if row.claim.ordinal not in verdicts]

    @staticmethod
    def _row(claim: Claim) -> RowState:
        doubtful = claim.doubtful and not claim.interrupted
        return RowState(claim, is_plain(claim), "name" in claim.fields, maybe_applied=doubtful)

    def _new_job(self) -> str:
        return new_job_uuid(self._rng)

    def _key_accepted(self, key: str) -> None:
        """The server's own answer to a PUT shows that it knows the action by this name."""
        if not self._api.key_is_known and key == self._api.action_key:
            self._api.key_is_known = True
            self._store.remember_key(key)

    # -- one row --------------------------------------------------------------------------------------------------------

    async def _carry(self, row: RowState) -> None:
        """From its claim to its durable outcome, or to its place among the rows that wait for another try."""
        try:
            decision = await self._begun(row)
            while isinstance(decision, Resolve):
                decision = await self._follow(row, decision, await self._performer.take(row, decision))
        finally:
            if row.sent_since:
                self._landed(row, LoadSignal.ELSE)
        match decision:
            case Settle(verdict) if verdict.sent:
                await self._recorded(row, verdict)
            case Settle(verdict):
                await self._settle_unsent([(row, verdict)])
            case Stop(verdict):
                await self._halt(row, verdict)

    async def _begun(self, row: RowState) -> Decision | None:
        """The first decision on a row. A plain row goes the straight line: one PUT, one comparison."""
        if row.last is not None:
            return await self._next_try(row, row.last)
        answer = await self._performer.straight(row) if row.is_plain and self._performer.knows_spelling else None
        if answer is None:
            return first_step(row.claim)
        if row.sent_since and is_clean(answer, row.claim):
            self._pace.row_done(row.sent_since, LoadSignal.WELL)
            row.sent_since = None
            return Settle(Verdict(Next.SETTLED, Status.UPDATED, http_status=200, after=row.claim.fields))
        return await self._follow(row, first_step(row.claim), self._performer.judged(row, answer))

    async def _follow(self, row: RowState, taken: Resolve, verdict: Verdict) -> Decision | None:
        """What follows from a step; None where the row waits for its next attempt."""
        if taken.step is Step.PUT and verdict.next in (Next.ASK, Next.READ):
            self._landed(row, _load_shown_by(verdict))
        decision: Decision | None = decide(self._performer.known(row, taken), taken.step, verdict)
        if not (isinstance(decision, Resolve) and decision.step in (Step.ASK, Step.WAIT, Step.READ)):
            self._landed(row, LoadSignal.WELL if verdict.status is Status.UPDATED else _load_shown_by(verdict))
        return await self._retry(row, decision.verdict) if isinstance(decision, Retry) else decision

    def _landed(self, row: RowState, signal: LoadSignal) -> None:
        """The server works on the row no more, as far as we know."""
        if row.sent_since:
            self._pace.row_done(row.sent_since, signal)
            row.sent_since = None

    # -- another try ----------------------------------------------------------------------------------------------------

    async def _next_try(self, row: RowState, last: Verdict) -> Decision:
        """Claim one more attempt, durable before it begins; it keeps the job's uuid where that is unused."""
        if row.tries and await row.tries.is_spent():
            return self._give_up(row, last)
        job = self._new_job() if last.job_used else row.claim.job_uuid
        row.claim = row.claim._replace(attempt=row.claim.attempt + 1, job_uuid=job, interrupted=False)
        await self._store.claim_again(row.claim, self._now())
        row.last = None
        return first_step(row.claim)

    async def _retry(self, row: RowState, verdict: Verdict) -> Decision | None:
        match verdict.next:
            case Next.OTHER_KEY:
                return await self._other_key(row, verdict)
            case Next.RENEW:
                if refused := await self._performer.renew(row.ticket, verdict):
                    return Stop(refused)
            case _ if verdict.code == TURN_LOST and not verdict.sent:
                row.in_flight = False  # the attempt is still unused
                self._scheduler.at_once(row)
                return None
            case _ if row.claim.interrupted:
                pass  # a crash is not the row's fault
            case _ if not self._api.reached and verdict.code == "NOT_CONNECTED":
                return Stop(verdict)
            case _:
                return await self._later(row, verdict)
        await self._at_once(row, verdict)
        return None

    async def _other_key(self, row: RowState, verdict: Verdict) -> Decision | None:
        """Send again with the spelling the server knows; there are two, and an operator may have fixed one."""
        switched, row.key_was_switched = row.key_was_switched, False
        if not switched and row.key == self._api.action_key and not self._api.switch_key():
            hint = "check --endpoint, --base-path and --action-key: this may not be the image API of a ZStack server"
            return Stop(verdict._replace(hint=hint))
        await self._at_once(row, verdict)
        return None

    async def _later(self, row: RowState, verdict: Verdict) -> Decision | None:
        tries = row.tries = row.tries or RetryCounter(self._policy.retries, self._pace.breaker)
        if verdict.failure_id != RATE_LIMITED:
            tries.note(verdict.failure_id)
        if tries.spent:
            return self._give_up(row, verdict)
        after = 0.0 if verdict.failure_id == RATE_LIMITED else full_jitter(tries.own, self._rng)
        await self._close(row, verdict)
        self._scheduler.after(after, row)
        self._emit(Retrying(row.claim.ordinal, row.claim.uuid, self._redacted(row, verdict).code, after))
        return None

    async def _at_once(self, row: RowState, verdict: Verdict) -> None:
        """Send again for a reason that is the run's, not the row's: a new session, the other spelling."""
        await self._close(row, verdict)
        self._scheduler.at_once(row)

    def _give_up(self, row: RowState, verdict: Verdict) -> Decision:
        return give_up(self._performer.known(row, Resolve(Step.PUT, verdict)), verdict)

    async def _close(self, row: RowState, verdict: Verdict) -> None:
        """Close the attempt; the row continues later."""
        await self._close_attempt(row, self._redacted(row, verdict))
        row.maybe_applied |= verdict.maybe_applied
        row.last, row.in_flight = verdict, False

    # -- the end of a row -----------------------------------------------------------------------------------------------

    async def _close_attempt(self, row: RowState, verdict: Verdict) -> None:
        fate = "unclear" if verdict.maybe_applied else "refused" if verdict.sent else "unsent"
        await self._store.close_attempt(row.claim, fate, verdict.code, verdict.http_status)

    async def _give_back(self, *rows: RowState) -> None:
        """Take back claims of which nothing was sent; those of an earlier process stay open until they are checked."""
        await self._store.release([row.claim for row in rows if not row.in_flight and not row.claim.interrupted])

    async def _halt(self, row: RowState, verdict: Verdict) -> None:
        verdict = self._redacted(row, verdict)
        await self._close_attempt(row, verdict)
        why = ": ".join(part for part in (verdict.code, verdict.message) if part)
        elsewhere = 300 <= (verdict.http_status or 0) < 400
        self.stop(Exit.TARGET, f"{why}; {verdict.hint}" if verdict.hint else why, elsewhere=elsewhere)

    async def _settle_unsent(self, settled: Sequence[tuple[RowState, Verdict]]) -> None:
        """Settle rows that were claimed and not sent: their attempts are taken back."""
        await self._store.release([row.claim for row, _ in settled])
        for row, _ in settled:
            row.claim = row.claim._replace(attempt=row.claim.attempt - 1)
            row.in_flight = False
        await asyncio.gather(*[self._recorded(row, verdict) for row, verdict in settled])

    def _recorded(self, row: RowState, verdict: Verdict) -> "asyncio.Future[None]":
        """Write down what became of a row. Its slot is free when the future is done: then the outcome is durable."""
        claim, status = row.claim, verdict.status
        assert status is not None
        as_sent = verdict.after is claim.fields  # a clean row repeats the manifest's words, and none of the server's
        if not as_sent:
            verdict = self._redacted(row, verdict)
        too_many = self._errors.note(error=status in ERRORS)
        sent = bool(claim.attempt)
        before = (
            {name: claim.before[name] for name in claim.fields if name in claim.before}
            if claim.before and sent
            else None
        )
        durable = self._store.settle(
            Outcome(
                claim.ordinal,
                claim.line,
                claim.uuid,
                status,
                verdict.code,
                message_of(verdict) if verdict.unconfirmed else verdict.message,
                verdict.hint,
                verdict.http_status,
                claim.attempt,
                claim.job_uuid,
                row.started_at,
                round((self._clock() - row.begun) * 1000) if row.started_at is not None else None,
                tuple(claim.fields) if sent else (),
                before,
                verdict.after,
                self._name_now(row, verdict),
            ),
            as_sent=as_sent,
        )
        if too_many:
            self.stop(Exit.ERROR_LIMIT, too_many)
        return durable

    def _redacted(self, row: RowState, verdict: Verdict) -> Verdict:
        """The verdict as it may be written down. Values that the row asks for are the manifest's, whatever else they may be."""
        redactor, asked = self._api.redactor, row.claim.fields
        after = {
            name: value if name in asked and value == as_stored(asked[name]) else redactor.value(value)
            for name, value in (verdict.after or {}).items()
        }
        return verdict._replace(
            code=redactor.text(verdict.code),
            message=redactor.text(verdict.message),
            after=after if verdict.after else verdict.after,
        )

    @staticmethod
    def _name_now(row: RowState, verdict: Verdict) -> str:
        """What the image is called now, "" where it may have been renamed."""
        if verdict.after and (name := verdict.after.get("name")):
            return str(name)
        return "" if row.sets_name and verdict.status in _RENAMED else row.claim.name


def _load_shown_by(verdict: Verdict) -> LoadSignal:
    """A lost answer, or one of a server in trouble, shows too much load; a refusal, or a request to wait, does not."""
    return LoadSignal.SICK if verdict.failure_id and verdict.failure_id != RATE_LIMITED else LoadSignal.ELSE
