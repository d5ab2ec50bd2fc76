"""This file is the engine: a manifest becomes a ledger, the ledger is carried out, a summary comes back. Nothing prints.

The command line and `import bulkimg` both stand on it. Progress, logs and pages are observers of the events it emits.
"""

import asyncio
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bulkimg import __version__
from bulkimg.apply import Policy, Runner, Stop
from bulkimg.credentials import AccessKey, Account, Credentials
from bulkimg.errors import Exit, ManifestRefused, RunRefused, StorageError, TargetError, UsageError
from bulkimg.ledger import Ledger, LiveResults, RunDirectory, Writer, new_run, tally, write_results
from bulkimg.ledger.files import write_fed_back, write_json
from bulkimg.ledger.intake import BATCH, add_rows, merge_duplicates
from bulkimg.ledger.store import storage_errors
from bulkimg.manifest import Manifest
from bulkimg.model import GOOD, RETRYABLE, Observer, Row, Settled, Started, Summary, iso_utc
from bulkimg.pace import Pace
from bulkimg.plan import take_in
from bulkimg.settings import Settings
from bulkimg.zstack import Auth, ImageApi, Transport, make_auth

LOGOUT_TIMEOUT = 5.0  # seconds
RESULT_FILES = ("results.csv", "results.jsonl")


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that this process holds: its directory, its ledger, what was asked."""

    directory: RunDirectory
    ledger: Ledger
    settings: Settings

    def close(self) -> None:
        self.ledger.close()
        self.directory.release()


# ---------------------------------------------------------------------------------------------------------------------
# Beginnings: a manifest, an interrupted run, the rows an earlier run left.


def begin(source: str, settings: Settings, changes: Iterable[Mapping[str, Any]] | None = None) -> OpenRun:
    """Take the manifest (or changes) into a new run's ledger. UsageError and StorageError before anything is sent."""
    manifest = Manifest(source, settings, changes)
    check_outputs(source, settings)
    _probe(source, changes)
    directory = new_run(settings.runs_dir, time.time())
    ledger = Ledger.create(directory.ledger)
    _write_header(ledger, settings)
    take_in(ledger, manifest)
    ledger.set_meta(state="ready")
    return OpenRun(directory, ledger, settings)


def _probe(source: str, changes: Iterable[Any] | None) -> None:
    """A file that cannot be opened leaves no run behind."""
    if changes is None and source != "-":
        try:
            with Path(source).open("rb"):
                pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ManifestRefused(f"{source}: cannot be read: {reason}") from None


def check_outputs(source: str, settings: Settings) -> None:
    """UsageError or StorageError when --results cannot be a result file, or is the manifest itself."""
    path = settings.results
    if path is None:
        return
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise StorageError(f"--results {path}: its directory is not there or cannot be written; nothing was sent")
    if path.suffix not in {".csv", ".jsonl"}:
        raise UsageError(f"--results {path}: name it .csv or .jsonl; the name says the format")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError(f"--results {path}: is not a plain file, and results replace the file; name another")
    if path.exists() and _same_file(path, source):
        raise UsageError(f"--results {path}: is the manifest itself; choose another file")


def _same_file(path: Path, source: str) -> bool:
    try:
        given = os.fstat(0) if source == "-" else Path(source).stat()
    except (OSError, ValueError):
        return False
    return os.path.samestat(path.stat(), given)


def _write_header(ledger: Ledger, settings: Settings, **more: Any) -> None:
    with ledger.transaction():
        ledger.set_meta(
            version=__version__,
            created_at=time.time(),
            state="reading",
            settings=_options(settings),
            **more,
        )


def _options(settings: Settings) -> dict[str, Any]:
    """What was asked, as Settings takes it again; the target whole, so that no later default can change it."""
    how_it_is_shown = {"runs_dir", "progress", "json_summary", "log_format", "verbose", "yes", "dry_run"}
    kept = settings.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"max_errors", "results", *how_it_is_shown}
    )
    if settings.max_errors != Settings().max_errors:
        kept["max_errors"] = str(settings.max_errors)
    if settings.results:
        kept["results"] = str(settings.results.absolute())
    target = settings.model_dump(mode="json", include={"endpoint", "base_path", "action_key"})
    return kept | target | ({"ca_file": str(settings.ca_file.absolute())} if settings.ca_file else {})


def reopen(directory: RunDirectory, settings: Settings) -> OpenRun:
    """Hold a run again, to go on with it. RunRefused when it cannot be gone on with."""
    directory.hold()
    ledger = Ledger.open(directory.ledger)
    state = ledger.meta("state")
    if state in {None, "reading"}:
        raise RunRefused(
            f"run {directory.run_id} ended before its manifest was read, nothing was sent; run the manifest again"
        )
    if state == "refused":
        raise RunRefused(f"run {directory.run_id}: its manifest was refused; mend it and run it again")
    check_outputs(ledger.meta("manifest") or "", settings)
    return OpenRun(directory, ledger, settings)


