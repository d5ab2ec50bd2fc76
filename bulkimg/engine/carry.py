"""This file carries an open run out: login, sending, logout, and the files at the end. Stopping it is possible at any time."""

import asyncio

from bulkimg.apply import Paced, Policy, Runner, Stop
from bulkimg.credentials import AccessKey, Account, Credentials
from bulkimg.engine.close import finish
from bulkimg.engine.run import OpenRun
from bulkimg.engine.world import World
from bulkimg.errors import Exit, RunRefused, TargetError
from bulkimg.ledger import Ledger, LiveResults, Writer, tally, write_results
from bulkimg.ledger.store import storage_errors
from bulkimg.model import Held, Observer, Reopened, Settled, Started, Summary
from bulkimg.pace import Pace
from bulkimg.zstack import Auth, ImageApi, Transport, make_auth

LOGOUT_TIMEOUT = 5.0  # seconds
LAST_ANSWER = 0.5  # seconds from the last answer of a run that gives up to its end


class Engine:
    """Carries one open run out. `stop` and `stop_now` may be called at any time from the same event loop."""

    def __init__(self, run: OpenRun, credentials: Credentials, observe: Observer, world: World | None = None) -> None:
        world = self._world = world or World()
        self._run = run
        self._credentials = credentials
        self._observe = observe
        self._runner: Runner | None = None
        self._stop: Stop | None = None
        self._step: asyncio.Future[None] | None = None  # login or logout under way
        self._ends_now = False
        self.pace = Pace(
            run.settings.rate,
            run.settings.concurrency,
            patience=run.settings.max_outage,
            clock=world.clock,
            sleep=world.sleep,
            rng=world.rng,
        )

    def stop(self, exit_code: Exit, why: str) -> None:
        """Start no new row; rows in flight finish."""
        self._stop = Stop(exit_code, why)
        if self._runner:
            self._runner.stop(exit_code, why)
        elif self._step:
            self._step.cancel()  # a login that hangs

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

        A server that is not there or refuses the login is a summary too (exit code 5, rows unprocessed). StorageError
        when the disk fails: the ledger then holds what is known, and `resume` goes on.
        """
        with storage_errors(self._run.directory.ledger):
            return await self._carry_out()

    async def _carry_out(self) -> Summary:
        run, settings = self._run, self._run.settings
        _check_identity(run.ledger, self._credentials)
        if run.ledger.meta("state") == "done":
            return finish(run, None, run.ledger.meta("ended_at"))  # its files once more, as they were
        paths = run.result_paths
        write_results(run.ledger, paths, settled_only=True)
        run.ledger.set_meta(state="running", started_at=run.ledger.meta("started_at") or self._world.now())
        run.ledger.checkpoint()
        pending, rows = tally.rows_to_do(run.ledger), tally.rows_in_all(run.ledger)
        self._observe(Started(run.directory.run_id, str(run.directory.path), settings.target, pending, rows))
        live = LiveResults(paths)
        transport = Transport(self._world.connect(settings, self._world.now), settings.target, Paced(self.pace))
        begun = self._world.clock()
        try:
            stop = await self._send(transport, live) if pending else None
        finally:
            live.close()
            await transport.close()
        seconds = self._world.clock() - begun
        return finish(run, stop, self._world.now(), sending_seconds=seconds, requests=transport.requests)

    async def _send(self, transport: Transport, live: LiveResults) -> Stop | None:
        run, settings = self._run, self._run.settings
        world = self._world
        auth = make_auth(self._credentials, transport, world.now, world.sleep)
        key = settings.action_key if settings.action_key != "auto" else run.ledger.meta("action_key", "auto")
        api = ImageApi(transport, auth, key)
        self._watch_gate(api)
        self._step = asyncio.ensure_future(auth.open())
        try:
            await self._step
        except TargetError as error:
            return Stop(error.exit_code, str(error))
        except asyncio.CancelledError:
            if self._stop is None:
                raise
            return self._stop
        runner: Runner
        writer = Writer(
            run.ledger,
            live,
            lambda done: self._observe(Settled(done)),
            lambda error: runner.fail(error),  # noqa: PLW0108 - it comes later
            world.lane(),
        )
        policy = Policy(settings.retries, settings.max_errors, settings.job_timeout, settings.timeout)
        runner = self._runner = Runner(
            writer,
            api,
            self.pace,
            policy,
            self._observe,
            world,
        )
        if self._stop:
            runner.stop(self._stop.exit_code, self._stop.why)
        try:
            stop = await runner.run()
        finally:
            await writer.close()
            await self._log_out(auth)
        writer.raise_failure()
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
        """At most a few seconds: a session that is left over expires by itself, a process that does not end is worse."""
        if self._ends_now or self.pace.gate.closed:
            return
        self._step = asyncio.ensure_future(auth.close())
        await asyncio.wait([self._step], timeout=LOGOUT_TIMEOUT)
        self._step.cancel()
        await asyncio.gather(self._step, return_exceptions=True)


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
