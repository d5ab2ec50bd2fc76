"""A run that this process holds, and the names of its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkimg.ledger import Ledger, LiveResults, RunDirectory
from bulkimg.settings import Settings

RESULT_FILES = ("results.csv", "results.jsonl")


@dataclass(slots=True)
class OpenRun:
    """A run that this process holds: its directory, its ledger, what was asked, and changed on the way."""

    directory: RunDirectory
    ledger: Ledger
    settings: Settings
    live: LiveResults | None = None  # the result files, once it has begun to send
    command: str = ""  # as it was typed, for a server that was never reached

    def change(self, **options: Any) -> None:
        """What holds from now on; writing it down is another's work."""
        self.settings = self.settings.model_copy(update=options)

    def close(self) -> None:
        if self.live:
            self.live.close()
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
