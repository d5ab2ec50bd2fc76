"""Create runs: from a manifest, from an interrupted run, from the rows that an earlier run left."""

import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, NamedTuple

from bulkimg import __version__
from bulkimg.cells import write_cell
from bulkimg.engine.carrying import check_cluster
from bulkimg.engine.measuring import check_metrics
from bulkimg.engine.overlap import Work, alone, work_of
from bulkimg.engine.plugins import NO_PLUGINS, Plugins, load_observers, load_plugins, with_earlier, with_new
from bulkimg.engine.run import OpenRun, replaced_tags
from bulkimg.errors import Exit, ManifestRefused, RunRefused, StorageError, UsageError
from bulkimg.ledger import Ledger, RunDirectory, new_run, plans, stats, timeline
from bulkimg.ledger.intake import add_rows, batches, merge_duplicates
from bulkimg.ledger.rundir import CAMPAIGN
from bulkimg.ledger.store import NotBegun
from bulkimg.manifest import Manifest
from bulkimg.manifest.columns import parse_condition
from bulkimg.model import FIELDS, RETRYABLE, Row, RunEvent
from bulkimg.notify import Attendants
from bulkimg.planner import load_rows, undo_rows
from bulkimg.report.tables import check_library, check_size, is_table
from bulkimg.settings import PLAN_SHAPE, Settings
from bulkimg.values import nearest, parse_conditions

_IDENTITY = ("manifest_path", "sha256", "query_sha256")  # of what a run was made from
_LIMITS = ("max_errors", "max_changes", "window", "shard")


def create_run(
    source: str,
    settings: Settings,
    changes: Iterable[Mapping[str, Any]] | None = None,
    now: Callable[[], float] = time.time,
    *,
    plan_only: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
) -> OpenRun:
    """Load the manifest or the changes into a new run's ledger. Raises UsageError and StorageError.

    Raises RunRefused if another run of the same work is under way, unless this run is only planned (`plan_only`), or that
    run ends within `lock_wait`. `tell` gets a sentence when the wait begins.
    """
    plugins = load_plugins(settings.plugins)
    manifest = Manifest(source, settings, changes, plugins.alter)
    path = str(Path(source).absolute()) if changes is None and source != "-" else ""
    check_source(source, changes)
    attendants = check_start(source, settings, plan_only=plan_only)
    with opened(manifest):
        work = None if plan_only else work_on(settings, path)
        about = about_source(manifest, path)
        run = begin_run(settings, Parts(attendants, plugins), now, work, tell, **about, plan_only=plan_only)
        with removing_if_refused([run]):
            load_rows(run.ledger, manifest, settings.shard, skip_invalid=settings.skip_invalid)
            check_results_size(run.ledger, settings)
    run.ledger.set_meta(state="ready")
    return run


def check_start(source: str, settings: Settings, *, plan_only: bool = False) -> Attendants:
    """Check what can be known before a run is made. Raises UsageError and StorageError."""
    check_outputs(source, settings)
    attendants = Attendants() if plan_only else attendants_of(settings)
    if not plan_only:
        check_metrics(settings)
        check_cluster(settings)
    return attendants


@contextmanager
def opened(manifest: Manifest) -> Iterator[None]:
    """Open the manifest if a library reads it, before anything is made. Raises UsageError and ManifestRefused."""
    manifest.open()
    try:
        yield
    finally:
        manifest.close()


def about_source(manifest: Manifest, path: str) -> dict[str, str]:
    """Return what the ledger keeps of the manifest's place. `path` is absolute, or ""."""
    query = {"query_sha256": _digest_of(path)} if manifest.format == "sql" else {}
    return {"manifest_path": path, **query}


Tell = Callable[[str], None]


class Parts(NamedTuple):
    """What a run is made with, besides its settings. `own` is the id of the run that it is made from."""

    attendants: Attendants
    plugins: Plugins
    own: str = ""


def work_on(settings: Settings, path: str) -> Work | None:
    """Return what no other run may do at the same time, or None if others may. `path` is the manifest's, or ""."""
    if settings.allow_overlap:
        return None
    return Work(settings.target, path, settings.job_name, "", str(settings.shard or ""))


