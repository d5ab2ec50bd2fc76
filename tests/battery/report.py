"""Keep the battery's figures: one record for each test in records.jsonl, and RESULTS.md made from all of them."""

import fcntl
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

RECORDS = Path(__file__).with_name("records.jsonl")
RESULTS = Path(__file__).with_name("RESULTS.md")


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


@dataclass(frozen=True)
class Record:
    """The result of one test. `id` is that of docs/dev/reliability.md; (id, test) names the record."""

    id: str
    test: str
    trials: int
    failures: int
    unit: str = "runs"  # number of trials
    notes: str = ""
    seconds: float = 0.0
    date: str = field(default_factory=today)
    machine: str = field(default_factory=machine)

    @property
    def bound(self) -> str:
        """Return the bound of the failure rate. Without a failure in N trials it is 3/N with 95 % confidence."""
        if self.failures or not self.trials:
            return "-"
        return f"< {min(1.0, 3 / self.trials):.2%}"


def kept() -> list[Record]:
    if not RECORDS.exists():
        return []
    return [Record(**json.loads(line)) for line in RECORDS.read_text("utf-8").splitlines() if line]


def keep(record: Record) -> None:
    """Add the record, or replace the same test's last one. A crash leaves the old file or the new one."""
    with _alone():
        _keep(record)


@contextmanager
def _alone() -> Iterator[None]:
    """Lock the file, because several tests may end at once."""
    folder = os.open(RECORDS.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _keep(record: Record) -> None:
    records = kept()
    names = [(one.id, one.test) for one in records]
    if (record.id, record.test) in names:
        records[names.index((record.id, record.test))] = record
    else:
        records.append(record)
    fresh = RECORDS.with_suffix(".new")
    fresh.write_text("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in records), "utf-8")
    fresh.replace(RECORDS)


def write() -> None:
    """Write RESULTS.md from all records."""
    lines = [
        "# Battery",
        "",
        "`make battery` writes this. The ids are docs/dev/reliability.md's; the bound is 3/N where nothing failed in N trials.",
        "",
        "| id | test | trials | failures | 95 % bound | notes | seconds | date | machine |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(kept(), key=lambda record: (_number(record.id), record.id, record.test)):
        cells = (
            one.id, one.test, f"{one.trials:,} {one.unit}", f"{one.failures:,}", one.bound, one.notes,
            f"{one.seconds:.0f}", one.date, one.machine,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    RESULTS.write_text("\n".join([*lines, ""]), "utf-8")


def _number(name: str) -> int:
    digits = "".join(char for char in name if char.isdigit())
    return int(digits) if digits else 0
