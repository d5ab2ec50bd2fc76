"""What the security tests measured, named at the end of a test session, one line each."""

from typing import Any

from tests.security.figures import FIGURES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name, figure in FIGURES.items():
        terminalreporter.write_line(f"measured: {name}: {figure}")
