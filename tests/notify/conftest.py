"""Fixtures: a receiver of messages, and a folder with a job file."""

import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Cli, Done, Server
from tests.notify.receiver import Receiver, receiving

_times = itertools.count()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@dataclass
class Job:
    """A job in a folder: a manifest of some images, and a job file with rules."""

    cli: Cli
    server: Server
    name: str = "nightly"

    @property
    def place(self) -> Path:
        return self.cli.place

    def write(self, rules: str, rows: int = 2, bad: int = 0) -> None:
        """Write the job. `bad` rows name images that do not exist."""
        self.rows(rows, bad)
        head = f'[job]\nname = "{self.name}"\nmanifest = "m.csv"\n[run]\nyes = true\n'
        self.cli.write("job.toml", head + textwrap.dedent(rules))

    def rows(self, rows: int, bad: int = 0, text: str = "name") -> None:
        """Write the manifest, with new values each time."""
        images = [*sorted(self.server.images())[:rows], *(f"{n:032x}" for n in range(bad))]
        lines = (f"{image},{text} {next(_times)}\n" for image in images)
        self.cli.write("m.csv", "uuid,name\n" + "".join(lines))

    def secret(self, name: str, text: str) -> str:
        """Write a file that only its owner can read."""
        self.cli.write(name, text + "\n")
        (self.place / name).chmod(0o600)
        return name

    def script(self, name: str, text: str) -> str:
        """Write a program for a hook."""
        self.cli.write(name, f"#!/bin/sh\n{text}\n")
        (self.place / name).chmod(0o700)
        return f"./{name}"

    def run(self, *words: str, code: int = 0) -> Done:
        return self.cli("run", "job.toml", *words, code=code)


@pytest.fixture
def job(cli: Cli, server: Server) -> Job:
    return Job(cli.at(server), server)
