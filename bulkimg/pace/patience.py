"""Count the failed tries of one row or query: its own, not those that an outage cost."""

from bulkimg.pace.gate import Blame, Gate


class Patience:
    """Spent when more than `retries` tries have failed that no outage explains."""

    __slots__ = ("_gate", "_own", "_retries", "_streaks")

    def __init__(self, retries: int, gate: Gate) -> None:
        self._retries = retries
        self._gate = gate
        self._own = 0
        self._streaks: list[int] = []

    def note(self, streak: int) -> None:
        """One more try has failed; `streak` is what Gate.heard said of it, 0 for an answer that is certainly its own."""
        if streak:
            self._streaks.append(streak)
        else:
            self._own += 1

    @property
    def own(self) -> int:
        """The tries that are its own as far as it is known, and at least this one: what an outage cost does not lengthen the wait."""
        return max(1, self._own + self._blamed(Blame.ROW))

    @property
    def spent(self) -> bool:
        """As far as it is known now."""
        return self._own + self._blamed(Blame.ROW) > self._retries

    async def is_spent(self) -> bool:
        """For certain: where it depends on whether the server is down, the server is asked."""
        undecided = self._blamed(Blame.OPEN)
        if undecided and not self.spent and self._own + self._blamed(Blame.ROW) + undecided > self._retries:
            await self._gate.decide()
        return self.spent

    def _blamed(self, whom: Blame) -> int:
        return sum(self._gate.blame(streak) is whom for streak in self._streaks)
