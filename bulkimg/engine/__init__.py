"""The engine: load a manifest into a ledger, execute the run, return a summary. Nothing here prints.

The command line and `import bulkimg` both use it. Progress, logs and pages are observers of the events that it emits.
"""

from bulkimg.engine.close import next_command, plan_document, plan_page, refusal, refuse, summary_document
from bulkimg.engine.connect import Ports, connected, pace_of
from bulkimg.engine.control import ask
from bulkimg.engine.create import (
    NothingToDo,
    attendants_of,
    check_outputs,
    create_retry,
    create_run,
    create_undo,
    edited_manifest,
    named_run,
    refuse_other_work,
    resume_run,
    rows_left,
    stored_settings,
)
from bulkimg.engine.doctor import Check, examine
from bulkimg.engine.execute import Engine, Live
from bulkimg.engine.look import Drift, all_images, drift, reading
from bulkimg.engine.measuring import noting_failure
from bulkimg.engine.past import past_of, present_image
from bulkimg.engine.planning import Approve
from bulkimg.engine.run import OpenRun
from bulkimg.engine.steering import in_words
from bulkimg.engine.undone import already_undone, last_that_changed, last_to_undo

__all__ = [
    "Approve",
    "Check",
    "Drift",
    "Engine",
    "Live",
    "NothingToDo",
    "OpenRun",
    "Ports",
    "all_images",
    "already_undone",
    "ask",
    "attendants_of",
    "check_outputs",
    "connected",
    "create_retry",
    "create_run",
    "create_undo",
    "drift",
    "edited_manifest",
    "examine",
    "in_words",
    "last_that_changed",
    "last_to_undo",
    "named_run",
    "next_command",
    "noting_failure",
    "pace_of",
    "past_of",
    "plan_document",
    "plan_page",
    "present_image",
    "reading",
    "refusal",
    "refuse",
    "refuse_other_work",
    "resume_run",
    "rows_left",
    "stored_settings",
    "summary_document",
]