def begin_run(
    settings: Settings,
    parts: Parts,
    now: Callable[[], float],
    work: Work | None,
    tell: Tell = lambda sentence: None,
    **header: Any,
) -> OpenRun:
    """Make the directory and the ledger of a run whose rows are not loaded yet.

    `work` is what no other living run may do, or None if others may. Raises RunRefused if one does for longer than
    `lock_wait`; `tell` gets a sentence when the wait begins.
    """
    with alone(settings.runs_dir, work, settings.lock_wait, own=parts.own, tell=tell):
        begun = now()  # after the wait
        directory = new_run(settings.runs_dir, begun, settings.run_id)
        ledger = Ledger.create(directory.ledger)
        about = {"plugins": parts.plugins.records} if parts.plugins.loaded else {}
        _write_header(ledger, directory, settings, begun, **(about | header))
    return OpenRun(directory, ledger, settings, attendants=parts.attendants, plugins=parts.plugins)


@contextmanager
def removing_if_refused(runs: Collection[OpenRun]) -> Iterator[None]:
    """Remove new runs if a plugin or an option turns out to be wrong, or another run does the same work.

    Nothing of them was planned or sent.
    """
    try:
        yield
    except (UsageError, RunRefused):
        for run in runs:
            run.ledger.close()
            run.directory.remove()
            run.directory.release()
        raise


def check_source(source: str, changes: Iterable[Any] | None = None) -> None:
    """Open the file once, so that a file that cannot be opened leaves no run."""
    if changes is None and source != "-":
        try:
            with Path(source).open("rb"):
                pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ManifestRefused(f"{source}: cannot be read: {reason}; check the path") from None


def check_outputs(source: str, settings: Settings) -> None:
    """Raise UsageError or StorageError if --results cannot be a result file or is the manifest itself."""
    path = settings.results
    if path is None:
        return
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise StorageError(
            f"--results {path}: the directory does not exist or is not writable, so nothing was sent; create it, or choose another path"
        )
    if path.suffix not in {".csv", ".jsonl"} and not is_table(path):
        raise UsageError(
            f"--results {path}: the file name does not say the format; end it in .csv, .jsonl, .xlsx or .parquet"
        )
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError(f"--results {path}: not a regular file, and the results would replace it; choose another path")
    if path.exists() and _same_file(path, source):
        raise UsageError(
            f"--results {path}: this is the manifest, and the results would overwrite it; choose another path"
        )
    check_library(f"--results {path}", path.suffix[1:])


def check_results_size(ledger: Ledger, settings: Settings) -> None:
    """Raise UsageError if --results cannot hold the rows of this ledger."""
    if path := settings.results:
        check_size(f"--results {path}", path.suffix[1:], stats.rows_in_all(ledger), ledger.meta("columns"))


def attendants_of(settings: Settings) -> Attendants:
    """Read the addresses of the messages. Raises UsageError where one cannot be used."""
    return Attendants(settings.notify, settings.hooks, settings.job_name)


def _same_file(path: Path, source: str) -> bool:
    try:
        given = os.fstat(0) if source == "-" else Path(source).stat()
    except (OSError, ValueError):
        return False
    return os.path.samestat(path.stat(), given)


def _write_header(ledger: Ledger, directory: RunDirectory, settings: Settings, created_at: float, **more: Any) -> None:
    with ledger.transaction():
        ledger.set_meta(
            run_id=directory.run_id,
            version=__version__,
            created_at=created_at,
            state="reading",
            settings=kept_options(settings),
            by={"uid": os.getuid(), "user": _user(), "host": platform.node()},
            note=settings.note,
            **more,
        )


def _user() -> str:
    """Return the user's name from the environment, or from /etc/passwd.

    Nothing is asked over the network: a dry run opens no socket.
    """
    return os.environ.get("LOGNAME") or os.environ.get("USER") or _local_user(os.getuid())


def _local_user(uid: int) -> str:
    """Read the name from /etc/passwd. `pwd` may ask a directory over the network."""
    try:
        lines = Path("/etc/passwd").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    users = (line.split(":") for line in lines)
    return next((user[0] for user in users if len(user) > 2 and user[2] == str(uid)), f"uid {uid}")


