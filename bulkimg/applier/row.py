"""Describe a row on its way: its claim, and what its attempts in this process left behind."""

from dataclasses import dataclass

from bulkimg.applier.judge import Verdict
from bulkimg.model import Claim
from bulkimg.pace import InFlight, RetryCounter


@dataclass(slots=True)
class RowState:
    """A claimed row. Times are seconds: `started_at` since the epoch, the others on the monotonic clock."""

    claim: Claim
    is_plain: bool = False  # one answer can settle it (judge.is_plain)
    sets_name: bool = False
    tries: RetryCounter | None = None  # made with the first attempt that failed
    last: Verdict | None = None  # why its last attempt did not settle it; the next one is still to be claimed
    maybe_applied: bool = False  # one of the earlier attempts may have been applied, or may still be
    started_at: float | None = None  # of the first byte
    begun: float = 0.0
    in_flight: bool = False  # bytes of the present attempt may be out
    key: str = ""  # the action key it was last sent with
    ticket: str = ""  # of the session it was last sent with
    sent_since: InFlight | None = None  # while the server works on it, as far as we know
    key_was_switched: bool = False  # because of its answer, so that it is sent again with the other one
    compared_at: float | None = None  # when the image was last compared with the plan

    @property
    def is_doubtful(self) -> bool:
        """Whether an attempt of this row, of whatever process, may have been applied."""
        return self.maybe_applied or self.claim.doubtful

    def begin(self, now: float, clock: float) -> None:
        """Bytes of an attempt may go out from here on."""
        self.in_flight = True
        if self.started_at is None:
            self.started_at, self.begun = now, clock
