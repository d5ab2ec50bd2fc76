"""One run as an async context: iterate over its events, then read `result`."""

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, Unpack

from bulkimg.cluster import ports_of
from bulkimg.credentials import Credentials
from bulkimg.engine.close import refusal, refuse
from bulkimg.engine.create import create_run
from bulkimg.engine.execute import Engine
from bulkimg.engine.measuring import noting_failure
from bulkimg.engine.planning import Approve
from bulkimg.engine.reopen import named_run, refuse_other_work, resume_run, stored_settings
from bulkimg.engine.run import OpenRun
from bulkimg.errors import Exit, LoginRefused, ManifestRefused, RunRefused, TargetError, UsageError
from bulkimg.ledger import stats
from bulkimg.library.options import Asked, Options
from bulkimg.library.result import Result, result_of
from bulkimg.library.source import Source, job_of, rows_of
from bulkimg.model import CanaryPassed, Event, PlanMade, Problem, Summary
from bulkimg.pace import Pace
from bulkimg.report import Narrator, level

_SHOWN = 5  # most problems in the text of a refusal
_LOGIN = ("LOGIN_REFUSED:", "ACCESS_KEY:")
_log = logging.getLogger("bulkimg")
_log.addHandler(logging.NullHandler())  # otherwise Python prints warnings if a program has no handler


class Run:
    """A run of a source.

        async with bulkimg.Run("relabel.csv", endpoint="http://127.0.0.1:8080", rate="20/s") as run:
            async for event in run: ...
        print(run.result.counts)

    Iterating executes the run. Leaving the block stops it and waits for rows in flight; it can be resumed. `approve` is
    awaited with the plan (`PlanMade`) before anything is sent, and with `CanaryPassed` after a canary. False ends the
    run.

    Raises UsageError for a wrong option, ManifestRefused (with `problems`) before anything is sent, TargetError if the
    server cannot be reached or refuses the login, RunRefused if a guard or another run prevents it, and StorageError if
    the disk fails.
    """

    def __init__(
        self,
        source: Source,
        *,
        credentials: Credentials | None = None,
        approve: Approve | None = None,
        **options: Unpack[Options],
    ) -> None:
        self._asked = Asked(options, credentials, job=job_of(source))
        self._source = source
        self._carrying = Carrying(self._begin, self._asked.credentials, approve=approve)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._carrying.end()

    async def __aiter__(self) -> AsyncIterator[Event]:
        async with aclosing(self._carrying.events()) as events:  # so that aclose() of this one waits for the run
            async for event in events:
                yield event

    @property
    def result(self) -> Result:
        """The run's result. Raises UsageError before it has begun."""
        return self._carrying.result

    @property
    def summary(self) -> Summary | None:
        """The last event, once the run has ended."""
        return self._carrying.summary

    @property
    def pace(self) -> Pace:
        """The speed of the running run: `pace.rate.set(5.0)`, `pace.set_concurrency(8)`."""
        return self._carrying.engine.pace

    def stop(self) -> None:
        """Start no new row. Rows in flight finish, and the run can be resumed."""
        self._carrying.stop()

    def _begin(self) -> OpenRun:
        return begin_source(self._source, self._asked)


def begin_source(source: Source, asked: Asked, *, plan_only: bool = False) -> OpenRun:
    """Create a run of a sound manifest, or return the one that `run_id` names.

    Raises ManifestRefused with all problems.
    """
    settings = asked.settings
    rows = rows_of(source)
    path = settings.job_manifest if job_of(source) else str(source)
    with noting_failure(settings, plan_only=plan_only):
        if named := named_run(settings):
            if rows is not None:
                raise RunRefused(
                    f"run {named.run_id} has not ended, and rows cannot be compared with its own; bulkimg.resume({named.run_id!r})"
                )
            refuse_other_work(named, settings, path)
            return resume_run(named, asked.resuming(stored_settings(named)))
        opened = create_run("(rows)" if rows is not None else path, settings, rows, plan_only=plan_only, tell=_log.info)
    if not (why := refusal(opened)):
        return opened
    try:
        problems = list(stats.problems(opened.ledger))
        narrator = Narrator()
        refuse(opened, why, lambda event: _log.log(level(event), narrator.sentence(event)))
    finally:
        opened.close()
    raise ManifestRefused(_refused("the source" if rows is not None else path, problems), problems)


