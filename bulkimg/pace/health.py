"""Describe the server's health as an answer shows it, for the gate."""

from enum import Enum, auto
from typing import NamedTuple


class State(Enum):
    """WELL: it works. SICK: every request would fail. ASKED: it wants fewer requests. SILENT: not known."""

    WELL = auto()
    SICK = auto()
    ASKED = auto()
    SILENT = auto()


class Health(NamedTuple):
    """`wait`: seconds that the server asks for, None where it does not say; `why`: for a message.

    `quota`: (requests it still takes, seconds until it takes more again), where it says so.
    """

    state: State
    why: str = ""
    wait: float | None = None
    quota: tuple[int, float] | None = None


WELL = Health(State.WELL)
SILENT = Health(State.SILENT)
