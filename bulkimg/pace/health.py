"""Describe the server's health as an answer shows it, for the circuit breaker."""

from enum import Enum, auto
from typing import NamedTuple


class State(Enum):
    """WELL: it works. SICK: every request would fail. ASKED: it asks for fewer requests. SILENT: not known."""

    WELL = auto()
    SICK = auto()
    ASKED = auto()
    SILENT = auto()


class Health(NamedTuple):
    """The server's health after one answer.

    `wait` is the seconds that the server asks for, None if it does not say. `why` is for messages. `quota` is (requests
    that it still accepts, seconds until it accepts more), if it says so.
    """

    state: State
    why: str = ""
    wait: float | None = None
    quota: tuple[int, float] | None = None


WELL = Health(State.WELL)
SILENT = Health(State.SILENT)
