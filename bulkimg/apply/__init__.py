"""Send the ledger's rows: runner (all rows), journey (one row), verdict (answer → decision, pure)."""

from bulkimg.apply.health import Paced
from bulkimg.apply.policy import Policy
from bulkimg.apply.runner import Runner, Stop

__all__ = ["Paced", "Policy", "Runner", "Stop"]
