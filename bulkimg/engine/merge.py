"""Put the runs of all shards together into one run, on which status, report, retry and undo work as on any other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from bulkimg.engine.close import conclude, draw, finish, write_table
from bulkimg.engine.create import Parts, begin_run, check_outputs, check_results_size
from bulkimg.engine.plugins import NO_PLUGINS
from bulkimg.engine.reopen import named_run
from bulkimg.engine.run import OpenRun
from bulkimg.errors import RunRefused, StorageError, UsageError
from bulkimg.layers import PACE, flag
from bulkimg.ledger import Ledger, RunDirectory, plans, stats
from bulkimg.ledger.merging import take_in
from bulkimg.ledger.rundir import new_id
from bulkimg.model import Observer, Summary
from bulkimg.notify import Attendants
from bulkimg.process import OTHER_FILES, open_files
from bulkimg.settings import Settings
from bulkimg.shard import Shard, parse_shard
from bulkimg.words import count

# Options that may differ between the shards: they say how fast, how carefully and where, and not what is sent. A guard
# may have been given another value with which a shard was resumed, and each machine has its own paths.
_OWN = frozenset({
    *PACE, "shard", "results", "job_name", "notify", "hook", "keep", "profile", "plugins", "note", "ca_file", "require_tls",
    "max_errors", "max_changes", "allow_field", "canary", "manifest",
})  # fmt: skip
_SAME = {
    "sha256": "manifest", "rows_sha256": "manifest", "columns": "manifest's columns", "identity": "account",
    "plugins": "plugins",
}  # fmt: skip
_COPIED = (
    "manifest", "manifest_path", "sha256", "query_sha256", "columns", "left_out", "has_expectations", "blank_records",
    "first_blank", "remarks", "identity", "action_key", "plugins",
)  # fmt: skip

FILES_OF_A_PART = 7  # its lock, and its ledger, with log and index, twice


class Part(NamedTuple):
    """The run of one shard."""

    shard: Shard
    directory: RunDirectory
    ledger: Ledger

    @property
    def name(self) -> str:
        return f"run {self.directory.run_id} (shard {self.shard})"

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.ledger.meta("settings", {}))


def create_merged(
    directories: Sequence[RunDirectory],
    settings: Settings,
    now: Callable[[], float],
    observe: Observer,
    *,
    partial: bool = False,
) -> Summary:
    """Create the run, and write its files. `settings` say where it is kept and how it is called.

    Raises RunRefused if a shard is missing, unfinished or held, or if the runs are not those of one division. `partial`
    allows missing and unfinished shards. Their rows are not in the run, or are unprocessed.
    """
    check_places(directories, settings)
    with opened(directories) as parts:
        check_alike(parts)
        if not partial:
            check_complete(parts)
        first = parts[0]
        own = {
            name: getattr(settings, name)
            for name in ("runs_dir", "run_id", "results", "note", "json_summary", "log_format")
        }
        whole = {
            key: value for key, value in first.settings.items() if key not in ("shard", "results", "notify", "hook")
        }
        own["job_name"] = whole.get("job_name", "").removesuffix(first.shard.suffix)
        merged = Settings.model_validate(whole).model_copy(update=own)
        check_outputs("-", merged)
        return _written(parts, merged, now, observe)


def check_places(directories: Sequence[RunDirectory], settings: Settings) -> None:
    """Raise RunRefused if a run is named twice, or if the new run's name is taken."""
    places: set[Path] = set()
    for directory in directories:
        if (place := directory.path.resolve()) in places:
            raise RunRefused(f"run {directory.run_id} is named twice; name the run of each shard once")
        places.add(place)
    if settings.run_id:
        path = settings.runs_dir / settings.run_id
        if path.resolve() in places or named_run(settings):  # an unfinished merge of that name is removed
            raise RunRefused(f"run {settings.run_id} already exists in {settings.runs_dir}; choose another --run-id")


@contextmanager
def opened(directories: Sequence[RunDirectory]) -> Iterator[list[Part]]:
    """Hold the runs and open their ledgers within the block, in the order of their shards. Raises RunRefused."""
    needed = FILES_OF_A_PART * len(directories) + OTHER_FILES
    if (most := open_files(needed)) < needed:
        raise UsageError(
            f"too few open files: {count(len(directories), 'run')} need {needed}, but the system allows {most:g}; raise the "
            "limit (ulimit -n)"
        )
    with ExitStack() as stack:
        parts = []
        for directory in directories:
            directory.hold()
            stack.callback(directory.release)
            ledger = Ledger.open(directory.ledger)
            stack.callback(ledger.close)
            text = ledger.meta("settings", {}).get("shard")
            if text is None:
                raise RunRefused(
                    f"run {directory.run_id} is not the run of a shard; name runs that were made with --shard"
                )
            part = Part(parse_shard(text), directory, ledger)
            if ledger.meta("state") in {None, "reading", "refused"}:
                raise RunRefused(
                    f"{part.name} has no sound manifest, so nothing of it was sent; fix it and run it again"
                )
            ledger.verify()
            parts.append(part)
        yield sorted(parts, key=lambda part: part.shard.index)


