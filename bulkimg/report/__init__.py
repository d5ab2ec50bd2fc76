"""Pages drawn from the ledger, for people to look at. They load nothing and run without a server."""

from bulkimg.report.plan_page import write_plan_page

__all__ = ["write_plan_page"]
