"""This file is a run that this process holds, and the names of its files."""

from dataclasses import dataclass
from pathlib import Path

from bulkimg.ledger import Ledger, RunDirectory
from bulkimg.settings import Settings

RESULT_FILES = ("results.csv", "results.jsonl")


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that this process holds: its directory, its ledger, what was asked."""

    directory: RunDirectory
    ledger: Ledger
    settings: Settings

    def close(self) -> None:
        self.ledger.close()
        self.directory.release()

    @property
    def result_paths(self) -> list[Path]:
        """The result files of the directory, and the one that --results asks for."""
        extra = [self.settings.results] if self.settings.results else []
        return [*(self.directory.path / name for name in RESULT_FILES), *extra]


def replaced_tags(ledger: Ledger) -> bool:
    """Whether the run that this ledger is of replaces tags, or adds them."""
    return bool(ledger.meta("settings", {}).get("tags_mode") == "replace")
