"""Send the ledger's rows: runner (all rows), journey (one row), verdict (answer → decision, pure)."""

from bulkimg.applier.health import Paced
from bulkimg.applier.policy import Policy
from bulkimg.applier.runner import Runner, Stop

__all__ = ["Paced", "Policy", "Runner", "Stop"]