def stored_settings(directory: RunDirectory) -> dict[str, Any]:
    """The options a run was begun with, as Settings takes them."""
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        return dict(ledger.meta("settings", {}))
    finally:
        ledger.close()


class NothingToRetry(Exception):
    """Not an error: the earlier run left no row to try again."""


def begin_retry(earlier: RunDirectory, settings: Settings) -> OpenRun:
    """A new run of the rows that the earlier one left failed, unknown or unprocessed."""
    earlier.hold()
    old = Ledger.open(earlier.ledger)
    try:
        if old.meta("state") in {None, "reading", "refused"}:
            raise RunRefused(f"run {earlier.run_id} was refused at its manifest; mend it and run it again")
        if next(_rows_again(old), None) is None:
            raise NothingToRetry(f"run {earlier.run_id} left no row to try again")
        check_outputs(old.meta("manifest") or "", settings)
        directory = new_run(settings.runs_dir, time.time())
        ledger = Ledger.create(directory.ledger)
        kept = {key: old.meta(key) for key in ("manifest", "sha256", "columns", "has_expectations")}
        _write_header(ledger, settings, retry_of=earlier.run_id, left_out=0, **kept)
        rows = _rows_again(old)
        ordinal = 1
        while batch := list(islice(rows, BATCH)):
            add_rows(ledger, ordinal, batch)
            ordinal += len(batch)
        ledger.set_meta(merged=merge_duplicates(ledger), state="ready")
        return OpenRun(directory, ledger, settings)
    finally:
        old.close()
        earlier.release()


def _rows_again(ledger: Ledger) -> Iterator[Row]:
    for fate in tally.fates(ledger, *RETRYABLE):
        yield Row(fate.outcome.line, fate.outcome.uuid, fate.fields, fate.expects, tuple(fate.cells or ()))


# ---------------------------------------------------------------------------------------------------------------------
# Refusal: what must be right before the first PUT.


def refusal(run: OpenRun) -> str:
    """Why the run must not send anything, in one sentence; empty when it may."""
    found, rows, fatal = tally.problem_counts(run.ledger)
    name = run.ledger.meta("manifest")
    if fatal or (found and not run.settings.skip_invalid):
        cure = "" if fatal else ", or let the good rows run with --skip-invalid"
        return f"{name}: {found} {'problem' if found == 1 else 'problems'} in {max(rows, 1)} rows; mend them{cure}"
    if run.ledger.meta("has_expectations"):
        return (
            f"{name}: has if_ columns, and this version cannot yet check them against the server; remove them to go on"
        )
    return ""


def refuse(run: OpenRun, why: str) -> Summary:
    """End a run whose manifest is refused: every row has its outcome, and nothing was sent."""
    run.ledger.set_meta(state="refused")
    return _finish(run, Stop(Exit.MANIFEST, why))


# ---------------------------------------------------------------------------------------------------------------------
# Carrying out.


class Engine:
    """Carries one open run out. `stop` and `stop_now` may be called at any time from the same event loop."""

    def __init__(self, run: OpenRun, credentials: Credentials, observe: Observer) -> None:
        self._run = run
        self._credentials = credentials
        self._observe = observe
        self._runner: Runner | None = None
        self._stop: Stop | None = None
        self._step: asyncio.Future[None] | None = None  # login or logout under way
        self.pace = Pace(run.settings.rate, run.settings.concurrency)

    def stop(self, exit_code: Exit, why: str) -> None:
        """Start no new row; rows in flight finish."""
        self._stop = Stop(exit_code, why)
        if self._runner:
            self._runner.stop(exit_code, why)
        elif self._step:
            self._step.cancel()  # a login that hangs

    def stop_now(self) -> None:
        """End at once; rows in flight stay open in the ledger and are asked about when the run is resumed."""
        if self._runner:
            self._runner.stop_now()
        if self._step:
            self._step.cancel()

    async def carry_out(self) -> Summary:
        """Send every row that has no outcome yet; the summary once every file is written.

        A server that is not there or refuses the login is a summary too (exit code 5, rows unprocessed). StorageError
        when the disk fails: the ledger then holds what is known, and `resume` goes on.
        """
        run, settings = self._run, self._run.settings
        _check_identity(run.ledger, self._credentials)
        paths = _result_paths(run)
        write_results(run.ledger, paths, settled_only=True)
        run.ledger.set_meta(state="running", started_at=run.ledger.meta("started_at") or time.time())
        pending, rows = tally.rows_to_do(run.ledger), tally.rows_in_all(run.ledger)
        self._observe(Started(run.directory.run_id, str(run.directory.path), settings.target, pending, rows))
        live = LiveResults(paths)
        assert settings.endpoint is not None
        transport = Transport(
            settings.endpoint,
            settings.base_path,
            admit=self.pace.admit,
            timeout=settings.timeout,
            ca_file=settings.ca_file,
            now=time.time,
        )
        begun = time.monotonic()
        try:
            stop = await self._send(transport, live) if pending else None
        finally:
            live.close()
            await transport.close()
        return _finish(run, stop, sending_seconds=time.monotonic() - begun, requests=transport.requests)

    async def _send(self, transport: Transport, live: LiveResults) -> Stop | None:
        run, settings = self._run, self._run.settings
        auth = make_auth(self._credentials, transport, time.time)
        self._step = asyncio.ensure_future(auth.open())
        try:
            await self._step
        except TargetError as error:
            return Stop(error.exit_code, str(error))
        except asyncio.CancelledError:
            if self._stop is None:
                raise
            return self._stop
        key = settings.action_key if settings.action_key != "auto" else run.ledger.meta("action_key", "auto")
        api = ImageApi(transport, auth, key)
        runner: Runner
        writer = Writer(run.ledger, live, lambda done: self._observe(Settled(done)), lambda error: runner.fail(error))  # noqa: PLW0108 - it comes later
        policy = Policy(settings.retries, settings.max_errors, settings.job_timeout, settings.timeout)
        runner = self._runner = Runner(writer, api, self.pace, policy, self._observe)
        if self._stop:
            runner.stop(self._stop.exit_code, self._stop.why)
        writer.start()
        try:
            stop = await runner.run()
        finally:
            await writer.close()
            await self._log_out(auth)
        writer.raise_failure()
        return stop

    async def _log_out(self, auth: Auth) -> None:
        """At most a few seconds: a session that is left over expires by itself, a process that does not end is worse."""
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


