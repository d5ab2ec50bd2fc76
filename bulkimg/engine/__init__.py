"""The engine: a manifest becomes a ledger, the ledger is carried out, a summary comes back. Nothing here prints.

The command line and `import bulkimg` both stand on it. Progress, logs and pages are observers of the events it emits.
"""

from bulkimg.engine.begin import NothingToRetry, begin, begin_retry, check_outputs, reopen, stored_settings
from bulkimg.engine.carry import Engine
from bulkimg.engine.close import next_command, refusal, refuse, summary_document
from bulkimg.engine.run import OpenRun
from bulkimg.engine.world import World

__all__ = [
    "Engine", "NothingToRetry", "OpenRun", "World", "begin", "begin_retry", "check_outputs", "next_command", "refusal", "refuse",
    "reopen", "stored_settings", "summary_document",
]  # fmt: skip
