"""The desk: the only writer of the ledger. It hands rows out to workers, and writes down what became of them.

Every row that a worker holds has a durable attempt. What a lost worker held may have been sent, so it is handed out again
as after a crash: the server is asked about it before anything is sent (docs/dev/adr/0019).
"""

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from bulkimg.applier import Ending, Policy
from bulkimg.applier.errorwatch import ErrorWatch
from bulkimg.applier.loop import ERRORS
from bulkimg.cluster.hall import TICK, Hall
from bulkimg.cluster.members import Member
from bulkimg.cluster.messages import LEASE, outcome_of
from bulkimg.engine.carrying import Equipment
from bulkimg.errors import Exit
from bulkimg.ledger import Writer
from bulkimg.model import Claim, Outcome, Stopping
from bulkimg.zstack.wire import new_job_uuid

KEPT = 2.0  # seconds between two records of the workers
NO_WORKER = 60.0  # seconds without any worker until the run stops


class Desk:
    """Gives the rows of one ledger to the workers of a hall, and writes down what they report. `only`: these ordinals."""

    def __init__(self, hall: Hall, own: Equipment, store: Writer, policy: Policy, only: Sequence[int] | None) -> None:
        self._hall = hall
        self._own = own
        self._store = store
        self._drain = policy.drain_timeout
        self._errors = ErrorWatch(policy.max_errors, policy.errors_before)
        self._only = only
        self._runtime = own.runtime
        self._cursor = 0
        self._exhausted = False
        self._claiming = asyncio.Lock()
        self._doubtful: deque[Claim] = deque()  # of lost workers
        self._unsent: set[int] = set()  # ordinals of rows that were given back
        self._settling: set[int] = set()  # ordinals of rows whose outcomes are not durable yet; no worker holds them
        self._ending: Ending | None = None
        self._at_once = False
        self._failure = hall.failure

    # -- as the send loop of one process --------------------------------------------------------------------------------

    async def run(self) -> Ending | None:
        """Return when every row is settled, or a stop has drained. Raises StorageError."""
        self._hall.desk = self
        await self._store.ask(lambda ledger: ledger.set_meta(leased=True))
        alone_since, kept_at = self._runtime.clock(), -math.inf
        try:
            while not self._is_done():
                await self._runtime.sleep(TICK)
                now = self._runtime.clock()
                self._hall.find_lost()
                if self._hall.crew.here:
                    alone_since = now
                elif now - alone_since > NO_WORKER:
                    why = f": {self._hall.trouble}" if self._hall.trouble else ""
                    self.stop(Exit.TARGET, f"no worker of the cluster is left{why}")
                if now >= kept_at + KEPT:
                    kept_at = now
                    self._keep_workers()
            if self._failure:
                raise self._failure
            self._keep_workers(over=True)
            if not self._at_once:
                await self._store.ask(lambda ledger: ledger.set_meta(leased=False))
            return self._ending
        finally:
            self._hall.desk = None

    def _is_done(self) -> bool:
        if self._failure or self._at_once:
            return True
        if self._claiming.locked() or self._settling or any(member.held for member in self._hall.crew):
            return False
        if self._ending:
            return True
        return self._exhausted and not self._doubtful and not self._unsent

    def stop(self, exit_code: Exit, why: str) -> None:
        """Give out no more rows. Workers finish what is in flight within the drain time."""
        if self._ending:
            return
        self._ending = Ending(exit_code, why)
        self._own.observe(Stopping(why))
        asyncio.get_running_loop().call_later(self._drain + LEASE, self.stop_now)

    @property
    def is_stopping(self) -> bool:
        return self._ending is not None

    @property
    def has_more(self) -> bool:
        """Return whether there are rows that no worker holds."""
        return not self._exhausted or bool(self._doubtful) or bool(self._unsent)

    def stop_now(self) -> None:
        """End at once. Rows that workers hold stay open in the ledger."""
        self._ending = self._ending or Ending(Exit.INTERRUPTED, "stopped")
        self._at_once = True

    def fail(self, error: BaseException) -> None:
        """End at once, and let run() raise."""
        self._failure = self._failure or error
        self._ending = self._ending or Ending(Exit.STORAGE, str(error))

    # -- rows out -------------------------------------------------------------------------------------------------------

    async def take(self, member: Member, limit: int) -> list[Claim]:
        """Return rows for a worker, whose attempts are durable. It holds them from now on."""
        if not limit:
            return []
        async with self._claiming:
            rows = await self._next(limit)
            for row in rows:
                if member.is_here:
                    member.held[row.ordinal] = row
                else:  # it was lost meanwhile
                    self._doubtful.append(_interrupted(row))
        return rows

    async def _next(self, limit: int) -> list[Claim]:
        if self._ending:
            return []
        if self._doubtful:
            return [self._doubtful.popleft() for _ in range(min(limit, len(self._doubtful)))]
        if self._unsent:
            chosen = sorted(self._unsent)[:limit]
            self._unsent.difference_update(chosen)
            return await self._claimed(0, limit, chosen)
        if self._exhausted:
            return []
        rows = await self._claimed(self._cursor, limit, self._only)
        self._exhausted = not rows
        self._cursor = rows[-1].ordinal if rows else self._cursor
        return rows

    async def _claimed(self, after: int, limit: int, only: Sequence[int] | None) -> list[Claim]:
        return await self._store.claim(after, limit, lambda: new_job_uuid(self._runtime.rng), self._runtime.now(), only)

    def take_back(self, member: Member) -> None:
        """Take the rows of a worker that has ended its work on them. Those that were not given back may have been sent."""
        for ordinal, row in sorted(member.held.items()):
            if ordinal in member.given_back:
                self._unsent.add(ordinal)
            else:
                self._doubtful.append(_interrupted(row))
        member.held.clear()
        member.given_back.clear()

    # -- what became of them --------------------------------------------------------------------------------------------

    async def write(self, member: Member, ops: Sequence[Sequence[Any]]) -> None:
        """Write what a worker reports of the rows that it holds. Returns when all of it is durable."""
        await asyncio.gather(*[self._written(member, *op) for op in ops])

    async def _written(self, member: Member, kind: str, *what: Any) -> None:
        match kind:
            case "settle":
                await self._settled(member, outcome_of(what[0]), as_sent=what[1])
            case "again":
                ordinal, attempt, job_uuid, now = what
                if row := member.held.get(ordinal):
                    row = member.held[ordinal] = row._replace(attempt=attempt, job_uuid=job_uuid, interrupted=False)
                    await self._store.claim_again(row, now)
            case "close":
                ordinal, fate, code, http_status = what
                if row := member.held.get(ordinal):
                    await self._store.close_attempt(row, fate, code, http_status)
            case "ended":
                self.take_back(member)
            case "release":
                await self._released(member, what[0])
            case "key":
                self._hall.know_key(what[0])
                self._store.remember_key(what[0])

    async def _settled(self, member: Member, outcome: Outcome, *, as_sent: bool) -> None:
        if outcome.ordinal not in member.held:
            return
        too_many = self._errors.note(error=outcome.status in ERRORS)
        del member.held[outcome.ordinal]  # at once: if the worker is lost now, its row is not handed out again
        member.given_back.discard(outcome.ordinal)
        self._settling.add(outcome.ordinal)
        await self._store.settle(outcome, as_sent=as_sent)
        self._settling.discard(outcome.ordinal)
        member.rows += 1
        if too_many:
            self.stop(Exit.ERROR_LIMIT, too_many)

    async def _released(self, member: Member, ordinals: Sequence[int]) -> None:
        """Take back the attempts. The worker may settle the rows yet, because their images have changed."""
        rows = [row for ordinal in ordinals if (row := member.held.get(ordinal))]
        member.given_back.update(
            row.ordinal for row in rows
        )  # at once: if the worker is lost now, they have no attempt
        await self._store.release(rows)

    def _keep_workers(self, *, over: bool = False) -> None:
        workers = self._hall.earlier + [member.as_document(over=over) for member in self._hall.crew]
        self._store.note(lambda ledger: ledger.set_meta(workers=workers))


def _interrupted(row: Claim) -> Claim:
    return row._replace(interrupted=True, doubtful=True)
