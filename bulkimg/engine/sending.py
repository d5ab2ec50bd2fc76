"""Send what is planned: first a few rows as a canary, then all. The writer thread records the results."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from bulkimg.applier import Ending, Policy
from bulkimg.engine.carrying import LEASES_OVER, Carrier, Carriers, policy_of
from bulkimg.engine.connect import Ports
from bulkimg.engine.create import kept_options
from bulkimg.engine.interrupt import Interrupt
from bulkimg.engine.planning import Approve, approved
from bulkimg.engine.recorder import Recorder
from bulkimg.engine.run import OpenRun
from bulkimg.errors import Exit
from bulkimg.ledger import LiveResults, Writer, plans, stats, write_results
from bulkimg.model import CanaryPassed, Observer, Settled, Started
from bulkimg.planner import Reader
from bulkimg.zstack import ImageApi


class Sending:
    """Send one run's rows.

    `seconds` is the time it took, without waiting for a person's answer. `runner` is set once rows are sent.
    """

    def __init__(
        self,
        run: OpenRun,
        observe: Observer,
        ports: Ports,
        interrupt: Interrupt,
        approve: Approve | None,
        recorder: Recorder,
        carriers: Carriers,
    ) -> None:
        self._run = run
        self._carriers = carriers
        self._recorder = recorder
        self._observe = observe
        self._runtime = ports.runtime
        self._ports = ports
        self._interrupt = interrupt
        self._approve = approve
        self._writer: Writer | None = None
        self._keeping: set[asyncio.Task[None]] = set()
        self.runner: Carrier | None = None
        self.seconds = 0.0

    def keep(self, **options: Any) -> None:
        """Save options that were changed while the run was under way, so that they hold when it is resumed.

        While rows are sent they are written at once, otherwise when sending begins or the run ends. A survey is one
        transaction, so nothing can be written during it.
        """
        self._run.change(**options)
        if self._writer:
            kept = kept_options(self._run.settings)
            task = asyncio.ensure_future(self._writer.ask(lambda ledger: ledger.set_meta(settings=kept)))
            self._keeping.add(task)
            task.add_done_callback(self._kept)

    async def kept(self) -> None:
        """Return when what `keep` has written is durable. Raises StorageError if the ledger fails, which ends the run."""
        if keeping := tuple(self._keeping):
            await asyncio.wait(keeping)  # who waits may be cancelled; what is written is not
            for task in keeping:
                task.result()

    def _kept(self, task: "asyncio.Task[None]") -> None:
        self._keeping.discard(task)
        if not task.cancelled():
            task.exception()  # if the ledger fails, Writer tells the runner, which ends the run

    async def send(
        self, api: ImageApi, reader: Reader, hours: AbstractContextManager[None], *, errors_before: int
    ) -> Ending | None:
        """Send every row that has no outcome yet. Returns why it stopped early, or None.

        `hours` is a context that pauses the run outside of its hours.
        """
        run = self._run
        paths = run.result_paths
        afresh = run.ledger.is_fresh
        write_results(run.ledger, paths, "none" if afresh else "settled")
        run.ledger.set_meta(state="running", settings=kept_options(run.settings))
        run.ledger.checkpoint()
        pending, rows = stats.rows_to_do(run.ledger), stats.rows_in_all(run.ledger)
        target = run.settings.target
        self._observe(Started(run.directory.run_id, str(run.directory.path), target, pending, rows))
        if not pending:
            return None
        if run.ledger.meta("leased"):  # the workers of an earlier process may begin a request until then
            if stop := await self._interrupt.until_stopped(self._runtime.sleep(LEASES_OVER)):
                return stop
            run.ledger.set_meta(settings=kept_options(run.settings))  # orders may have changed them meanwhile
        run.live = live = LiveResults(paths, in_order=afresh)
        writer = Writer(
            run.ledger,
            live,
            lambda done: self._observe(Settled(done)),
            lambda error: self.runner.fail(error) if self.runner else None,
            self._ports.writer_thread(),
        )
        self._writer = writer
        self._recorder.begin(writer)
        policy = policy_of(run.settings, errors_before)
        try:
            with hours:
                stop = await self._canary(writer, api, reader, policy)
                if stop is None:
                    stop = await self._carry(writer, api, reader, policy)
        finally:
            await asyncio.gather(*self._keeping, return_exceptions=True)
            self._writer = self._recorder.writer = None
            await writer.close()
        writer.raise_failure()
        return stop

    async def _carry(
        self, writer: Writer, api: ImageApi, reader: Reader, policy: Policy, only: Sequence[int] | None = None
    ) -> Ending | None:
        """Send all rows, or only these ordinals."""
        runner = self._carriers.carrier(writer, api, reader, policy, only)
        self.runner = runner
        if stop := self._interrupt.stop:
            runner.stop(stop.exit_code, stop.why)
        begun = self._runtime.clock()
        try:
            return await runner.run()
        finally:
            self.seconds += self._runtime.clock() - begun

    async def _canary(self, writer: Writer, api: ImageApi, reader: Reader, policy: Policy) -> Ending | None:
        """Send a few rows, spread over the plan, before all others. Go on only if all of them succeed."""
        count = self._run.settings.canary
        if not count or await writer.ask(lambda ledger: ledger.meta("canary_passed")):
            return None
        chosen = await writer.ask(lambda ledger: plans.canary(ledger, count))
        if stop := await self._carry(writer, api, reader, policy, chosen):
            return stop
        self.runner = None
        bad = await writer.ask(lambda ledger: plans.not_updated(ledger, chosen))
        if bad:
            line, status, message = bad[0]
            rows = "row" if len(chosen) == 1 else "rows"
            why = f"{len(bad)} of {len(chosen)} canary {rows} did not succeed; the first is in line {line}: {status}"
            why = f"{why}: {message}" if message else why
            return Ending(Exit.ERROR_LIMIT, f"{why}; nothing else was sent", resumable=False)
        self._observe(CanaryPassed(len(chosen)))
        stop = await approved(CanaryPassed(len(chosen)), self._approve, self._interrupt)
        if stop is None:
            await writer.ask(lambda ledger: ledger.set_meta(canary_passed=True))
        return stop
