"""Fixtures: one sandbox for each module, without the tester's own credentials and configuration."""

from pathlib import Path

import pytest

from bulkimg.credentials import CREDENTIAL_VARIABLES
from tests.conftest import Server
from tests.library.calling import Caller


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in CREDENTIAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def call(server: Server, tmp_path: Path) -> Caller:
    return Caller(server, tmp_path / "runs")
