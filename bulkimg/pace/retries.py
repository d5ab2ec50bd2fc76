"""Count the failed tries of one row or query: its own, not those that an outage cost."""

from bulkimg.pace.breaker import CircuitBreaker, FailureCause


class RetryCounter:
    """Spent when more than `retries` tries have failed that no outage explains."""

    __slots__ = ("_breaker", "_failure_ids", "_own", "_retries")

    def __init__(self, retries: int, breaker: CircuitBreaker) -> None:
        self._retries = retries
        self._breaker = breaker
        self._own = 0
        self._failure_ids: list[int] = []

    def note(self, failure_id: int) -> None:
        """One more try has failed; `streak` is what Gate.heard said of it, 0 for an answer that is certainly its own."""
        if failure_id:
            self._failure_ids.append(failure_id)
        else:
            self._own += 1

    @property
    def own(self) -> int:
        """The tries that are its own as far as it is known, and at least this one: what an outage cost does not lengthen the wait."""
        return max(1, self._own + self._blamed(FailureCause.ROW))

    @property
    def spent(self) -> bool:
        """As far as it is known now."""
        return self._own + self._blamed(FailureCause.ROW) > self._retries

    async def is_spent(self) -> bool:
        """For certain: where it depends on whether the server is down, the server is asked."""
        undecided = self._blamed(FailureCause.UNDECIDED)
        if undecided and not self.spent and self._own + self._blamed(FailureCause.ROW) + undecided > self._retries:
            await self._breaker.decide()
        return self.spent

    def _blamed(self, whom: FailureCause) -> int:
        return sum(self._breaker.cause_of(failure_id) is whom for failure_id in self._failure_ids)
