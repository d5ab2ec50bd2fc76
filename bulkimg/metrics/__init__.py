"""Tell a monitoring system about runs: a file for Prometheus, a page that it reads, and OpenTelemetry spans.

Nothing here is needed to carry out a run. What cannot be set up is a UsageError before anything is sent; what fails
later is a warning.
"""

from bulkimg.metrics.endpoint import Endpoint, check_address
from bulkimg.metrics.live import Figures, families
from bulkimg.metrics.textfile import Ended, Job, check_directory, write
from bulkimg.metrics.tracing import Trace, check_tracing

__all__ = [
    "Ended",
    "Endpoint",
    "Figures",
    "Job",
    "Trace",
    "check_address",
    "check_directory",
    "check_tracing",
    "families",
    "write",
]
