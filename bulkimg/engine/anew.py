"""Make a run of the rows of an earlier one: those to send again, or those to take back."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from bulkimg.cells import write_cell
from bulkimg.engine.carrying import check_cluster
from bulkimg.engine.create import (
    Parts,
    attendants_of,
    begin_run,
    check_outputs,
    check_results_size,
    removing_if_refused,
)
from bulkimg.engine.measuring import check_metrics
from bulkimg.engine.overlap import work_of
from bulkimg.engine.plugins import load_observers, with_earlier
from bulkimg.engine.run import OpenRun, replaced_tags
from bulkimg.errors import Exit, RunRefused, UsageError
from bulkimg.ledger import Ledger, RunDirectory, plans, stats
from bulkimg.ledger.intake import add_rows, batches, merge_duplicates
from bulkimg.manifest.columns import parse_condition
from bulkimg.model import FIELDS, RETRYABLE, Row
from bulkimg.planner import undo_rows
from bulkimg.settings import Settings
from bulkimg.values import nearest, parse_conditions

_IDENTITY = ("manifest_path", "sha256", "query_sha256")  # of what a run was made from


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
