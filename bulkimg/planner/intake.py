"""Read a whole manifest into the ledger in batches, with duplicates merged, before anything is sent."""

from collections.abc import Callable, Collection, Sequence

from bulkimg.ledger import Ledger, stats
from bulkimg.ledger.intake import (
    add_problems,
    add_rows,
    add_warnings,
    batches,
    keep_shard,
    merge_duplicates,
    rows_digest,
    settle_empty,
)
from bulkimg.manifest import Manifest
from bulkimg.model import Row, SoundRow
from bulkimg.shard import Shard


def load_rows(ledger: Ledger, manifest: Manifest, shard: Shard | None = None, *, skip_invalid: bool = False) -> None:
    """Read every row into the ledger. Afterwards its header knows the manifest's columns, digest and peculiarities.

    Of a sound manifest only the rows of the shard stay. Every shard reads all rows, so that all refuse the same manifests.
    """
    loading = _Loading(ledger, shard, skip_invalid=skip_invalid)
    for batch in batches(manifest.stored_rows()):
        loading.add(batch)
    loading.end(manifest)


def load_split(ledgers: Sequence[Ledger], manifest: Manifest, homes: Callable[[Row], Collection[int]]) -> None:
    """Read every row into the ledgers that `homes` gives by index, in one pass.

    A row for no ledger is left out. Each ledger knows the manifest as after `load_rows`.
    """
    loadings = [_Loading(ledger) for ledger in ledgers]
    left_out = 0
    for batch in batches(manifest.rows()):
        shares: list[list[Row | SoundRow]] = [[] for _ in loadings]
        for row in batch:
            assert isinstance(row, Row)
            found = homes(row)
            left_out += not found
            for at in found:
                shares[at].append(row)
        for loading, share in zip(loadings, shares, strict=True):
            loading.add(share)
    for loading in loadings:
        loading.end(manifest, left_out)


class _Loading:
    """The loading of one ledger."""

    def __init__(self, ledger: Ledger, shard: Shard | None = None, *, skip_invalid: bool = False) -> None:
        self._ledger = ledger
        self._shard, self._skip_invalid = shard, skip_invalid
        self._next, self._empty = 1, 0
        ledger.relax()  # the manifest can be read again

    def add(self, rows: Sequence[Row | SoundRow]) -> None:
        """Add the next rows."""
        if rows:
            self._empty += add_rows(self._ledger, self._next, rows)
            self._next += len(rows)

    def end(self, manifest: Manifest, left_out: int = 0) -> None:
        """Add what is known after the last row. So many rows that the manifest has not left out are in no ledger."""
        ledger = self._ledger
        add_problems(ledger, manifest.problems)
        add_warnings(ledger, manifest.warnings)
        merged = merge_duplicates(ledger, manifest.named)
        if self._shard and self._may_be_sent():
            if not manifest.sha256:  # rows of a program, which have no bytes
                ledger.set_meta(rows_sha256=rows_digest(ledger))
            merged = keep_shard(ledger, self._shard.holds)
        if self._empty:
            settle_empty(ledger)
        ledger.strict()
        with ledger.transaction():
            ledger.set_meta(
                manifest=manifest.name,
                sha256=manifest.sha256,
                columns=manifest.columns,
                left_out=manifest.left_out + left_out,
                has_expectations=manifest.has_expectations,
                merged=merged,
                blank_records=manifest.blank_records,
                first_blank=manifest.first_blank,
                remarks=manifest.remarks,
            )
        ledger.keep_checksums()

    def _may_be_sent(self) -> bool:
        problems, _, fatal = stats.problem_counts(self._ledger)
        return not fatal and (not problems or self._skip_invalid)
