"""`merge`: one run of the runs of all shards."""

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from typing import Any, Unpack

from bulkimg.engine.merge import create_merged
from bulkimg.errors import UsageError
from bulkimg.ledger import RunDirectory, find_run
from bulkimg.library.loop import refuse_in_a_loop
from bulkimg.library.options import AnyPath, MergeOptions, merge_settings
from bulkimg.library.result import Result, result_of
from bulkimg.model import Event
from bulkimg.report import Narrator, level

_log = logging.getLogger("bulkimg")


def merge(runs: Iterable[AnyPath], *, partial: bool = False, **options: Unpack[MergeOptions]) -> Result:
    """Make one run of the runs of all shards: ids, their beginnings, or directories. It sends nothing.

    `partial` allows missing and unfinished shards. Raises UsageError, RunRefused if the runs are not all shards of one
    division, and StorageError. After an error there is no new run, and the shards are as they were.
    """
    refuse_in_a_loop()
    return _merged(runs, partial, options)


async def amerge(runs: Iterable[AnyPath], *, partial: bool = False, **options: Unpack[MergeOptions]) -> Result:
    """Make one run of the runs of all shards: `merge` in a thread. If it is cancelled, the thread finishes first."""
    work = asyncio.ensure_future(asyncio.to_thread(_merged, runs, partial, options))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:  # perhaps not the first one; the thread holds the shards until its end
            cancelled = error
    if cancelled and not work.cancelled():
        work.exception()  # the caller hears of the cancelling only
        raise cancelled
    return work.result()


def _merged(runs: Iterable[AnyPath], partial: bool, options: MergeOptions) -> Result:
    settings = merge_settings(options)
    summary = create_merged(_found(runs, settings.runs_dir), settings, time.time, _tell, partial=partial)
    return result_of(RunDirectory(settings.runs_dir / summary.run_id))


def _found(runs: Any, runs_dir: Any) -> list[RunDirectory]:
    if isinstance(runs, str | os.PathLike) or not isinstance(runs, Iterable):
        raise UsageError(f"runs is of type {type(runs).__name__}; give a list with the run of each shard")
    return [find_run(runs_dir, os.fspath(run) if isinstance(run, os.PathLike) else run) for run in runs]


def _tell(event: Event) -> None:
    if _log.isEnabledFor(level(event)) and (said := Narrator().sentence(event)):
        _log.log(level(event), said)
