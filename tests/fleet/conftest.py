"""A server, a manifest for all its images, and the runs of shards."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, Done, Server, sandbox_process

IMAGES = 16


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server for all tests of a module. Each test writes a description of its own."""
    with sandbox_process("--images", str(IMAGES), "--dialect", "documented") as found:
        yield found


@dataclass
class Fleet:
    """A command line, a server, and the manifest `m.csv`."""

    cli: Cli
    server: Server
    text: str  # what the descriptions begin with

    @property
    def place(self) -> Path:
        return self.cli.place

    def manifest(self, *more: str) -> str:
        """Return a row for every image, and the rows that are given."""
        lines = [f"{uuid},{self.text} {at}" for at, uuid in enumerate(sorted(self.server.images()))]
        return "\n".join(["uuid,description", *lines, *more]) + "\n"

    def shards(self, number: int, *words: str, source: str = "m.csv", name: str = "s", code: int = 0) -> list[Done]:
        """Run all shards, one after the other. Their runs are called `s-1-of-N`, `s-2-of-N`, and so on."""
        return [
            self.cli("run", source, "--yes", "--shard", f"{at}/{number}", "--run-id", name, *words, code=code)
            for at in range(1, number + 1)
        ]

    def names(self, number: int, name: str = "s") -> list[str]:
        return [f"{name}-{at}-of-{number}" for at in range(1, number + 1)]

    def results(self, *runs: str) -> list[dict[str, Any]]:
        """Return the rows of these runs in the order of their lines."""
        found = [
            json.loads(line)
            for run in runs
            for line in (self.place / "runs" / run / "results.jsonl").read_text("utf-8").splitlines()
        ]
        return sorted(found, key=lambda row: row["line"])

    def summary(self, run: str) -> dict[str, Any]:
        return json.loads((self.place / "runs" / run / "summary.json").read_text())  # type: ignore[no-any-return]

    def changed(self) -> int:
        """Return how many images have a description of this test."""
        found = self.server.images().values()
        return sum(str(image.get("description")).startswith(self.text) for image in found)

    def take(self, runs: Path) -> None:
        """Take over the runs of this directory."""
        shutil.copytree(runs, self.place / "runs")

    def run_ids(self) -> set[str]:
        return {path.name for path in (self.place / "runs").iterdir()}


@pytest.fixture
def fleet(cli: Cli, server: Server, request: pytest.FixtureRequest) -> Fleet:
    here = cli.at(server)
    made = Fleet(
        Cli(here.place, {**here.environment, "BULKIMG_RATE": "4000/s"}),
        server,
        re.sub(r"\W+", " ", request.node.name)[:99],
    )
    made.cli.write("m.csv", made.manifest())
    return made
