"""bulkimg: bulk updates of cloud images. This module has the public names; start with `run` or `arun`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkimg.credentials import AccessKey, Account, Session
    from bulkimg.engine.look import Drift
    from bulkimg.errors import (
        BulkimgError,
        LoginRefused,
        ManifestRefused,
        RunRefused,
        StorageError,
        TargetError,
        UsageError,
    )
    from bulkimg.library import (
        HookOptions,
        NotifyOptions,
        Options,
        Result,
        ResultRow,
        RowsNotFine,
        Run,
        Verified,
        aapply,
        aexport,
        amerge,
        aplan,
        apply,
        aresume,
        aretry,
        arun,
        aundo,
        averify,
        export,
        merge,
        open_run,
        plan,
        resume,
        retry,
        run,
        undo,
        verify,
    )
    from bulkimg.model import (
        Adjusted,
        CanaryPassed,
        Event,
        Held,
        MetricsFailed,
        NoControl,
        NotifyFailed,
        Outcome,
        Paused,
        PlanCounts,
        PlanMade,
        PluginWarning,
        Problem,
        Reopened,
        ReportFailed,
        Retrying,
        Settled,
        Started,
        Status,
        Stopping,
        Summary,
        Surveyed,
        Unreadable,
        WorkerChanged,
    )

__version__ = "0.2.0"

_HOMES = {
    "bulkimg.credentials": ("AccessKey", "Account", "Session"),
    "bulkimg.engine.look": ("Drift",),
    "bulkimg.errors": ("BulkimgError", "LoginRefused", "ManifestRefused", "RunRefused", "StorageError", "TargetError", "UsageError"),
    "bulkimg.library": (
        "HookOptions", "NotifyOptions", "Options", "Result", "ResultRow", "RowsNotFine", "Run", "Verified", "aapply", "aexport", "amerge", "aplan", "apply", "aresume", "aretry", "arun",
        "aundo", "averify", "export", "merge", "open_run", "plan", "resume", "retry", "run", "undo", "verify",
    ),
    "bulkimg.model": (
        "Adjusted", "CanaryPassed", "Event", "Held", "MetricsFailed", "NoControl", "NotifyFailed", "Unreadable", "Outcome", "Paused",
        "PlanCounts", "PlanMade", "PluginWarning",
        "Problem", "Reopened", "ReportFailed", "Retrying", "Settled", "Started", "Status", "Stopping", "Summary", "Surveyed",
        "WorkerChanged",
    ),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AccessKey",
    "Account",
    "Adjusted",
    "BulkimgError",
    "CanaryPassed",
    "Drift",
    "Event",
    "Held",
    "HookOptions",
    "LoginRefused",
    "ManifestRefused",
    "MetricsFailed",
    "NoControl",
    "NotifyFailed",
    "NotifyOptions",
    "Options",
    "Outcome",
    "Paused",
    "PlanCounts",
    "PlanMade",
    "PluginWarning",
    "Problem",
    "Reopened",
    "ReportFailed",
    "Result",
    "ResultRow",
    "Retrying",
    "RowsNotFine",
    "Run",
    "RunRefused",
    "Session",
    "Settled",
    "Started",
    "Status",
    "Stopping",
    "StorageError",
    "Summary",
    "Surveyed",
    "TargetError",
    "Unreadable",
    "UsageError",
    "Verified",
    "WorkerChanged",
    "__version__",
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
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `bulkimg --help` does not load the HTTP client."""
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'bulkimg' has no attribute {name!r}")
