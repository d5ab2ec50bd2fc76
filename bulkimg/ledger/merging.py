"""Copy the runs of shards into one ledger. Rows have the ordinals of the whole manifest, so none is numbered again."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bulkimg.ledger import timeline
from bulkimg.ledger.intake import index_leaders
from bulkimg.ledger.store import Ledger, storage_errors
from bulkimg.model import RunEvent, Sample

_TABLES = ("row", "problem", "plan", "attempt", "outcome")


def take_in(ledger: Ledger, parts: Sequence[tuple[str, Path]]) -> None:
    """Copy everything of these ledgers, by the name of each part, into an empty ledger. Raises StorageError.

    The caller holds the runs and has verified them.
    """
    ledger.relax()  # it can be copied again
    samples: list[Sample] = []
    for name, path in parts:
        with _attached(ledger, path), ledger.transaction() as db:
            for table in _TABLES:
                db.execute(f"INSERT INTO main.{table} SELECT * FROM part.{table}")  # noqa: S608 - constant names
            if path == parts[0][1]:
                db.execute("INSERT INTO main.warning SELECT * FROM part.warning")  # every shard has read all rows
            found = db.execute("SELECT at, kind, text FROM part.event").fetchall()
        part = Ledger.open(path, read_only=True)
        try:
            samples += timeline.samples(part)
        finally:
            part.close()
        timeline.add(ledger, (), [RunEvent(at, kind, f"{name}: {text}") for at, kind, text in found])
    timeline.add(ledger, list(together(samples)))
    index_leaders(ledger)
    ledger.strict()
    ledger.keep_checksums()


@contextmanager
def _attached(ledger: Ledger, path: Path) -> Iterator[None]:
    with storage_errors(path):
        ledger.db.execute("ATTACH DATABASE ? AS part", (f"{path.absolute().as_uri()}?mode=ro",))
    try:
        yield
    finally:
        with storage_errors(path):
            ledger.db.execute("DETACH DATABASE part")


def together(samples: Sequence[Sample]) -> Iterator[Sample]:
    """Yield the samples of processes that ran at the same time as those of one, in order: one for each moment.

    Where one process has only minutes left, the seconds of the others are merged into minutes too.
    """
    old = max((sample.at + sample.seconds for sample in samples if sample.seconds > 1), default=0.0)
    moments: dict[float, list[Sample]] = defaultdict(list)
    for sample in samples:
        moments[sample.at // timeline.MINUTE * timeline.MINUTE if sample.at < old else sample.at].append(sample)
    for at, parts in sorted(moments.items()):
        seconds = timeline.MINUTE if at < old else 1
        whole = timeline.merged(at, seconds, parts)
        if seconds == 1:
            whole = whole._replace(
                in_flight=sum(part.in_flight for part in parts),
                concurrency=sum(part.concurrency for part in parts),
                rate=None if any(part.rate is None for part in parts) else sum(part.rate or 0.0 for part in parts),
                waiting=sum(part.waiting for part in parts),
            )
        yield whole
