"""The commands as functions: each async, and each as a plain call.

A plain call runs an event loop of its own; in a running loop, await the async form. No function asks a question. Every
function raises what `Run` raises. Rows that did not succeed raise nothing until `Result.raise_for_status()`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from bulkimg.credentials import Credentials
from bulkimg.engine.anew import NothingToDo, create_retry, create_undo
from bulkimg.engine.look import all_images, drift, reading
from bulkimg.engine.planning import Approve
from bulkimg.engine.reopen import resume_run, stored_settings
from bulkimg.engine.run import OpenRun
from bulkimg.engine.undone import already_undone, last_to_undo
from bulkimg.errors import RunRefused, UsageError
from bulkimg.ledger import Ledger, RunDirectory, find_run, plans
from bulkimg.library.executing import Carrying, begin_source, carried_out
from bulkimg.library.loop import wait_for
from bulkimg.library.options import Asked, Options, runs_directory
from bulkimg.library.result import Result, Verified
from bulkimg.library.source import Source, job_of
from bulkimg.manifest.writer import ManifestWriter
from bulkimg.model import FIELDS, TAGS
from bulkimg.settings import Settings

_NOT_TAKEN_OVER = ("results", "max_changes", "canary", "note", "where", "skip_rows", "max_rows", "shard")


# -- from a source ------------------------------------------------------------------------------------------------------


async def arun(
    source: Source,
    *,
    credentials: Credentials | None = None,
    approve: Approve | None = None,
    **options: Unpack[Options],
) -> Result:
    """Check a source, read the images, and send what differs.

    `source` is a path (manifest or job file), mappings, or a DataFrame.
    """
    asked = Asked(options, credentials, job=job_of(source))
    return await carried_out(Carrying(lambda: begin_source(source, asked), asked.credentials, approve=approve))


async def aplan(source: Source, *, credentials: Credentials | None = None, **options: Unpack[Options]) -> Result:
    """Make a plan and send no change. `result.plan` has its counts, and `apply(result.run_id)` sends it."""
    asked = Asked(options, credentials, job=job_of(source))
    begun = Carrying(lambda: begin_source(source, asked, plan_only=True), asked.credentials, plan_only=True)
    return await carried_out(begun)


# -- from an earlier run ------------------------------------------------------------------------------------------------


async def aapply(
    run: str,
    *,
    checksum: str | None = None,
    credentials: Credentials | None = None,
    approve: Approve | None = None,
    **options: Unpack[Options],
) -> Result:
    """Send a planned run. With `checksum`, only if the plan's digest begins with it."""
    directory, asked = _earlier(run, options, credentials)
    opened = Carrying(
        lambda: resume_run(directory, _at(asked.settings, directory), planned=True),
        asked.credentials,
        approve=approve,
        checksum=checksum,
    )
    return await carried_out(opened)


async def aresume(run: str, *, credentials: Credentials | None = None, **options: Unpack[Options]) -> Result:
    """Send the rows that an interrupted run left. A finished run is returned as it is."""
    directory, asked = _earlier(run, options, credentials)
    return await carried_out(Carrying(lambda: resume_run(directory, _at(asked.settings, directory)), asked.credentials))


async def aretry(run: str, *, credentials: Credentials | None = None, **options: Unpack[Options]) -> Result:
    """Run the failed, unknown or unprocessed rows again in a new run. Raises RunRefused if there are none."""
    directory, asked = _earlier(run, options, credentials, without=("results", "shard"))
    begun = Carrying(lambda: _something(create_retry, directory, _at(asked.settings, directory)), asked.credentials)
    return await carried_out(begun)


async def aundo(
    run: str, *, credentials: Credentials | None = None, approve: Approve | None = None, **options: Unpack[Options]
) -> Result:
    """Restore in a new run the old values that are still what `run` wrote. Raises RunRefused if there are none.

    `where` holds conditions over the manifest's columns, `uuid`, `line` and `status`.
    """
    where = options.pop("where", ())
    runs_dir = _runs_dir(options)
    directory = last_to_undo(runs_dir) if run == "last" else find_run(runs_dir, run)
    if run == "last" and not where and (said := already_undone(runs_dir, directory)):
        raise RunRefused(said[0])
    directory, asked = _earlier(str(directory.path), options, credentials, without=_NOT_TAKEN_OVER)
    rows = [where] if isinstance(where, str) else list(where)
    begun = Carrying(
        lambda: _something(create_undo, directory, _at(asked.settings, directory), rows),
        asked.credentials,
        approve=approve,
    )
    return await carried_out(begun)


