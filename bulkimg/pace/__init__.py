"""How fast: the rate of all requests, the number of PUTs in flight, and the gate that holds the whole run."""

from bulkimg.pace.pace import Pace

__all__ = ["Pace"]
