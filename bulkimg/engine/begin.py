"""This file begins runs: from a manifest, from an interrupted run, from the rows an earlier run left."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bulkimg import __version__
from bulkimg.engine.run import OpenRun
from bulkimg.errors import ManifestRefused, RunRefused, StorageError, UsageError
from bulkimg.ledger import Ledger, RunDirectory, new_run, tally
from bulkimg.ledger.intake import add_rows, batches, merge_duplicates
from bulkimg.manifest import Manifest
from bulkimg.model import RETRYABLE, Row
from bulkimg.plan import take_in
from bulkimg.settings import Settings


def begin(
    source: str,
    settings: Settings,
    changes: Iterable[Mapping[str, Any]] | None = None,
    now: Callable[[], float] = time.time,
) -> OpenRun:
    """Take the manifest (or changes) into a new run's ledger. UsageError and StorageError before anything is sent."""
    manifest = Manifest(source, settings, changes)
    check_outputs(source, settings)
    _probe(source, changes)
    directory = new_run(settings.runs_dir, now())
    ledger = Ledger.create(directory.ledger)
    _write_header(ledger, settings, now())
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


def _write_header(ledger: Ledger, settings: Settings, created_at: float, **more: Any) -> None:
    with ledger.transaction():
        ledger.set_meta(
            version=__version__,
            created_at=created_at,
            run_id=ledger.path.parent.name,  # no two headers are alike, so a -wal of another run does not pass for ours
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
    ledger.verify()
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


def begin_retry(earlier: RunDirectory, settings: Settings, now: Callable[[], float] = time.time) -> OpenRun:
    """A new run of the rows that the earlier one left failed, unknown or unprocessed."""
    earlier.hold()
    old = Ledger.open(earlier.ledger)
    try:
        if old.meta("state") in {None, "reading", "refused"}:
            raise RunRefused(f"run {earlier.run_id} was refused at its manifest; mend it and run it again")
        old.verify()
        if next(_rows_again(old), None) is None:
            raise NothingToRetry(f"run {earlier.run_id} left no row to try again")
        check_outputs(old.meta("manifest") or "", settings)
        directory = new_run(settings.runs_dir, now())
        ledger = Ledger.create(directory.ledger)
        kept = {key: old.meta(key) for key in ("manifest", "sha256", "columns", "has_expectations")}
        _write_header(ledger, settings, now(), retry_of=earlier.run_id, left_out=0, **kept)
        ordinal = 1
        for batch in batches(_rows_again(old)):
            add_rows(ledger, ordinal, batch)
            ordinal += len(batch)
        ledger.set_meta(merged=merge_duplicates(ledger))
        ledger.seal()
        ledger.set_meta(state="ready")
        return OpenRun(directory, ledger, settings)
    finally:
        old.close()
        earlier.release()


def _rows_again(ledger: Ledger) -> Iterator[Row]:
    for fate in tally.fates(ledger, *RETRYABLE):
        yield Row(fate.outcome.line, fate.outcome.uuid, fate.fields, fate.expects, tuple(fate.cells or ()))
