"""Write what people and programs read of a run: sentences, documents, pages."""

from bulkimg.report.plan_page import write_plan_page
from bulkimg.report.run_page import write_report
from bulkimg.report.sentences import Narrator, level, plan_line

__all__ = ["Narrator", "level", "plan_line", "write_plan_page", "write_report"]
