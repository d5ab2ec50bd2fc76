"""A job in a folder, with its credentials in files."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Cli, Done

ME = pwd.getpwuid(os.getuid()).pw_name
ENDPOINT = "http://127.0.0.1:9"  # scheduling asks no server


@dataclass
class Job:
    """A job file, a manifest and credentials, and the command that schedules them."""

    cli: Cli
    name: str = "nightly"

    @property
    def file(self) -> Path:
        return self.cli.place / "job.toml"

    def write(
        self,
        more: str = "",
        *,
        manifest: str = "m.csv",
        target: str = f'endpoint = "{ENDPOINT}"',
        plugins: str = "[]",
    ) -> None:
        self.cli.write("m.csv", f"uuid,name\n{'0' * 31}1,x\n")
        text = f'[job]\nname = "{self.name}"\nmanifest = "{manifest}"\nplugins = {plugins}\n[target]\n{target}\n{more}'
        self.cli.write("job.toml", text)
        for name in ("account", "password", "session"):
            self.cli.write(name, f"{name}-secret\n")
            (self.cli.place / name).chmod(0o600)

    @property
    def account(self) -> tuple[str, ...]:
        return ("--credential", "account=./account", "--credential", "password=./password")

    def schedule(
        self, *words: str, when: str = "02:30", kind: str = "systemd", code: int = 0, **environment: str
    ) -> Done:
        """Schedule the job as this user, with an account."""
        user = ("--user", ME) if kind == "systemd" else ()
        given = ("job.toml", "--when", when, "--as", kind, *user, *self.account)
        return self.cli("schedule", *given, *words, code=code, **environment)


@pytest.fixture
def job(cli: Cli) -> Job:
    made = Job(cli)
    made.write()
    return made
