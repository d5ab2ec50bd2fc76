"""Read a whole manifest into the ledger in batches, with duplicates merged, before anything is sent."""

from bulkimg.ledger import Ledger
from bulkimg.ledger.intake import add_problems, add_rows, batches, merge_duplicates, settle_empty
from bulkimg.manifest import Manifest


def load_rows(ledger: Ledger, manifest: Manifest) -> None:
    """Read every row into the ledger. Afterwards its header knows the manifest's columns, digest and peculiarities."""
    ledger.relax()  # the manifest can be read again
    ordinal, empty = 1, 0
    for batch in batches(manifest.stored_rows()):
        empty += add_rows(ledger, ordinal, batch)
        ordinal += len(batch)
    add_problems(ledger, manifest.problems)
    merged = merge_duplicates(ledger)
    if empty:
        settle_empty(ledger)
    ledger.strict()
    with ledger.transaction():
        ledger.set_meta(
            manifest=manifest.name,
            sha256=manifest.sha256,
            columns=manifest.columns,
            left_out=manifest.left_out,
            has_expectations=manifest.has_expectations,
            merged=merged,
            blank_records=manifest.blank_records,
            first_blank=manifest.first_blank,
        )
    ledger.keep_checksums()
