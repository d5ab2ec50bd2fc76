"""Pace a run: the rate of all requests, the number of rows in flight, the circuit breaker, the retry budget."""

from bulkimg.pace.adaptive import InFlight, LoadSignal
from bulkimg.pace.backoff import full_jitter
from bulkimg.pace.breaker import RATE_LIMITED, CircuitBreaker, FailureCause
from bulkimg.pace.health import SILENT, WELL, Health, State
from bulkimg.pace.pace import Pace
from bulkimg.pace.retries import RetryCounter

__all__ = [
    "RATE_LIMITED",
    "SILENT",
    "WELL",
    "CircuitBreaker",
    "FailureCause",
    "Health",
    "InFlight",
    "LoadSignal",
    "Pace",
    "RetryCounter",
    "State",
    "full_jitter",
]
