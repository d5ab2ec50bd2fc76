"""What a call returns: a run that has ended, read from its ledger."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkimg.engine.look import Drift
from bulkimg.errors import BulkimgError, Exit, UsageError
from bulkimg.ledger import Ledger, RunDirectory, find_run, plans, stats
from bulkimg.library.options import runs_directory
from bulkimg.model import GOOD, PlanCounts, Status, Value
from bulkimg.words import count

Shown = Mapping[str, Value | None]


class RowsNotFine(BulkimgError):
    """Some rows are neither updated nor unchanged; raised by `raise_for_status` only. `result` is the run."""

    exit_code = Exit.SOME_ROWS_NOT

    def __init__(self, why: str, result: "Result") -> None:
        super().__init__(why)
        self.result = result


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One row of a run and its outcome, as in results.jsonl. `started_at` is seconds since the epoch."""

    line: int
    uuid: str
    status: Status
    code: str
    message: str
    hint: str
    http_status: int | None
    attempts: int
    job_uuid: str
    started_at: float | None
    duration_ms: int | None
    changed: Sequence[str]
    before: Shown | None
    after: Shown | None
    name: str


@dataclass(frozen=True, slots=True)
class Result:
    """A run, read from its ledger.

    `exit_code` is that of the command line. `reason` is why the run stopped early, or "".
    """

    run_id: str
    directory: Path
    target: str
    exit_code: int
    reason: str
    counts: Mapping[str, int]
    next: str | None

    @property
    def ok(self) -> bool:
        """Whether every row is updated or unchanged; for a plan, whether it was made."""
        return self.exit_code == Exit.OK

    def raise_for_status(self) -> "Result":
        """Return this result, or raise RowsNotFine."""
        if self.ok:
            return self
        bad = {name: number for name, number in self.counts.items() if number and name not in GOOD}
        said = ", ".join(f"{number:,} {name}" for name, number in bad.items())
        raise RowsNotFine(f"run {self.run_id}: {said}{f' ({self.reason})' if self.reason else ''}", self)

    def rows(self, *statuses: str, status: str | None = None) -> Iterator[ResultRow]:
        """Yield the rows in manifest order, or those with one of the statuses.

        Each row is read from the ledger when it is needed. Raises StorageError if the ledger cannot be read, and
        UsageError for a word that is no status.
        """
        wanted = [_status(name) for name in (*statuses, *([status] if status else []))]
        ledger = Ledger.open(self.directory / "run.db", read_only=True)
        try:
            for fate in stats.row_texts(ledger, *wanted):
                fields = fate.outcome._asdict()
                del fields["ordinal"]
                yield ResultRow(**fields)
        finally:
            ledger.close()

    @property
    def plan(self) -> PlanCounts | None:
        """The plan's counts, or None if no plan was made."""
        ledger = Ledger.open(self.directory / "run.db", read_only=True)
        try:
            return plans.counts(ledger) if ledger.meta("plan_digest") else None
        finally:
            ledger.close()

    def to_pandas(self) -> Any:
        """Return the rows as a `pandas.DataFrame` with one column for each attribute of ResultRow.

        Raises ImportError if pandas is not installed.
        """
        import pandas as pd  # type: ignore[import-untyped, unused-ignore] # only where the user has it

        return pd.DataFrame([_columns(row) for row in self.rows()], columns=list(ResultRow.__slots__))

    def __str__(self) -> str:
        said = ", ".join(f"{number:,} {name}" for name, number in self.counts.items() if number)
        return f"run {self.run_id}: {said or 'no rows'}"


def _status(name: str) -> Status:
    try:
        return Status(name)
    except ValueError:
        raise UsageError(f"{name!r} is not a status; statuses are {', '.join(Status)}") from None


def _columns(row: ResultRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ResultRow.__slots__} | {"status": row.status.value}


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of `verify`: the number of images read, and every field that is not as the run left it."""

    run_id: str
    images: int
    drifted: Sequence[Drift]

    @property
    def ok(self) -> bool:
        """Whether nothing has drifted."""
        return not self.drifted

    @property
    def exit_code(self) -> int:
        """The exit code of the command line: 0, or 1 if something has drifted."""
        return int(Exit.OK if self.ok else Exit.SOME_ROWS_NOT)

    def __str__(self) -> str:
        return f"run {self.run_id}: {count(self.images, 'image')} checked, {count(len(self.drifted), 'field')} drifted"


def open_run(run: str, *, runs_dir: str | Path = "runs") -> Result:
    """Return an earlier run by its id, the beginning of its id, its directory, or `last`. Raises UsageError."""
    return result_of(find_run(runs_directory(runs_dir), run))


def result_of(directory: RunDirectory) -> Result:
    """Return the result of a run from its ledger, also of a run that has not ended."""
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        settings = ledger.meta("settings", {})
        code = ledger.meta("exit_code")
        return Result(
            run_id=directory.run_id,
            directory=directory.path,
            target=f"{settings.get('endpoint', '')}{settings.get('base_path', '')}",
            exit_code=int(Exit.SOME_ROWS_NOT if code is None else code),
            reason=ledger.meta("reason", ""),
            counts=stats.counts(ledger),
            next=ledger.meta("next"),
        )
    finally:
        ledger.close()
