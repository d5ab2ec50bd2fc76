"""Judge the server's health by an answer (pure), and report it to the pace."""

from bulkimg.pace import RATE_LIMITED, SILENT, WELL, Health, Pace, State
from bulkimg.zstack import Answer
from bulkimg.zstack.rules import Move, rule_for_status
from bulkimg.zstack.wire import TURN_LOST, error_of

_TELLS_NOTHING = frozenset({"TLS", "BODY_TOO_LARGE"})


def health_of(answer: Answer | None) -> Health:
    """WELL for anything the server itself says about a request, refusals included; None is a request that was given up."""
    if answer is None:
        return SILENT
    if answer.status is None:
        return SILENT if answer.failure in _TELLS_NOTHING else Health(State.SICK, f"{answer.failure}: {answer.detail}")
    if answer.status == 429:
        wait = answer.retry_after if answer.retry_after is not None or answer.quota is None else answer.quota[1]
        return Health(State.ASKED, "HTTP_429", wait)
    if answer.status >= 500:
        return _of_server_error(answer, answer.status)
    return WELL if answer.quota is None else Health(State.WELL, quota=answer.quota)


def _of_server_error(answer: Answer, status: int) -> Health:
    """ZStack says 503 for every business failure; only one without its JSON error is a sick server's (docs/dev/protocol.md §3.2).

    "Not ready" (SYS.1010) is no exception: it is also the kept result of a job, returned at every poll for hours.
    """
    if error_of(answer.json()):
        return WELL if answer.retry_after is None else Health(State.WELL, quota=(0, answer.retry_after))
    if rule_for_status(status).move is not Move.AGAIN:
        return WELL
    if answer.retry_after is not None:
        return Health(State.ASKED, f"HTTP_{status}", answer.retry_after)
    return Health(State.SICK, f"HTTP_{status}")


class Paced:
    """The pace as the transport needs it: it knows answers, the pace knows health."""

    def __init__(self, pace: Pace) -> None:
        self.admit = pace.admit
        self.admit_probe = pace.admit_probe
        self.begin = pace.begin
        self._pace = pace

    def record(self, epoch: int, answer: Answer | None) -> int:
        if answer is not None and answer.status == 200 and answer.quota is None:
            return self._pace.record(epoch, WELL)
        if answer is not None and answer.failure == TURN_LOST:
            self._pace.give_back(epoch)
            return RATE_LIMITED
        return self._pace.record(epoch, health_of(answer))