def kept_options(settings: Settings) -> dict[str, Any]:
    """Return the options as Settings accepts them again, with the whole target."""
    how_it_is_shown = {
        "runs_dir", "progress", "json_summary", "log_format", "verbose", "quiet", "yes", "dry_run", "run_id",
        "allow_overlap", "lock_wait", "encoding_is_configured", "metrics_file", "metrics_listen", "otel", "cluster", "desk",
        "targets", "target_names", "target_column", "every_target", "order", "stop_on_failure",
    }  # fmt: skip
    kept = settings.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={*_LIMITS, "results", "keep", *how_it_is_shown}
    )
    if settings.keep:
        kept["keep"] = {name: number for name, number in asdict(settings.keep).items() if number}
    for name in _LIMITS:
        if (limit := getattr(settings, name)) != getattr(Settings(), name):
            kept[name] = str(limit)
    if settings.results:
        kept["results"] = str(settings.results.absolute())
    # The whole target, so that no later default, variable or profile can change what the run was asked for.
    whole = settings.model_dump(mode="json", include={"endpoint", "base_path", "action_key", *PLAN_SHAPE})
    return kept | whole | ({"ca_file": str(settings.ca_file.absolute())} if settings.ca_file else {})


def resume_run(directory: RunDirectory, settings: Settings, *, planned: bool = False) -> OpenRun:
    """Lock a run again and check that it can be resumed. Raises RunRefused if it cannot.

    `planned`: it must be a plan of which nothing was sent.
    """
    directory.hold()
    try:
        ledger = Ledger.open(directory.ledger)
        try:
            return _reopened(directory, ledger, settings, planned=planned)
        except BaseException:
            ledger.close()
            raise
    except BaseException:
        directory.release()  # otherwise a program that keeps running could not use this run again
        raise


def _reopened(directory: RunDirectory, ledger: Ledger, settings: Settings, *, planned: bool) -> OpenRun:
    state = ledger.meta("state")
    if state in {None, "reading"}:
        raise RunRefused(
            f"run {directory.run_id} ended before its manifest was read, so nothing was sent; run the manifest again"
        )
    if state == "refused":
        raise RunRefused(
            f"the manifest of run {directory.run_id} was refused, so there is nothing to resume; fix it and run it again"
        )
    if planned and state == "done" and not plans.counts(ledger).actions["update"]:
        planned = False  # a plan without changes has nothing left to send
    if planned and state != "planned":
        again = f"bulkimg resume {directory.words}"
        how = {
            "done": f"is finished; see bulkimg status {directory.words}",
            "ready": f"has no plan yet; {again} makes one",
        }
        raise RunRefused(
            f"run {directory.run_id} {how.get(state, f'has already started sending; {again} sends the rest')}"
        )
    ledger.verify()
    if state == "running":  # its process would have written another state at its end
        when = timeline.last_sign_of_life(ledger)
        lost = RunEvent(when, "lost", "the process ended suddenly: it was killed, or the machine stopped")
        timeline.add(ledger, (), [lost])
    if state != "done":
        ledger.set_meta(plan_only=False, admitted=False)
    if state != "done":
        ledger.set_meta(settings=kept_options(settings))  # guards and pace that are given now hold from now on
    check_outputs(ledger.meta("manifest") or "", settings)
    check_results_size(ledger, settings)
    check_metrics(settings)
    check_cluster(settings)
    attendants = Attendants() if state == "done" else attendants_of(settings)
    plugins = NO_PLUGINS if state == "done" else _observers(ledger, settings)
    return OpenRun(directory, ledger, settings, attendants=attendants, plugins=plugins)


def _observers(ledger: Ledger, settings: Settings) -> Plugins:
    """Load the plugins that observe a resumed run. Its rows have passed the row hooks before."""
    records = ledger.meta("plugins", [])
    plugins = load_observers(settings.plugins, records)
    if plugins.loaded:
        ledger.set_meta(plugins=with_new(records, plugins))
    return plugins


