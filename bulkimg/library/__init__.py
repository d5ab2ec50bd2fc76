"""`import bulkimg`: the engine as functions and one class. Nothing here prints or calls sys.exit."""

from bulkimg.library.executing import Run
from bulkimg.library.merging import amerge, merge
from bulkimg.library.options import HookOptions, NotifyOptions, Options
from bulkimg.library.result import Result, ResultRow, RowsNotFine, Verified, open_run
from bulkimg.library.verbs import (
    aapply,
    aexport,
    aplan,
    apply,
    aresume,
    aretry,
    arun,
    aundo,
    averify,
    export,
    plan,
    resume,
    retry,
    run,
    undo,
    verify,
)

__all__ = [
    "HookOptions",
    "NotifyOptions",
    "Options",
    "Result",
    "ResultRow",
    "RowsNotFine",
    "Run",
    "Verified",
    "aapply",
    "aexport",
    "amerge",
    "aplan",
    "apply",
    "aresume",
    "aretry",
    "arun",
    "aundo",
    "averify",
    "export",
    "merge",
    "open_run",
    "plan",
    "resume",
    "retry",
    "run",
    "undo",
    "verify",
]
