"""bulkimg: bulk updates of cloud images. The public names; `Run` is the one to begin with."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkimg.credentials import AccessKey, Account, Session
    from bulkimg.errors import (
        BulkimgError,
        LoginRefused,
        ManifestRefused,
        RunRefused,
        StorageError,
        TargetError,
        UsageError,
    )
    from bulkimg.library import Run
    from bulkimg.model import (
        CanaryPassed,
        Event,
        Held,
        NoControl,
        Outcome,
        Paused,
        PlanCounts,
        PlanMade,
        Problem,
        ProcessLost,
        Reopened,
        Retrying,
        Settled,
        Started,
        Status,
        Stopping,
        Summary,
        Surveyed,
        Unreadable,
    )

__version__ = "0.1.0"

_HOMES = {
    "bulkimg.credentials": ("AccessKey", "Account", "Session"),
    "bulkimg.errors": ("BulkimgError", "LoginRefused", "ManifestRefused", "RunRefused", "StorageError", "TargetError", "UsageError"),
    "bulkimg.library": ("Run",),
    "bulkimg.model": (
        "CanaryPassed", "Event", "Held", "NoControl", "Unreadable", "Outcome", "Paused", "PlanCounts", "PlanMade", "Problem",
        "ProcessLost", "Reopened", "Retrying", "Settled", "Started", "Status", "Stopping", "Summary", "Surveyed",
    ),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AccessKey",
    "Account",
    "BulkimgError",
    "CanaryPassed",
    "Event",
    "Held",
    "LoginRefused",
    "ManifestRefused",
    "NoControl",
    "Outcome",
    "Paused",
    "PlanCounts",
    "PlanMade",
    "Problem",
    "ProcessLost",
    "Reopened",
    "Retrying",
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
    "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Names are imported when they are first used, so that `bulkimg --help` does not pay for the HTTP client."""
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'bulkimg' has no attribute {name!r}")
