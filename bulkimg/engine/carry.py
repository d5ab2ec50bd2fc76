"""This file carries an open run out: login, plan, canary, sending, logout, the files at the end. It can be stopped at any time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from bulkimg.apply import Paced, Policy, Runner, Stop
from bulkimg.credentials import AccessKey, Account, Credentials
from bulkimg.engine.begin import kept_options
from bulkimg.engine.close import finish, write_plan
from bulkimg.engine.run import OpenRun
from bulkimg.engine.steering import Steering
from bulkimg.engine.world import World
from bulkimg.errors import Exit, RunRefused, TargetError
from bulkimg.ledger import Ledger, LiveResults, Writer, plans, tally, write_results
from bulkimg.ledger.store import storage_errors
from bulkimg.model import (
    CanaryPassed,
    Event,
    Held,
    NoControl,
    NoSurvey,
    Observer,
    PlanMade,
    Reopened,
    Settled,
    Started,
    Summary,
    Surveyed,
)
from bulkimg.pace import Pace
from bulkimg.plan import CannotRead, Reader, refusal, survey, too_many_missing
from bulkimg.zstack import Auth, ImageApi, Transport, make_auth

LOGOUT_TIMEOUT = 5.0  # seconds
LAST_ANSWER = 0.5  # seconds from the last answer of a run that gives up to its end
Approve = Callable[[PlanMade | CanaryPassed], Awaitable[bool]]


class Engine:
    """Carries one open run out. `stop` and `stop_now` may be called at any time from the same event loop.

    `approve` is asked once the plan is made, and again after the canary; without it everything is approved. `checksum` is
    the beginning of the hash of the plan that somebody has looked at. `plan_only` ends before the first PUT.
    """

    def __init__(
        self,
        run: OpenRun,
        credentials: Credentials,
        observe: Observer,
        world: World | None = None,
        *,
        approve: Approve | None = None,
        checksum: str | None = None,
        plan_only: bool = False,
        allow: Callable[[int], None] = lambda rows: None,
    ) -> None:
        world = self._world = world or World()
        self._run = run
        self._credentials = credentials
        self._tell = observe
        self._approve = approve
        self._checksum = checksum
        self._plan_only = plan_only
        self._runner: Runner | None = None
        self._stop: Stop | None = None
        self._step: asyncio.Future[None] | None = None  # login, survey, question or logout under way
        self._ends_now = False
        self._sending = 0.0  # seconds, without those in which somebody was asked
        self._missing = 0  # images that the survey did not find: errors like others
        self.pace = Pace(
            run.settings.rate,
            run.settings.concurrency,
            patience=run.settings.max_outage,
            adapts=run.settings.adaptive,
            clock=world.clock,
            sleep=world.sleep,
            rng=world.rng,
        )
        self.steering = Steering(self.pace, self._observe, self.stop, allow, self._keep)
        self._writer: Writer | None = None
        self._keeping: set[asyncio.Task[None]] = set()

    def _observe(self, event: Event) -> None:
        self.steering.watch(event)
        self._tell(event)

    def _keep(self, **options: Any) -> None:
        """What somebody has changed on the way holds for whoever resumes the run, too: written down at once while rows are sent,
        else when sending begins or ends; a survey is one transaction."""
        self._run = replace(self._run, settings=self._run.settings.model_copy(update=options))
        if self._writer:
            kept = kept_options(self._run.settings)
            task = asyncio.ensure_future(self._writer.ask(lambda ledger: ledger.set_meta(settings=kept)))
            self._keeping.add(task)
            task.add_done_callback(self._kept)

    def _kept(self, task: "asyncio.Task[None]") -> None:
        self._keeping.discard(task)
        if not task.cancelled():
            task.exception()  # a ledger that fails ends the run by itself: Writer tells the runner

    def stop(self, exit_code: Exit, why: str) -> None:
        """Start no new row; rows in flight finish."""
        self._stop = Stop(exit_code, why)
        if self._runner:
            self._runner.stop(exit_code, why)
        elif self._step:
            self._step.cancel()  # a login that hangs, a survey that is long

    @property
    def is_stopping(self) -> bool:
        """Whether somebody has stopped it, or it has stopped itself."""
        return self._stop is not None or (self._runner is not None and self._runner.is_stopping)

    def stop_now(self) -> None:
        """End at once; rows in flight stay open in the ledger and are asked about when the run is resumed."""
        self._ends_now = True
        if self._runner:
            self._runner.stop_now()
        if self._step:
            self._step.cancel()

    async def carry_out(self) -> Summary:
        """Send every row that has no outcome yet; the summary once every file is written.

        A server that is not there or refuses the login is a summary too (exit code 5, rows unprocessed), and so is a plan
        that a guard or `approve` turns down (7). StorageError when the disk fails: the ledger then holds what is known, and
        `resume` goes on.
        """
        with storage_errors(self._run.directory.ledger):
            return await self._carry_out()

    async def _carry_out(self) -> Summary:
        run, settings = self._run, self._run.settings
        _check_identity(run.ledger, self._credentials)
        if run.ledger.meta("state") == "done":
            return finish(run, None, run.ledger.meta("ended_at"))  # its files once more, as they were
        # What cannot be written is found out before anything is asked or sent.
        write_results(run.ledger, run.result_paths, settled_only=True)
        if settings.note:  # perhaps of somebody who applies another's plan
            run.ledger.set_meta(note=settings.note)
        run.ledger.set_meta(started_at=run.ledger.meta("started_at") or self._world.now())
        if not tally.rows_to_do(run.ledger):
            run.ledger.set_meta(state="running")
            return finish(run, None, self._world.now())
        transport = Transport(self._world.connect(settings, self._world.now), settings.target, Paced(self.pace))
        try:
            async with self._world.listen(run.directory.path, self.steering.obey) as deaf:
                if deaf:
                    self._observe(NoControl(deaf))
                with (
                    self.pace.rate.shared(self._world.slots(settings.target)),
                    self.steering.time_box(settings.max_duration),
                ):
                    stop = await self._work(transport)
        finally:
            await transport.close()
        if self._run is not run:
            run.ledger.set_meta(settings=kept_options(self._run.settings))
        return finish(self._run, stop, self._world.now(), sending_seconds=self._sending, requests=transport.requests)

    async def _work(self, transport: Transport) -> Stop | None:
        settings = self._run.settings
        world = self._world
        auth = make_auth(self._credentials, transport, world.now, world.sleep)
        key = settings.action_key if settings.action_key != "auto" else self._run.ledger.meta("action_key", "auto")
        api = ImageApi(transport, auth, key)
        reader = Reader(api, self.pace.gate, world, settings.retries)
        self._watch_gate(api)
        if stop := await self._until_stopped(auth.open()):
            return stop
        try:
            stop = await self._planned(reader)
            return stop if stop or self._plan_only else await self._send(api, reader)
        finally:
            await self._log_out(auth)

    async def _until_stopped(self, step: Awaitable[None]) -> Stop | None:
        """One step that a signal may end; why the run must stop, or None."""
        if self._stop:
            return self._stop
        self._step = asyncio.ensure_future(step)
        try:
            await self._step
        except TargetError as error:
            return Stop(error.exit_code, str(error))
        except asyncio.CancelledError:
            if self._stop is None:
                raise
        finally:
            self._step = None
        return self._stop

    # -- the plan -------------------------------------------------------------------------------------------------------

    async def _planned(self, reader: Reader) -> Stop | None:
        """Make the plan, unless there is one, and have it approved, unless it has been begun."""
        ledger, settings = self._run.ledger, self._run.settings
        if ledger.meta("state") == "ready" and (stop := await self._make_plan(reader)):
            return stop
        if ledger.meta("state") != "planned":
            return None
        if not (self._run.directory.path / "plan.html").exists():
            write_plan(self._run)  # a process that died in between did not
        counts = plans.counts(ledger)
        self._observe(PlanMade(counts))
        if self._checksum is not None and not counts.digest.startswith(self._checksum.lower()):
            why = f"--checksum {self._checksum}: the plan's is {counts.digest}; look at it again"
            return Stop(Exit.REFUSED, why, cure=None)
        if why := too_many_missing(counts, settings.max_errors):
            return Stop(Exit.ERROR_LIMIT, why)
        self._missing = counts.actions["missing"]
        if self._plan_only or not counts.actions["update"]:
            return None
        if refused := refusal(counts, settings.max_changes, settings.allow_field):
            return Stop(Exit.REFUSED, *refused)
        return await self._approved(PlanMade(counts))

    async def _make_plan(self, reader: Reader) -> Stop | None:
        ledger, settings = self._run.ledger, self._run.settings
        if not settings.survey and ledger.meta("has_expectations"):
            return Stop(
                Exit.REFUSED, "its rows have preconditions, and --no-survey does not look at the images", cure=None
            )
        if settings.survey:
            try:
                stop = await self._until_stopped(self._survey(reader))
            except CannotRead as why:
                if ledger.meta("has_expectations"):
                    return Stop(
                        Exit.REFUSED,
                        f"the server cannot be asked how the images are ({why}), so no if_ value can be compared",
                    )
                self._observe(NoSurvey(str(why)))
            else:
                if stop is None:
                    write_plan(self._run)
                return stop
        with ledger.transaction():
            plans.make(ledger, settings.target, surveyed=False)
        write_plan(self._run)
        return None

    async def _survey(self, reader: Reader) -> None:
        settings, images = self._run.settings, tally.images_to_do(self._run.ledger)
        looked = 0

        def more(count: int) -> None:
            nonlocal looked
            looked += count
            self._observe(Surveyed(looked, images))

        replaces = settings.tags_mode == "replace"
        await survey(self._run.ledger, reader, settings.target, replace_tags=replaces, looked=more)

    async def _approved(self, what: PlanMade | CanaryPassed) -> Stop | None:
        if self._approve is None:
            return None
        answers: list[bool] = []

        async def ask(approve: Approve) -> None:
            answers.append(await approve(what))

        if stop := await self._until_stopped(ask(self._approve)):
            return stop
        more = "more " if isinstance(what, CanaryPassed) else ""
        return None if answers == [True] else Stop(Exit.REFUSED, f"you said no; nothing {more}was sent")

    # -- sending --------------------------------------------------------------------------------------------------------

    async def _send(self, api: ImageApi, reader: Reader) -> Stop | None:
        run = self._run
        paths = run.result_paths
        write_results(run.ledger, paths, settled_only=True)
        run.ledger.set_meta(state="running", settings=kept_options(run.settings))
        run.ledger.checkpoint()
        pending, rows = tally.rows_to_do(run.ledger), tally.rows_in_all(run.ledger)
        target = run.settings.target
        self._observe(Started(run.directory.run_id, str(run.directory.path), target, pending, rows))
        if not pending:
            return None
        live = LiveResults(paths)
        writer = Writer(
            run.ledger,
            live,
            lambda done: self._observe(Settled(done)),
            lambda error: self._runner.fail(error) if self._runner else None,
            self._world.lane(),
        )
        self._writer = writer
        try:
            with self.steering.within(run.settings.window, self._world.now, self._world.sleep):
                stop = await self._canary(writer, api, reader)
                if stop is None:
                    stop = await self._run_rows(writer, api, reader)
        finally:
            await asyncio.gather(*self._keeping, return_exceptions=True)
            self._writer = None
            await writer.close()
            live.close()
        writer.raise_failure()
        return stop

    async def _run_rows(
        self, writer: Writer, api: ImageApi, reader: Reader, only: Sequence[int] | None = None
    ) -> Stop | None:
        """All rows, or only these ordinals."""
        settings = self._run.settings
        policy = Policy(
            settings.retries,
            settings.max_errors,
            settings.job_timeout,
            settings.timeout,
            settings.tags,
            replace_tags=settings.tags_mode == "replace",
            errors_before=self._missing,
        )
        runner = Runner(writer, api, reader, self.pace, policy, self._observe, self._world, only=only)
        self._runner = runner
        if self._stop:
            runner.stop(self._stop.exit_code, self._stop.why)
        begun = self._world.clock()
        try:
            return await runner.run()
        finally:
            self._sending += self._world.clock() - begun

    async def _canary(self, writer: Writer, api: ImageApi, reader: Reader) -> Stop | None:
        """A few rows, spread over the plan, before all others: go on only if every one of them has become as it should."""
        count = self._run.settings.canary
        if not count or await writer.ask(lambda ledger: ledger.meta("canary_passed")):
            return None
        chosen = await writer.ask(lambda ledger: plans.canary(ledger, count))
        if stop := await self._run_rows(writer, api, reader, chosen):
            return stop
        self._runner = None
        bad = await writer.ask(lambda ledger: plans.not_updated(ledger, chosen))
        if bad:
            line, status, message = bad[0]
            why = f"{len(bad)} of the {len(chosen)} canary rows are not as they should be, the first in line {line}: {status}"
            why = f"{why}: {message}" if message else why
            return Stop(Exit.ERROR_LIMIT, f"{why}; --canary 0 goes on all the same", "--canary 0")
        self._observe(CanaryPassed(len(chosen)))
        stop = await self._approved(CanaryPassed(len(chosen)))
        if stop is None:
            await writer.ask(lambda ledger: ledger.set_meta(canary_passed=True))
        return stop

    def _watch_gate(self, api: ImageApi) -> None:
        """From before the login on, so that an outage is waited for, told and given up there too."""
        gate = self.pace.gate
        gate.probe = api.is_there
        gate.on_closed = lambda seconds, why: self._observe(Held(seconds, why))
        gate.on_open = lambda seconds: self._observe(Reopened(seconds))
        gate.on_give_up = self._give_up

    def _give_up(self, why: str) -> None:
        """Rows that wait at the gate have nothing to wait for any more; what is under way may still be answered."""
        self.stop(Exit.TARGET, why)
        if runner := self._runner:
            later = asyncio.get_running_loop().call_later  # so that the last answer is still written down
            self.pace.when_idle(lambda: later(LAST_ANSWER, runner.stop_now))

    async def _log_out(self, auth: Auth) -> None:
        if not self._ends_now and not self.pace.gate.closed:
            self._step = asyncio.ensure_future(log_out(auth))
            await asyncio.gather(self._step, return_exceptions=True)


async def log_out(auth: Auth) -> None:
    """At most a few seconds: a session that is left over expires by itself, a process that does not end is worse."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LOGOUT_TIMEOUT):
            await auth.close()


def _check_identity(ledger: Ledger, credentials: Credentials) -> None:
    """A run is gone on with as the account that began it, as far as credentials tell who that is."""
    who = {Account: "account ", AccessKey: "access key "}.get(type(credentials), "")
    if isinstance(credentials, Account):
        who += credentials.name
    elif isinstance(credentials, AccessKey):
        who += credentials.key_id
    before = ledger.meta("identity", "")
    if who and before and who != before:
        raise RunRefused(
            f"this run was begun as {before}, the credentials now are of {who}; use the same, or start a new run"
        )
    if who:
        ledger.set_meta(identity=who)
