"""Send the ledger's rows: loop (all rows), perform (one step), decide (what follows, pure), judge (answer → verdict, pure)."""

from bulkimg.applier.health import Paced
from bulkimg.applier.loop import Ending, Loop
from bulkimg.applier.policy import Policy

__all__ = ["Ending", "Loop", "Paced", "Policy"]
