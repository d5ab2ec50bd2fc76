"""Define a run that this process holds, and the names of its files."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkimg.engine.plugins import NO_PLUGINS, Plugins
from bulkimg.ledger import Ledger, LiveResults, RunDirectory
from bulkimg.model import PlanCounts
from bulkimg.notify import Attendants
from bulkimg.report.tables import is_table
from bulkimg.settings import Settings

RESULT_FILES = ("results.csv", "results.jsonl")


@dataclass(slots=True)
class OpenRun:
    """A run that this process holds: its directory, its ledger, its settings."""

    directory: RunDirectory
    ledger: Ledger
    settings: Settings
    live: LiveResults | None = None  # the result files, once it has begun to send
    planned: PlanCounts | None = None  # the plan's counts, once this process has counted them
    attendants: Attendants = field(default_factory=Attendants)  # the hooks and messages that it was asked for
    plugins: Plugins = NO_PLUGINS
    counted: dict[str, Any] = field(default_factory=dict)  # counts and causes at its end, for the report
    command: str = ""  # as typed, for a server that was never reached
    tell: Callable[[str], None] = lambda sentence: None  # what a person must hear before the run begins
    turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext  # within it, it waits for other runs

    def change(self, **options: Any) -> None:
        """Change settings. The caller saves them."""
        self.settings = self.settings.model_copy(update=options)

    def close(self) -> None:
        if self.live:
            self.live.close()
        self.ledger.close()
        self.directory.release()

    @property
    def result_paths(self) -> list[Path]:
        """Return the result files that are written line by line: those of the directory, and that of --results."""
        extra = [self.settings.results] if self.settings.results and not is_table(self.settings.results) else []
        return [*(self.directory.path / name for name in RESULT_FILES), *extra]

    @property
    def table(self) -> Path | None:
        """Return the file of --results if it is written as a whole (.xlsx, .parquet), else None."""
        path = self.settings.results
        return path if path and is_table(path) else None


def replaced_tags(ledger: Ledger) -> bool:
    """Return whether this ledger's run replaces tags instead of adding them."""
    return bool(ledger.meta("settings", {}).get("tags_mode") == "replace")
