"""Fixtures for servers that know only PUT, poll and read; tests/security/test_survey.py tests the survey."""

from pathlib import Path

import pytest

from tests.conftest import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The usual command line without a survey."""
    return Cli(tmp_path, {"BULKIMG_SURVEY": "false"})
