"""What the security tests share: figures and leavings-out that the end of a test session names, one line each."""

import shutil
from typing import Any

import pytest

from tests.security.figures import FIGURES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures that were measured, and what was left out."""
    for name, figure in FIGURES.items():
        terminalreporter.write_line(f"measured: {name}: {figure}")
    if shutil.which("strace") is None:
        terminalreporter.write_line("left out: the test that offline commands open no socket; install strace to run it")


@pytest.fixture
def strace() -> str:
    """The tracer; the test is left out where it is absent."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is absent")
    return found
