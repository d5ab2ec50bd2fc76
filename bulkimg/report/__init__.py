"""Write what people and programs read of a run: sentences, documents, pages.

The pages are imported where they are drawn: at the end of a run, not at its start.
"""

from bulkimg.report.sentences import Narrator, level, plan_line

__all__ = ["Narrator", "level", "plan_line"]
