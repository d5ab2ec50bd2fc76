"""Describe one image: its present fields on the server, and what the runs of a runs directory did to it."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from bulkimg.errors import BulkimgError
from bulkimg.ledger import Ledger, list_runs, stats
from bulkimg.model import FIELDS, iso_utc
from bulkimg.planner import Reader
from bulkimg.planner.diff import redacted
from bulkimg.report.documents import History

_ALSO = ("state", "status", "size", "actualSize", "md5Sum", "url", "type", "createDate", "lastOpDate")


async def present_image(reader: Reader, uuid: str) -> dict[str, Any] | None:
    """Return the image's fields that have a value, with secrets redacted; None if there is no such image."""
    image = (await reader.images([uuid], (*FIELDS, *_ALSO))).get(uuid)
    if image is None:
        return None
    return {name: value for name in (*FIELDS, *_ALSO) if (value := redacted(image, name)) is not None}


def past_of(runs_dir: Path, uuid: str) -> tuple[list[History], list[str]]:
    """Return what runs did to an image, newest first, and a sentence for each run that cannot be read."""
    found: list[History] = []
    unread: list[str] = []
    shards_of: dict[str, set[str]] = {}  # merged run → the runs of its shards
    for directory in reversed(list_runs(runs_dir)):
        try:
            ledger = Ledger.open(directory.ledger, read_only=True)
        except BulkimgError as error:
            unread.append(str(error))
            continue
        try:
            if named := ledger.meta("shards"):
                shards_of[directory.run_id] = {text.partition(" ")[2] for text in named}
            found += [_history(ledger, directory.run_id, fate) for fate in stats.row_texts_of(ledger, uuid)]
        finally:
            ledger.close()
    told = {(one.run_id, one.line) for one in found}
    return [one for one in found if not _is_told_again(one, shards_of, told)], unread


def _is_told_again(one: History, shards_of: Mapping[str, set[str]], told: Set[tuple[str, int]]) -> bool:
    """Return whether this is a merged run's copy of what the shard's own run, which is here too, says itself."""
    return any((run_id, one.line) in told for run_id in shards_of.get(one.run_id, ()))


def _history(ledger: Ledger, run_id: str, fate: stats.RowText) -> History:
    outcome = fate.outcome
    settings = ledger.meta("settings", {})
    kind = "undo" if ledger.meta("undo_of") else "retry" if ledger.meta("retry_of") else "run"
    return History(
        run_id=run_id,
        target=f"{settings.get('endpoint', '')}{settings.get('base_path', '')}",
        started_at=iso_utc(ledger.meta("started_at") or ledger.meta("created_at") or 0.0),
        kind=kind,
        line=outcome.line,
        status=outcome.status.value,
        code=outcome.code,
        message=outcome.message,
        changed=tuple(outcome.changed),
        before=outcome.before,
        after=outcome.after,
    )
