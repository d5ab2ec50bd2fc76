"""Decide whether several targets can be one campaign."""

from collections.abc import Mapping

from bulkimg.errors import UsageError
from bulkimg.settings import Settings

PLACE = "{target}"  # in --results


def check_together(targets: Mapping[str, Settings]) -> None:
    """Raise UsageError if the targets cannot be one campaign."""
    by_target: dict[str, str] = {}
    for name, settings in targets.items():
        if (other := by_target.setdefault(settings.target, name)) != name:
            raise UsageError(
                f"targets {other} and {name} are both {settings.target}, so its images would be changed twice; "
                "give each its own endpoint (an --endpoint or BULKIMG_ENDPOINT is for all targets)"
            )
        if settings.metrics_listen:
            raise UsageError("--metrics-listen serves one run, and this job has several targets; use --metrics-file")
        if settings.results and len(targets) > 1 and PLACE not in str(settings.results):
            raise UsageError(
                f"--results {settings.results}: every target would replace it; put {PLACE} into the name, such as results-{PLACE}.csv"
            )