def check_alike(parts: Sequence[Part]) -> None:
    """Raise RunRefused unless the runs are different shards of one manifest, made with the same options."""
    if not parts:
        raise UsageError("no run is named; name the runs of all shards")
    first = parts[0]
    seen: dict[int, Part] = {}
    for part in parts:
        if part.shard.count != first.shard.count:
            raise RunRefused(
                f"{part.name} and {first.name} are shards of different divisions; name runs of one division"
            )
        if other := seen.get(part.shard.index):
            raise RunRefused(f"{other.name} and {part.name} are the same shard; name one of them")
        seen[part.shard.index] = part
        if differing := _differing(part.settings, first.settings):
            mine, theirs = (settings.get(differing, "its default") for settings in (part.settings, first.settings))
            raise RunRefused(
                f"{part.name} was made with {flag(differing)} {mine}, and {first.name} with {theirs}; "
                "merge runs that were made with the same options"
            )
        for key, what in _SAME.items():
            if part.ledger.meta(key) != first.ledger.meta(key):
                raise RunRefused(
                    f"{part.name} has another {what} than {first.name}; merge runs of one manifest and account"
                )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = sorted({*one, *other} - _OWN)
    return next((name for name in names if one.get(name) != other.get(name)), "")


def check_complete(parts: Sequence[Part]) -> None:
    """Raise RunRefused unless every shard is there and finished."""
    number = parts[0].shard.count
    missing = sorted({*range(1, number + 1)} - {part.shard.index for part in parts})
    if missing:
        named = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        what = "shard" if len(missing) == 1 else "shards"
        raise RunRefused(f"{what} {named} of {number} missing; name all runs, or add --partial to merge without them")
    for part in parts:
        if part.ledger.meta("state") != "done":
            raise RunRefused(
                f"{part.name} is not finished; finish it with bulkimg resume {part.directory.words}, or add --partial"
            )


def _written(parts: Sequence[Part], settings: Settings, now: Callable[[], float], observe: Observer) -> Summary:
    first = parts[0]
    metas = [part.ledger.meta for part in parts]
    found = {key: [value for get in metas if (value := get(key)) is not None] for key in _COPIED}
    # The first that has it: an empty shard has asked the server nothing.
    meta = {key: values[0] for key, values in found.items() if values}
    surveyed = any(get("surveyed") for get in metas)
    meta |= {
        "merged": sum(get("merged", 0) for get in metas),
        "shards": [f"{part.shard} {part.directory.run_id}" for part in parts],
    }
    name = settings.run_id or new_id(now())
    own = {"note": settings.note or first.ledger.meta("note", ""), "run_id": name}
    settings = settings.model_copy(update=own)
    try:
        run = begin_run(settings, Parts(Attendants(), NO_PLUGINS), now, None, **meta)
    except StorageError:
        with suppress(OSError):
            RunDirectory(settings.runs_dir / name).remove()
        raise
    try:
        take_in(run.ledger, [(f"shard {part.shard}", part.ledger.path) for part in parts])
        _check_rows(run, parts)
        check_results_size(run.ledger, settings)
        if surveyed:
            with run.ledger.transaction():
                plans.make(run.ledger, settings.target, surveyed=True)
        begun = [at for get in metas if (at := get("started_at"))]
        ended = max((at for get in metas if (at := get("ended_at"))), default=now())
        run.ledger.set_meta(state="done", started_at=min(begun, default=ended))
        summary = finish(
            run,
            None,
            ended,
            sending_seconds=max(get("sending_s", 0.0) for get in metas),
            requests=sum(get("requests", 0) for get in metas),
        )
        write_table(run)
        conclude(run, summary)
        draw(run, observe)
        run.ledger.close()
    except BaseException:  # a full disk, or Ctrl-C: the shards are as they were, so it can be done again
        with suppress(StorageError):
            run.ledger.close()
        with suppress(OSError):  # the first error is the one to report
            run.directory.remove()
        run.directory.release()
        raise
    run.directory.release()
    return summary


def _check_rows(run: OpenRun, parts: Sequence[Part]) -> None:
    """Raise RunRefused if all shards together have not exactly the rows of the manifest."""
    whole, found = parts[0].ledger.meta("rows_of_all"), stats.rows_in_all(run.ledger)
    if len(parts) == parts[0].shard.count and whole is not None and found != whole:
        raise RunRefused(
            f"the shards have {count(found, 'row')}, but the manifest has {whole:,}; they were not made by one version of bulkimg"
        )
