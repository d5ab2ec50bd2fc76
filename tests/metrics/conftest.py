"""Fixtures: promtool, a free port."""

import socket

import pytest

from tests.metrics.reading import promtool

__all__ = ["promtool"]


@pytest.fixture
def port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