async def averify(run: str, *, credentials: Credentials | None = None, **options: Unpack[Options]) -> Verified:
    """Read the images of a run again and list every field that is not as the run left it. It changes nothing."""
    directory, asked = _earlier(run, options, credentials)
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        images = sum(1 for _ in plans.wanted(ledger))
        async with reading(asked.settings, asked.credentials, lambda event: None) as reader:
            replace = asked.settings.tags_mode == "replace"
            found = [item async for item in drift(ledger, reader, replace_tags=replace)]
    finally:
        ledger.close()
    return Verified(directory.run_id, images, found)


async def aexport(
    *,
    fields: Sequence[str] = (),
    with_expectations: bool = False,
    credentials: Credentials | None = None,
    **options: Unpack[Options],
) -> list[dict[str, Any]]:
    """Return the images by uuid, as rows that `run` accepts. `where` holds conditions as the API writes them.

    `fields` are the fields to read, by default all but tags. A value that UpdateImage does not accept is left out.
    """
    where = options.pop("where", ())
    names = list(fields) or [name for name in FIELDS if name not in TAGS]
    if unknown := [name for name in names if name not in FIELDS]:
        raise UsageError(f"{unknown[0]!r} is not a field; fields are {', '.join(FIELDS)}")
    asked = Asked(options, credentials)
    conditions = [where] if isinstance(where, str) else list(where)
    rows: list[dict[str, Any]] = []
    token = asked.settings.empty_token
    writer = ManifestWriter(
        lambda line: rows.append(json.loads(line)), "jsonl", names, token, expectations=with_expectations
    )
    async with reading(asked.settings, asked.credentials, lambda event: None) as reader:
        async for image in all_images(reader, conditions, names):
            writer.write(image)
    return rows


def _earlier(
    run: str, options: Options, credentials: Credentials | None, *, without: Sequence[str] = ()
) -> tuple[RunDirectory, Asked]:
    """Return the run, and its own options below those that are given now. Its server and its shard stay."""
    directory = find_run(_runs_dir(options), run)
    stored = {name: value for name, value in stored_settings(directory).items() if name not in without}
    if given := {"endpoint", "base_path", "shard"} & options.keys():
        raise UsageError(f"{min(given)} is the run's own and cannot be given again")
    return directory, Asked(options, credentials, stored=stored)


def _runs_dir(options: Options) -> Path:
    return runs_directory(options.get("runs_dir", "runs"))


def _at(settings: Settings, directory: RunDirectory) -> Settings:
    return settings.model_copy(update={"runs_dir": directory.path.parent})


def _something(create_run: Any, *given: Any) -> OpenRun:
    try:
        opened: OpenRun = create_run(*given)
    except NothingToDo as nothing:
        raise RunRefused(str(nothing)) from None
    return opened


# -- plain calls --------------------------------------------------------------------------------------------------------


def run(
    source: Source,
    *,
    credentials: Credentials | None = None,
    approve: Approve | None = None,
    **options: Unpack[Options],
) -> Result:
    """Check a source, read the images, and send what differs: `arun` as a plain call."""
    return wait_for(arun(source, credentials=credentials, approve=approve, **options))


def plan(source: Source, *, credentials: Credentials | None = None, **options: Unpack[Options]) -> Result:
    """Make a plan and send no change: `aplan` as a plain call."""
    return wait_for(aplan(source, credentials=credentials, **options))


def apply(
    run: str,
    *,
    checksum: str | None = None,
    credentials: Credentials | None = None,
    approve: Approve | None = None,
    **options: Unpack[Options],
) -> Result:
    """Send a planned run: `aapply` as a plain call."""
    return wait_for(aapply(run, checksum=checksum, credentials=credentials, approve=approve, **options))


def resume(run: str, *, credentials: Credentials | None = None, **options: Unpack[Options]) -> Result:
    """Send the rows that an interrupted run left: `aresume` as a plain call."""
    return wait_for(aresume(run, credentials=credentials, **options))


def retry(run: str, *, credentials: Credentials | None = None, **options: Unpack[Options]) -> Result:
    """Run the failed, unknown or unprocessed rows again in a new run: `aretry` as a plain call."""
    return wait_for(aretry(run, credentials=credentials, **options))


def undo(
    run: str, *, credentials: Credentials | None = None, approve: Approve | None = None, **options: Unpack[Options]
) -> Result:
    """Restore the old values in a new run: `aundo` as a plain call."""
    return wait_for(aundo(run, credentials=credentials, approve=approve, **options))


def verify(run: str, *, credentials: Credentials | None = None, **options: Unpack[Options]) -> Verified:
    """Read the images of a run again and list every difference: `averify` as a plain call."""
    return wait_for(averify(run, credentials=credentials, **options))


def export(
    *,
    fields: Sequence[str] = (),
    with_expectations: bool = False,
    credentials: Credentials | None = None,
    **options: Unpack[Options],
) -> list[dict[str, Any]]:
    """Return the images as rows that `run` accepts: `aexport` as a plain call."""
    return wait_for(aexport(fields=fields, with_expectations=with_expectations, credentials=credentials, **options))
