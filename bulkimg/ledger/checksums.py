"""Keep checksums of everything that decides what is sent and reported, so that damage is refused.

SQLite's own checks find a broken structure, but not a flipped bit in a value (docs/dev/reliability.md, invariant 17).
The checksums protect against accidents: a user who can write the file can write its checksums too.

Rows do not change after the manifest is loaded, and the plan does not change once it is made. So each has one checksum
of its records in order. Attempts and outcomes are added all the time. Their log digest is the exclusive or of one
digest for each record (samples and events too): adding and removing a record are the same operation. The digests are hashes and not CRCs: with
CRCs, the same change in two records would cancel itself out.
"""

import marshal
import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

SIZE = 7  # bytes of a digest: SQLite's integers are signed and have eight
_EMPTY = blake2b(digest_size=SIZE)
CHUNK = 64  # records; few, because a row may be as large as its line: 1 MiB
_IN_ORDER = {
    "rows": "SELECT ordinal, line, uuid, fields, expects, cells, leader, problems FROM row ORDER BY ordinal",
    "problems": "SELECT ordinal, line, column, value, code, message, fix, fatal, cell FROM problem ORDER BY rowid",
    "plan": "SELECT ordinal, action, before, send, aside FROM plan ORDER BY ordinal",
    "meta": "SELECT key, value FROM meta ORDER BY key",
    "schema": "SELECT type, name, sql FROM sqlite_schema ORDER BY name",
}
_LOG = {
    "opened": "SELECT ordinal, n, job_uuid FROM attempt",
    "closed": "SELECT ordinal, n, fate, code, http_status FROM attempt WHERE fate IS NOT NULL",
    "outcome": "SELECT * FROM outcome",
    "sample": "SELECT * FROM sample",
    "event": "SELECT * FROM event",
}


def _bytes(values: Any) -> bytes:
    # Version 2 of marshal writes equal values as equal bytes, and keeps 1, 1.0, '1' and b'1' apart.
    return marshal.dumps(values, 2)


def digest(kind: str, record: Iterable[Any]) -> int:
    """Return the digest of one record of the log. `kind` is a key of `_LOG`."""
    total = _EMPTY.copy()  # a third faster than a new one
    total.update(marshal.dumps((kind, *record), 2))
    return int.from_bytes(total.digest(), "big")


def in_order(db: sqlite3.Connection, name: str) -> int:
    """Return the checksum of a table that is read in order."""
    total, cursor = blake2b(digest_size=SIZE), db.execute(_IN_ORDER[name])
    while chunk := cursor.fetchmany(CHUNK):
        total.update(_bytes(chunk))
    return int.from_bytes(total.digest(), "big")


def log_digest(db: sqlite3.Connection) -> int:
    """Return the log digest: the exclusive or over all attempts and outcomes."""
    total = 0
    for kind, query in _LOG.items():
        for record in db.execute(query):
            one = _EMPTY.copy()  # as `digest` does: a call for each record of millions is a tenth of the time
            one.update(marshal.dumps((kind, *record), 2))
            total ^= int.from_bytes(one.digest(), "big")
    return total


def write(db: sqlite3.Connection, **sums: int) -> None:
    """Write checksums. Call it in the transaction that changes the records."""
    db.executemany(
        "INSERT INTO checksum VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", list(sums.items())
    )


def kept_log_digest(db: sqlite3.Connection) -> int:
    """Return the log digest as it was last written. Without damage, `log_digest` returns the same."""
    found: int = db.execute("SELECT value FROM checksum WHERE name = 'log_digest'").fetchone()[0]
    return found


def keep(db: sqlite3.Connection) -> int:
    """Write the checksums of everything as it is now. Returns the log digest."""
    total = log_digest(db)
    write(db, **{name: in_order(db, name) for name in _IN_ORDER}, log_digest=total)
    return total


def header_is_whole(db: sqlite3.Connection) -> bool:
    """Return whether the header matches its checksum. It is safe while another process writes."""
    db.execute("BEGIN")
    try:
        kept = db.execute("SELECT value FROM checksum WHERE name = 'meta'").fetchone()
        return kept is not None and in_order(db, "meta") == kept[0]
    finally:
        db.execute("COMMIT")


def damage(db: sqlite3.Connection) -> str:
    """Return what does not match its checksum, or "". Raises sqlite3.Error if the file cannot be read."""
    (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        return str(said).splitlines()[-1]
    kept = dict(db.execute("SELECT name, value FROM checksum"))
    return next((name for name in _unlike(db, kept)), "")


def _unlike(db: sqlite3.Connection, kept: dict[str, int]) -> Iterable[str]:
    for name in _IN_ORDER:
        if in_order(db, name) != kept.get(name):
            yield f"the checksum of its {name} is wrong"
    if log_digest(db) != kept.get("log_digest"):
        yield "the checksum of its attempts and outcomes is wrong"