def named_run(settings: Settings, *, undo_of: str | None = None, retry_of: str | None = None) -> RunDirectory | None:
    """Return the run that `--run-id` names if it can be resumed, or None if a new run may have the name.

    Raises RunRefused if that run is finished, does other work, or is held by a process. `undo_of` and `retry_of` are
    the run that it must undo or retry. A run of which nothing was planned or sent loses its name to the new one.
    """
    directory = RunDirectory(settings.runs_dir / settings.run_id) if settings.run_id else None
    if directory is None or not directory.path.is_dir():
        return None
    directory.hold()
    try:
        if directory.is_begun_only:
            directory.remove()
            return None
        if (directory.path / CAMPAIGN).is_file():
            raise RunRefused(f"{directory.run_id} is the name of a campaign; choose another --run-id")
        try:
            ledger = Ledger.open(directory.ledger, read_only=True)
        except NotBegun:  # we hold it, so no other process is making it
            directory.remove()
            return None
        state, kin = ledger.meta("state", "reading"), (ledger.meta("undo_of"), ledger.meta("retry_of"))
        ledger.close()
        if state == "done":
            raise RunRefused(
                f"run {directory.run_id} is finished and cannot be resumed; choose another --run-id, or see bulkimg status {directory.words}"
            )
        if state in {"reading", "refused", "ready"}:
            directory.remove()
            return None
        if kin[1] != retry_of or (retry_of is None and kin[0] != undo_of):
            raise RunRefused(
                f"run {directory.run_id} does different work; choose another --run-id, or finish it with bulkimg resume {directory.words}"
            )
        return directory
    finally:
        directory.release()


def refuse_other_work(named: RunDirectory, settings: Settings, source: str) -> None:
    """Raise RunRefused if the run of that name is for another server or another manifest."""
    stored = stored_settings(named)
    if (stored.get("endpoint"), stored.get("base_path")) != (settings.endpoint, settings.base_path):
        target = f"{stored.get('endpoint')}{stored.get('base_path')}"
        raise RunRefused(
            f"run {named.run_id} was started against {target}, not {settings.target}; choose another --run-id"
        )
    if edited := edited_manifest(named, source):
        raise RunRefused(
            f"{edited}: not the manifest of run {named.run_id}; choose another --run-id, or send the rest of its own "
            f"manifest with bulkimg resume {named.words}"
        )


def edited_manifest(directory: RunDirectory, source: str | None = None) -> str:
    """Return the name of the run's manifest if the file has changed since, else "". Of a query it is the query's file.

    `source` is the manifest that is given now. Without it, the manifest that the run began with is compared.
    """
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        path = source or ledger.meta("manifest_path")
        digest = ledger.meta("query_sha256") or ledger.meta("sha256")  # the rows of a query are in the ledger only
    finally:
        ledger.close()
    try:
        if not path or not digest or not (path == "-" or Path(path).is_file()):
            return ""
        return path if _digest_of(path) != digest else ""
    except OSError:
        return ""


def _digest_of(path: str) -> str:
    if path == "-":
        return sha256(sys.stdin.buffer.read()).hexdigest()
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def stored_settings(directory: RunDirectory) -> dict[str, Any]:
    """Return the options that a run began with, as Settings accepts them."""
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        return dict(ledger.meta("settings", {}))
    finally:
        ledger.close()


def rows_left(directory: RunDirectory) -> int:
    """Return how many rows have no outcome, if the run has begun to send."""
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        return stats.rows_to_do(ledger) if ledger.meta("state") in ("running", "stopped") else 0
    finally:
        ledger.close()


class NothingToDo(Exception):
    """The earlier run left nothing to retry or undo. It is not an error, but rows may have been left before."""

    def __init__(self, why: str, exit_code: Exit = Exit.OK) -> None:
        super().__init__(why)
        self.exit_code = exit_code


def create_retry(earlier: RunDirectory, settings: Settings, now: Callable[[], float] = time.time) -> OpenRun:
    """Create a run of the rows that the earlier run left failed, unknown or unprocessed."""
    with _earlier(earlier) as old:
        if next(_rows_again(old), None) is None:
            raise NothingToDo(f"nothing to retry: no row of run {earlier.run_id} is failed, unknown or unprocessed")
        kept = {
            key: old.meta(key) for key in (*_IDENTITY, "manifest", "columns", "has_expectations", "undo_of", "undoes")
        }
        return _begin_from(old, _rows_again(old), settings, now, retry_of=earlier.run_id, **kept)


