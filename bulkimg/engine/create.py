"""Make new runs from a manifest: what is checked first, the directory, the ledger, its header."""

import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, NamedTuple

from bulkimg import __version__
from bulkimg.engine.carrying import check_cluster
from bulkimg.engine.measuring import check_metrics
from bulkimg.engine.overlap import Work, alone
from bulkimg.engine.plugins import Plugins, load_plugins
from bulkimg.engine.run import OpenRun
from bulkimg.errors import ManifestRefused, RunRefused, StorageError, UsageError
from bulkimg.ledger import Ledger, RunDirectory, new_run, stats
from bulkimg.manifest import Manifest
from bulkimg.notify import Attendants
from bulkimg.planner import load_rows
from bulkimg.report.tables import check_library, check_size, is_table
from bulkimg.settings import PLAN_SHAPE, Settings

_LIMITS = ("max_errors", "max_changes", "window", "shard")

Tell = Callable[[str], None]


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
    query = {"query_sha256": digest_of(path)} if manifest.format == "sql" else {}
    return {"manifest_path": path, **query}


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


def digest_of(path: str) -> str:
    """Return the SHA-256 of a file, or of standard input for `-`."""
    if path == "-":
        return sha256(sys.stdin.buffer.read()).hexdigest()
    with Path(path).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
