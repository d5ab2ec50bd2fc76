"""Pace a run: the rate of all requests, the number of PUTs in flight, the gate, the retry budget."""

from bulkimg.pace.backoff import full_jitter
from bulkimg.pace.gate import HELD, Blame, Gate
from bulkimg.pace.health import SILENT, WELL, Health, State
from bulkimg.pace.limit import Flight, Heard
from bulkimg.pace.pace import Pace
from bulkimg.pace.patience import Patience

__all__ = [
    "HELD",
    "SILENT",
    "WELL",
    "Blame",
    "Flight",
    "Gate",
    "Health",
    "Heard",
    "Pace",
    "Patience",
    "State",
    "full_jitter",
]
