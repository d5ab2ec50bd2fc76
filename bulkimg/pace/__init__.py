"""How fast: the rate of all requests, the number of PUTs in flight, the gate that holds the whole run, the retry budget."""

from bulkimg.pace.gate import HELD, Blame, Gate
from bulkimg.pace.health import SILENT, WELL, Health, State
from bulkimg.pace.pace import Pace

__all__ = ["HELD", "SILENT", "WELL", "Blame", "Gate", "Health", "Pace", "State"]
