"""This file is `import bulkimg`: the engine as an async iterator of events with a summary; no printing, no sys.exit."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from os import PathLike, fspath
from typing import Any

from bulkimg.credentials import Credentials
from bulkimg.engine import Approve, Engine, OpenRun, begin, refusal, refuse
from bulkimg.errors import Exit, ManifestRefused, UsageError
from bulkimg.layers import flags_layer, merge
from bulkimg.ledger import tally
from bulkimg.model import Event, Summary
from bulkimg.pace import Pace


class Run:
    """One run: iterate over it for its events, then look at `summary`.

        run = bulkimg.Run("relabel.csv", credentials=bulkimg.Session("…"), endpoint="http://127.0.0.1:8080", rate="20/s")
        async for event in run: ...
        print(run.summary.counts)

    `source` is a manifest's path, or an iterable of objects as JSONL holds them: `{"uuid": …, "name": …}`. Options are
    those of the command line, by the same names (`max_errors="5%"`, `set=["platform=Linux"]`). `approve` is awaited with the
    plan (`PlanMade`) before anything is sent, and with `CanaryPassed` after a canary; False ends the run there.

    Raises UsageError for a wrong option, ManifestRefused (with `problems`) before anything is sent, TargetError when
    the server is not there or refuses the login, StorageError when the disk fails.
    """

    def __init__(
        self,
        source: str | PathLike[str] | Iterable[Mapping[str, Any]],
        *,
        credentials: Credentials,
        approve: Approve | None = None,
        **options: Any,
    ) -> None:
        self.settings = merge(flags_layer(options))
        if self.settings.endpoint is None:
            raise UsageError('no server: give endpoint="http://host:8080"')
        self.summary: Summary | None = None
        self._source = source
        self._credentials = credentials
        self._approve = approve
        self._engine: Engine | None = None

    async def __aiter__(self) -> AsyncIterator[Event]:
        opened = await asyncio.to_thread(self._begin)
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._engine = Engine(opened, self._credentials, events.put_nowait, approve=self._approve)
        work = asyncio.create_task(self._engine.carry_out())
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            self.summary = await work
            yield self.summary
        finally:
            if not work.done():  # whoever iterated has gone away: what is in flight finishes, nothing new starts
                self.stop()
                await asyncio.wait([work])
            opened.close()

    @property
    def pace(self) -> Pace:
        """The speed of the run under way: `pace.rate.set(5.0)`, `pace.set_concurrency(8)`."""
        if self._engine is None:
            raise UsageError("the run has not begun: iterate over it first")
        return self._engine.pace

    def stop(self) -> None:
        """Start no new row; rows in flight finish, and the run can be resumed."""
        if self._engine:
            self._engine.stop(Exit.INTERRUPTED, "stopped by the program")

    def _begin(self) -> OpenRun:
        if isinstance(self._source, str | PathLike):
            opened = begin(fspath(self._source), self.settings)
        else:
            opened = begin("(changes)", self.settings, self._source)
        if why := refusal(opened):
            problems = list(tally.problems(opened.ledger))
            self.summary = refuse(opened, why)
            opened.close()
            raise ManifestRefused(why, problems)
        return opened
