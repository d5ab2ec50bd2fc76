"""Execute an open run: login, plan, canary, sending, logout, the files at the end. It can be stopped at any time."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from bulkimg.applier import Ending
from bulkimg.credentials import Credentials, identity_of
from bulkimg.engine.attending import Attending
from bulkimg.engine.carrying import Equipment
from bulkimg.engine.close import broken_off, conclude, draw, finish, summary_document, write_table
from bulkimg.engine.connect import Ports, Server, connected, pace_of
from bulkimg.engine.control import Order
from bulkimg.engine.create import kept_options
from bulkimg.engine.interrupt import Interrupt
from bulkimg.engine.keeping import keep_few
from bulkimg.engine.measuring import Measuring
from bulkimg.engine.overlap import admit
from bulkimg.engine.planning import Approve, Planning
from bulkimg.engine.plugging import Plugging
from bulkimg.engine.recorder import Recorder
from bulkimg.engine.run import OpenRun
from bulkimg.engine.sending import Sending
from bulkimg.engine.steering import Steering
from bulkimg.errors import BulkimgError, Exit, RunRefused, TargetError
from bulkimg.ledger import Ledger, stats, write_results
from bulkimg.ledger.store import storage_errors
from bulkimg.model import (
    Event,
    NoControl,
    Observer,
    Summary,
)
from bulkimg.zstack import Auth, log_out


class Live(NamedTuple):
    """Live figures of a run: requests so far, the cap in requests a second, rows in flight and their maximum."""

    requests: int
    rate: float
    in_flight: int
    limit: int


class BrokenOff(Exception):
    """A signal ends the writing of a file."""


LAST_ANSWER = 0.5  # seconds from the last answer to the end of a run that gives up


class Engine:
    """Execute one open run. `stop` and `stop_now` may be called at any time from the same event loop.

    `approve` is asked once the plan is made, and again after the canary. Without it everything is approved. `checksum`
    is the beginning of the digest of the plan that was reviewed. `plan_only` ends before the first PUT.
    """

    def __init__(
        self,
        run: OpenRun,
        credentials: Credentials,
        observe: Observer,
        ports: Ports | None = None,
        *,
        approve: Approve | None = None,
        checksum: str | None = None,
        plan_only: bool = False,
        allow: Callable[[int], None] = lambda rows: None,
    ) -> None:
        ports = self._ports = ports or Ports()
        runtime = self._runtime = ports.runtime
        self._run = run
        self._credentials = credentials
        self._tell = observe
        self._plan_only = plan_only
        self._interrupt = Interrupt()
        self.pace = pace_of(run.settings, runtime, run.settings.concurrency, adapts=run.settings.adaptive)
        self._planning = Planning(run, self._observe, self._interrupt, approve, checksum=checksum, plan_only=plan_only)
        self._recorder = Recorder(run.ledger, self.pace, runtime, lambda: self.steering.settled)
        meter = self._recorder.meter
        with storage_errors(run.directory.ledger):  # both read what earlier processes did
            self._attending = Attending(run, self._observe, self._interrupt, credentials)
            self._measuring = Measuring(run, self.pace, meter, observe, runtime.now, plan_only=plan_only)
        self._plugging = Plugging(run.plugins, self._observe, credentials, plan_only=plan_only)
        self._is_over = False  # only messages are sent
        self._carriers = ports.carriers()
        self._sending = Sending(run, self._observe, ports, self._interrupt, approve, self._recorder, self._carriers)
        parts = run.settings.shard.count if run.settings.shard else 1
        self.steering = Steering(self.pace, self._observe, self.stop, allow, self._sending.keep, runtime.clock, parts)
        watching = [one.watch for one in (self._measuring, self._plugging) if one.is_watching]
        self._watchers = (self.steering.watch, self._recorder.watch, *watching, observe)

    async def _ordered(self, orders: list[Order]) -> dict[str, Any]:
        """Obey the orders of `bulkimg ctl`. Return the status when they hold for a resumed run too.

        During the survey they are not written yet (`Sending.keep`).
        """
        status = self.steering.obey(orders)
        if any(name in ("rate", "concurrency") for name, _ in orders):  # no other order has to wait for a slow disk
            await self._sending.kept()
        return status

    def _observe(self, event: Event) -> None:
        for watch in self._watchers:
            watch(event)

    @property
    def target_error(self) -> TargetError | None:
        """The error of the server or the login that ended the run before it sent anything, or None."""
        return self._interrupt.error

    @property
    def live(self) -> Live:
        """Return the live figures."""
        limit = self.pace.limit
        return Live(self.pace.requests, self.pace.rate.per_second, limit.in_flight, limit.value)

    def stop(self, exit_code: Exit, why: str) -> None:
        """Start no new row; rows in flight finish."""
        self._interrupt.stop = Ending(exit_code, why)
        if self._is_over:
            self._interrupt.break_off()
        elif runner := self._sending.runner:
            runner.stop(exit_code, why)
        else:
            self._interrupt.break_off()

    @property
    def is_stopping(self) -> bool:
        """Return whether the run is stopping, for any reason."""
        runner = self._sending.runner
        return self._interrupt.stop is not None or (runner is not None and runner.is_stopping)

    def stop_now(self) -> None:
        """End at once.

        Rows in flight stay open in the ledger; the server is asked about them when the run is resumed.
        """
        self._interrupt.at_once = True
        if runner := self._sending.runner:
            runner.stop_now()
        self._interrupt.break_off()

    async def execute(self) -> Summary:
        """Send every row that has no outcome yet. Returns the summary once every file is written.

        A server that cannot be reached or refuses the login gives a summary too (exit code 5, rows unprocessed). So
        does a plan that a guard or `approve` refuses (7). Raises StorageError when the disk fails: the ledger then
        holds what is known, and the run can be resumed.
        """
        try:
            async with self._measuring.the_run():
                with storage_errors(self._run.directory.ledger):
                    summary = await self._carry_out()
                await self._measuring.end(summary)
                return summary
        except BulkimgError as error:
            self._is_over = True
            if not self._plan_only:
                await self._attending.broke(error)
            await self._end_plugging(None)
            raise

    async def _carry_out(self) -> Summary:
        run, settings = self._run, self._run.settings
        _check_identity(run.ledger, self._credentials)
        if run.ledger.meta("state") == "done":
            summary = finish(run, None, run.ledger.meta("ended_at"))  # write its files again
            return await self._close(summary)
        may_overlap = self._plan_only or settings.allow_overlap
        if not may_overlap and (stop := await self._interrupt.until_stopped(self._admitted())):
            return await self._end(finish(run, stop, self._runtime.now()))
        # Find out what cannot be written before anything is asked or sent.
        write_results(run.ledger, run.result_paths, "settled")
        write_table(run, rows=False)
        if settings.note:  # may differ from the plan's note
            run.ledger.set_meta(note=settings.note)
        run.ledger.set_meta(started_at=run.ledger.meta("started_at") or self._runtime.now())
        self._plugging.begin()
        if not stats.rows_to_do(run.ledger):
            run.ledger.set_meta(state="running")
            return await self._end(finish(run, None, self._runtime.now()))
        if stop := await self._begin():
            return await self._end(finish(run, stop, self._runtime.now()))
        equipment = Equipment(run, self.pace, self._recorder.meter, self._observe, self._runtime, self._spelling())
        async with (
            self._carriers.opened(equipment),
            connected(
                settings,
                self._credentials,
                self.pace,
                self._observe,
                self._give_up,
                self._ports,
                self._spelling(),
                self._recorder.meter,
            ) as server,
            self._ports.listen(run.directory.path, self._ordered) as deaf,
        ):
            if deaf:
                self._observe(NoControl(deaf))
            with self.steering.time_box(settings.max_duration):
                stop = await self._work(server)
        self._recorder.finish()
        self._measuring.closing()
        run.ledger.set_meta(settings=kept_options(run.settings))
        summary = finish(
            run,
            stop,
            self._runtime.now(),
            sending_seconds=self._sending.seconds,
            requests=self._recorder.meter.total,
            reached=server.transport.reached,
        )
        return await self._end(summary)

    async def _admitted(self) -> None:
        """Wait until no other run of the same work sends, or refuse this one."""
        run, runtime = self._run, self._runtime
        wait = run.settings.lock_wait
        async with run.turn():
            await admit(run.directory, run.ledger, wait, tell=run.tell, clock=runtime.clock, sleep=runtime.sleep)

    async def _begin(self) -> Ending | None:
        """Run the hooks before the run, and say that it starts. Returns why it must not, or None."""
        if self._plan_only:
            return None
        stop = await self._attending.before("before-run")
        if stop is None:
            self._attending.start()
        return stop

    async def _end(self, summary: Summary) -> Summary:
        """Write the last files, run the hooks after the run, and say how it ended."""
        summary = await self._close(summary)
        if not self._plan_only:
            await self._attending.end(summary_document(summary))
        await self._end_plugging(summary)
        if not self._plan_only and not self._interrupt.at_once:
            keep_few(self._run, self._tell)
        return summary

    async def _close(self, summary: Summary) -> Summary:
        """Write the files that `finish` leaves, and draw the run."""
        self._is_over = True
        if self._run.table and not await self._table_written():
            summary = broken_off(self._run, summary, self._interrupt.stop)
        conclude(self._run, summary)
        draw(self._run, self._tell)
        return summary

    async def _table_written(self) -> bool:
        """Write the table of --results in a thread: it may take a minute, and a signal must end it.

        Returns False if a signal broke it off. The thread has ended when this returns.
        """
        broken = threading.Event()

        def check() -> None:
            if broken.is_set():
                raise BrokenOff

        async def written() -> None:
            thread = asyncio.ensure_future(asyncio.to_thread(write_table, self._run, check))
            try:
                await asyncio.shield(thread)
            except asyncio.CancelledError:
                broken.set()
                await asyncio.wait([thread])
                thread.exception()  # what it was writing is given up
                raise

        if self._interrupt.at_once:
            return False
        stop, later = self._interrupt.stop, asyncio.get_running_loop().call_later
        if stop and stop.exit_code in (Exit.INTERRUPTED, Exit.TERMINATED):  # its sender waits, but not for long
            later(self._run.settings.timeout, self._interrupt.break_off)
        return await self._interrupt.unless_broken_off(written())

    async def _end_plugging(self, summary: Summary | None) -> None:
        """Let the plugins observe the end. A second signal ends the waiting, or prevents it."""
        if not self._interrupt.at_once:
            await self._interrupt.whatever_comes_of_it(self._plugging.end(summary))

    def _spelling(self) -> str:
        """Return the action key that is asked for, or that the server accepted before."""
        asked = self._run.settings.action_key
        return asked if asked != "auto" else str(self._run.ledger.meta("action_key", "auto"))

    async def _work(self, server: Server) -> Ending | None:
        if stop := await self._interrupt.until_stopped(self._carriers.ready()):
            return stop
        if stop := await self._interrupt.until_stopped(server.auth.open()):
            return stop
        self._measuring.surveying()
        try:
            stop = await self._planning.plan(server.reader)
            if stop or self._plan_only:
                return stop
            if stop := await self._attending.before("before-send"):
                return stop
            hours = self.steering.within(self._run.settings.window, self._runtime.now, self._runtime.sleep)
            return await self._sending.send(server.api, server.reader, hours, errors_before=self._planning.missing)
        finally:
            await self._log_out(server.auth)

    def _give_up(self, why: str) -> None:
        """Stop the run. Waiting rows are not sent any more; requests in flight may still be answered."""
        self.stop(Exit.TARGET, why)
        if runner := self._sending.runner:
            later = asyncio.get_running_loop().call_later  # so that the last answer is still recorded
            self.pace.when_idle(lambda: later(LAST_ANSWER, runner.stop_now))

    async def _log_out(self, auth: Auth) -> None:
        if not self._interrupt.at_once and not self.pace.breaker.is_open:
            await self._interrupt.whatever_comes_of_it(log_out(auth))


def _check_identity(ledger: Ledger, credentials: Credentials) -> None:
    """Check that a run is resumed with the account that began it, as far as the credentials show the account."""
    who, before = identity_of(credentials), ledger.meta("identity", "")
    if who and before and who != before:
        raise RunRefused(
            f"this run was started as {before}, but the credentials now are for {who}; use those of {before}, or start a new run"
        )
    if who:
        ledger.set_meta(identity=who)
