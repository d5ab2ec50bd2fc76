"""Check whether a plan may be sent: not too many changes, no field that needs permission. Pure."""

from bulkimg.model import PlanCounts
from bulkimg.values import Limit

# Fields that change only with --allow-field, and what else happens then (docs/dev/protocol.md §5.2).
SIDE_EFFECTS = {
    "architecture": "the server also rewrites the image's boot mode: aarch64 makes it UEFI, x86_64 on a system image makes "
    "it Legacy, and other values leave it unchanged",
    "mediaType": "the server does not check it against the format, so instances may fail to start from the image",
    "format": "only the record changes, not the image's data, so instances may fail to start from the image",
}


def refusal(counts: PlanCounts, max_changes: Limit, allowed: tuple[str, ...]) -> str:
    """Why the plan must not be sent, in one sentence; "" when it may. It names the guard, not how to bypass it."""
    changes = counts.actions["update"]
    if max_changes.count is not None and changes > max_changes.count:
        return f"the plan changes {_images(changes)}, but --max-changes allows {max_changes.count:,}"
    if max_changes.share is not None and counts.images and changes / counts.images > max_changes.share:
        part = f"{changes:,} of {_images(counts.images)} ({changes / counts.images:.1%})"
        return f"the plan changes {part}, but --max-changes allows {max_changes}"
    asked = [name for name in SIDE_EFFECTS if counts.fields.get(name) and name not in allowed]
    if not asked:
        return ""
    said = (f"{name} of {_images(counts.fields[name])}: {SIDE_EFFECTS[name]}" for name in asked)
    return f"the plan changes {'; '.join(said)}. These fields change only with --allow-field"


def _images(count: int) -> str:
    return f"{count:,} {'image' if count == 1 else 'images'}"


SAMPLE = 100  # images; of fewer than these a share says little


def too_many_missing(counts: PlanCounts, limit: Limit) -> str:
    """Why a plan with so many missing images is not started (`--max-errors`); "" when it may be."""
    missing = counts.actions["missing"]
    share = missing / counts.images if counts.images >= SAMPLE else 0.0
    if (limit.count is None or missing <= limit.count) and (limit.share is None or share <= limit.share):
        return ""
    verb = "does" if missing == 1 else "do"
    return (
        f"{missing:,} of {_images(counts.images)} {verb} not exist, but --max-errors allows {limit}; "
        "check that --endpoint is the right server"
    )
