"""The servers here are scripts that know PUT, poll and read; tests/security/test_survey.py is about looking first."""

from pathlib import Path

import pytest

from tests.conftest import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """As everywhere, but nobody looks at the images before they are changed."""
    return Cli(tmp_path, {"BULKIMG_SURVEY": "false"})