def _refused(name: str, problems: list[Problem]) -> str:
    """Return the first problems, and how many more there are."""
    lines = [f"line {found.line}: {found.text}{f'; {found.fix}' if found.fix else ''}" for found in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN:,} more, in .problems")
    return "\n".join([f"{name} is refused, nothing was sent:", *lines] if problems else [f"{name} is refused"])


class Carrying:
    """Execute one run in a task of its own, and pass on its events."""

    def __init__(
        self,
        create_run: Callable[[], OpenRun],
        credentials: Credentials,
        *,
        approve: Approve | None = None,
        checksum: str | None = None,
        plan_only: bool = False,
    ) -> None:
        if approve is not None and not callable(approve):
            raise UsageError("approve is not a function")
        self._begin = create_run
        self._credentials = credentials
        self._approve, self._checksum, self._plan_only = approve, checksum, plan_only
        self._opened: OpenRun | None = None
        self._engine: Engine | None = None
        self._work: asyncio.Task[Summary] | None = None
        self._is_closed = False
        self._narrator = Narrator()
        self.summary: Summary | None = None

    @property
    def engine(self) -> Engine:
        """The engine. Raises UsageError before the run has begun."""
        if self._engine is None:
            raise UsageError("the run has not started; iterate over it first (async for event in run)")
        return self._engine

    @property
    def result(self) -> Result:
        """The run's result. Raises UsageError before the run has begun."""
        if self._opened is None:
            raise UsageError("the run has not started; iterate over it first (async for event in run)")
        return result_of(self._opened.directory)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield every event, the summary last. Raises what the run raises."""
        if self._work is not None:
            raise UsageError("this run is being iterated over already; make another one")
        opened = self._opened = await asyncio.to_thread(self._begin)
        queue: asyncio.Queue[Event | None] = asyncio.Queue()

        def observe(event: Event) -> None:
            if _log.isEnabledFor(level(event)) and (said := self._narrator.sentence(event)):
                _log.log(level(event), said)
            queue.put_nowait(event)

        self._engine = Engine(
            opened,
            self._credentials,
            observe,
            ports_of(opened.settings, self._credentials),
            approve=_awaited(self._approve) if self._approve else None,
            checksum=self._checksum,
            plan_only=self._plan_only,
        )
        self._work = asyncio.create_task(self._engine.execute())
        self._work.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            self.summary = await self._work
            yield self.summary
        finally:
            await self.end()
        self._raise(self.summary)

    def stop(self) -> None:
        """Start no new row; rows in flight finish."""
        if self._engine:
            self._engine.stop(Exit.INTERRUPTED, "stopped by the program")

    async def end(self) -> None:
        """Stop the run, wait for it, and release it."""
        if self._work and not self._work.done():
            self.stop()
            await asyncio.wait([self._work])
        if self._opened and not self._is_closed:
            self._is_closed = True
            self._opened.close()

    def _raise(self, summary: Summary) -> None:
        """Raise the error of the run as a whole, if there was one, with the run as `result`."""
        error: TargetError | RunRefused
        if summary.exit_code == Exit.TARGET:
            refused = summary.reason.startswith(_LOGIN)  # noticed by a row, because nothing was read before
            error = self.engine.target_error or (LoginRefused if refused else TargetError)(summary.reason)
        elif summary.exit_code == Exit.REFUSED:
            error = RunRefused(summary.reason)
        else:
            return
        error.result = self.result
        raise error


def _awaited(approve: Approve) -> Approve:
    """Call an approve function that may be plain or async."""

    async def ask(what: PlanMade | CanaryPassed) -> bool:
        answer: Any = approve(what)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    return ask


async def carried_out(carrying: Carrying) -> Result:
    """Return the result of a run without its events."""
    async for _ in carrying.events():
        pass
    return carrying.result
