"""Count the failed tries of one row or query, without those that an outage caused."""

from bulkimg.pace.breaker import CircuitBreaker, FailureCause


class RetryCounter:
    """Count failed tries. The counter is spent after more than `retries` of them that no outage explains."""

    __slots__ = ("_breaker", "_failure_ids", "_own", "_retries")

    def __init__(self, retries: int, breaker: CircuitBreaker) -> None:
        self._retries = retries
        self._breaker = breaker
        self._own = 0
        self._failure_ids: list[int] = []

    def note(self, failure_id: int) -> None:
        """Count one more failed try.

        `failure_id` is what `CircuitBreaker.record` returned. It is 0 for an answer that the row itself caused.
        """
        if failure_id:
            self._failure_ids.append(failure_id)
        else:
            self._own += 1

    @property
    def own(self) -> int:
        """Return the tries that the row itself caused as far as known, at least 1. Outages do not lengthen the wait."""
        return max(1, self._own + self._blamed(FailureCause.ROW))

    @property
    def spent(self) -> bool:
        """Return whether the counter is spent, as far as known now."""
        return self._own + self._blamed(FailureCause.ROW) > self._retries

    async def is_spent(self) -> bool:
        """Return whether the counter is spent. Asks the server if that depends on whether the server is down."""
        undecided = self._blamed(FailureCause.UNDECIDED)
        if undecided and not self.spent and self._own + self._blamed(FailureCause.ROW) + undecided > self._retries:
            await self._breaker.decide()
        return self.spent

    def _blamed(self, whom: FailureCause) -> int:
        return sum(self._breaker.cause_of(failure_id) is whom for failure_id in self._failure_ids)
