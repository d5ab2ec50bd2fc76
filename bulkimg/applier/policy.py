"""The options of a run that its rows' journeys need."""

from dataclasses import dataclass
from typing import Literal

from bulkimg.values import Limit

# Seconds to a job's first poll, how they grow, and their most: the vendor's SDKs poll every 1 or 2 s.
POLL_FIRST, POLL_GROWTH, POLL_MOST = 0.05, 1.6, 2.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a run is, and how it treats tags. Times are seconds."""

    retries: int
    max_errors: Limit
    job_timeout: float
    drain_timeout: float
    tags: Literal["auto", "body", "api"] = "auto"  # body leaves it at what the PUT carries, api never puts tags there
    errors_before: int = 0  # rows that have failed before anything was sent
    replace_tags: bool = False  # tags that a row does not ask for go
