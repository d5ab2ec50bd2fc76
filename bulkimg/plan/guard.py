"""Whether a plan may be carried out: not too many changes, no field that needs a word first. Pure."""

from bulkimg.model import PlanCounts
from bulkimg.values import Limit

# What may not change unless somebody has named it, and what else happens then (docs/dev/protocol.md §5.2).
SIDE_EFFECTS = {
    "architecture": "the server also rewrites the image's boot mode: aarch64 makes it UEFI, x86_64 on a system image makes "
    "it Legacy, and any other change leaves it as it is",
    "mediaType": "the server does not check it against the format, so an image may become one that no instance starts from",
    "format": "only the record changes, not the image's data, so an image may become one that no instance starts from",
}


def refusal(counts: PlanCounts, max_changes: Limit, allowed: tuple[str, ...]) -> str:
    """Why the plan must not be carried out, in one sentence; "" when it may be. It names the guard, and sells no way around."""
    changes = counts.actions["update"]
    if max_changes.count is not None and changes > max_changes.count:
        return f"the plan changes {_images(changes)}, --max-changes allows {max_changes.count:,}"
    if max_changes.share is not None and counts.images and changes / counts.images > max_changes.share:
        part = f"{changes:,} of {_images(counts.images)} ({changes / counts.images:.1%})"
        return f"the plan changes {part}, --max-changes allows {max_changes}"
    asked = [name for name in SIDE_EFFECTS if counts.fields.get(name) and name not in allowed]
    if not asked:
        return ""
    said = (f"{name} of {_images(counts.fields[name])}: {SIDE_EFFECTS[name]}" for name in asked)
    return f"the plan changes {'; '.join(said)}. These fields change only where --allow-field names them"


def _images(count: int) -> str:
    return f"{count:,} {'image' if count == 1 else 'images'}"


SAMPLE = 100  # images; of fewer than these a share says little


def too_many_missing(counts: PlanCounts, limit: Limit) -> str:
    """Why a plan is not begun of whose images so many do not exist: `--max-errors`, before anything is sent."""
    missing = counts.actions["missing"]
    share = missing / counts.images if counts.images >= SAMPLE else 0.0
    if (limit.count is None or missing <= limit.count) and (limit.share is None or share <= limit.share):
        return ""
    return f"{missing:,} of {counts.images:,} images do not exist, --max-errors allows {limit}; is it the right server?"