def create_undo(
    earlier: RunDirectory, settings: Settings, where: Sequence[str] = (), now: Callable[[], float] = time.time
) -> OpenRun:
    """Create a run that restores what the earlier run changed or may have changed.

    `where` holds conditions over the manifest's columns, `uuid`, `line` and `status`. Only rows that meet all are
    undone.
    """
    with _earlier(earlier) as old:
        if old.meta("state") == "ready":
            raise NothingToDo(f"nothing to undo: run {earlier.run_id} has sent nothing")
        if not plans.is_made(old):
            raise RunRefused(
                f"run {earlier.run_id} was sent with --no-survey, so the old values are not known; it cannot be undone"
            )
        wanted = _Where(where, old.meta("columns"))
        if next(wanted.rows(old), None) is None:
            chosen = " in the rows that --where selects" if where else ""
            raise NothingToDo(f"nothing to undo: run {earlier.run_id} changed no image{chosen}")
        settings = settings.model_copy(
            update={"tags_mode": "replace", "allow_field": FIELDS, "survey": True, "skip_invalid": True, "where": ()}
        )
        kept = {key: old.meta(key) for key in _IDENTITY} | {"columns": None}
        kept |= {"manifest": f"undo of {earlier.run_id}", "undo_of": earlier.run_id, "undoes": _undoes(old)}
        return _begin_from(old, wanted.rows(old), settings, now, has_expectations=True, is_partial=bool(where), **kept)


def _undoes(ledger: Ledger) -> dict[str, Any]:
    """Return the facts about the undone run that a person needs."""
    return {
        "manifest": ledger.meta("manifest"),
        "started_at": ledger.meta("started_at"),
        "updated": stats.counts(ledger)["updated"],
        "note": ledger.meta("note", ""),
        "undo_of": ledger.meta("undo_of"),
    }


class _Where:
    """Select the rows of an earlier run for `--where`, and turn each into a row that undoes it."""

    def __init__(self, conditions: Sequence[str], columns: Sequence[str] | None) -> None:
        try:
            self._conditions = [parse_condition(text) for text in parse_conditions(list(conditions))]
        except ValueError as error:
            raise UsageError(f"--where {error}") from None
        self._columns = columns
        known = {"uuid", "line", "status", *FIELDS, *(columns or ())}
        for column, _ in self._conditions:
            if column not in known:
                raise UsageError(f"--where: the run has no column {column!r}{nearest(column, sorted(known))}")

    def rows(self, ledger: Ledger) -> Iterator[Row]:
        chosen = (item for item in plans.written(ledger) if self._wanted(item))
        return undo_rows(chosen, replace_tags=replaced_tags(ledger))

    def _wanted(self, item: plans.Written) -> bool:
        texts = {name: write_cell(value, "") for name, value in item.fields.items()}
        texts |= dict(zip(self._columns or (), item.cells or (), strict=False))
        texts |= {"uuid": item.uuid, "line": str(item.line), "status": item.status.value}
        return all(holds(texts) for _, holds in self._conditions)


@contextmanager
def _earlier(earlier: RunDirectory) -> Iterator[Ledger]:
    """Open and lock the ledger of an ended run while a new run is made from it."""
    earlier.hold()
    old = None
    try:
        old = Ledger.open(earlier.ledger)
        if old.meta("state") in {None, "reading", "refused"}:
            raise RunRefused(
                f"run {earlier.run_id} was refused and nothing was sent; fix the manifest and run it again"
            )
        old.verify()
        yield old
    finally:
        if old:
            old.close()
        earlier.release()


def _begin_from(
    old: Ledger, rows: Iterator[Row], settings: Settings, now: Callable[[], float], **header: Any
) -> OpenRun:
    check_outputs(old.meta("manifest") or "", settings)
    attendants = attendants_of(settings)
    check_metrics(settings)
    check_cluster(settings)
    plugins = replace(load_observers(settings.plugins, old.meta("plugins", [])), remarks=())  # it begins with them
    if records := with_earlier(old.meta("plugins", []), plugins):
        header["plugins"] = records
    work = None if settings.allow_overlap else work_of(old)._replace(target=settings.target)
    parts = Parts(attendants, plugins, old.path.parent.name)
    run = begin_run(settings, parts, now, work, left_out=0, **header)
    ledger, ordinal = run.ledger, 1
    for batch in batches(rows):
        add_rows(ledger, ordinal, batch)
        ordinal += len(batch)
    with removing_if_refused([run]):
        check_results_size(ledger, settings)
    ledger.set_meta(merged=merge_duplicates(ledger))
    ledger.keep_checksums()
    ledger.set_meta(state="ready")
    return run


def _rows_again(ledger: Ledger) -> Iterator[Row]:
    for fate in stats.row_texts(ledger, *RETRYABLE):
        yield Row(fate.outcome.line, fate.outcome.uuid, fate.fields, fate.expects, tuple(fate.cells or ()))