def _result_paths(run: OpenRun) -> list[Path]:
    extra = [run.settings.results] if run.settings.results else []
    return [*(run.directory.path / name for name in RESULT_FILES), *extra]


def _finish(run: OpenRun, stop: Stop | None, *, sending_seconds: float = 0.0, requests: int = 0) -> Summary:
    """Write every file of the run from the ledger, and say what came of it."""
    ledger, ended = run.ledger, time.time()
    with storage_errors(run.directory.ledger):
        counts = tally.counts(ledger)
        causes = tally.causes(ledger)
        puts = tally.puts_made(ledger)
        to_do = tally.rows_to_do(ledger)
    exit_code = _exit_code(counts, stop, to_do)
    if ledger.meta("state") != "refused":
        ledger.set_meta(state="stopped" if to_do else "done", ended_at=ended, exit_code=exit_code)
    started = ledger.meta("started_at", ended)
    summary = Summary(
        run_id=run.directory.run_id,
        directory=str(run.directory.path),
        target=run.settings.target if run.settings.endpoint else "",
        exit_code=exit_code,
        reason=stop.why if stop and exit_code else "",
        counts=counts,
        causes=causes,
        details={
            "rows": sum(counts.values()),
            "rows_left_out": ledger.meta("left_out", 0),
            "rows_to_do": to_do,
            "started_at": iso_utc(started),
            "ended_at": iso_utc(ended),
            "duration_s": round(ended - started, 3),
            "pace": {
                "rate_cap": str(run.settings.rate),
                "concurrency": run.settings.concurrency,
                "puts": puts,
                "requests": requests,
                "sending_s": round(sending_seconds, 3),
                "requests_per_s": round(requests / sending_seconds, 1) if sending_seconds else 0.0,
            },
            "manifest": {"name": ledger.meta("manifest"), "sha256": ledger.meta("sha256")},
            "retry_of": ledger.meta("retry_of"),
            "version": __version__,
            "next": next_command(run, counts, to_do),
        },
    )
    write_results(ledger, _result_paths(run))
    write_fed_back(ledger, run.directory.path, run.settings.empty_token)
    write_json(run.directory.path / "summary.json", summary_document(summary))
    return summary


def _exit_code(counts: Mapping[str, int], stop: Stop | None, to_do: int) -> int:
    """A stop's own code; an interrupt that came too late to leave a row undone does not count."""
    if stop and (to_do or stop.exit_code not in (Exit.INTERRUPTED, Exit.TERMINATED)):
        return int(stop.exit_code)
    fine = sum(counts[status] for status in GOOD)
    return int(Exit.OK if fine == sum(counts.values()) else Exit.SOME_ROWS_NOT)


def next_command(run: OpenRun, counts: Mapping[str, int], to_do: int) -> str | None:
    """The exact command to type next, when there is one."""
    if run.ledger.meta("state") == "refused":
        return None
    where = "" if run.settings.runs_dir == Path("runs") else f" --runs-dir {shlex.quote(str(run.settings.runs_dir))}"
    if to_do:
        return f"bulkimg resume last{where}"
    return f"bulkimg retry last{where}" if any(counts[status] for status in RETRYABLE) else None


def summary_document(summary: Summary) -> dict[str, Any]:
    """The summary as summary.json and --json show it."""
    return {
        "run_id": summary.run_id,
        "directory": summary.directory,
        "target": summary.target,
        "exit_code": summary.exit_code,
        "reason": summary.reason,
        "counts": dict(summary.counts),
        "causes": list(summary.causes),
        **summary.details,
    }
