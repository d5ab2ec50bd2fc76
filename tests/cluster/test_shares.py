"""No second, counted over all workers, is above the rate, whatever happens to messages and workers."""

import math
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from bulkimg.cluster.shares import Shares, wanted

LEASE = 2.0


@dataclass
class _Worker:
    """A worker that sends as much as its lease allows at every moment, as its own limiter counts."""

    key: tuple[int, int]
    holding: int = 0
    ends: float = -math.inf
    share: float = 0.0
    sent: list[float] = field(default_factory=list)

    def send(self, now: float) -> None:
        """Send while less than the share went in the last second."""
        recent = [at for at in self.sent if at > now - 1]
        if now < self.ends and len(recent) < self.share:
            self.sent.append(now)


EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["renew", "lost reply", "late", "silent", "gone"])), max_size=80
)


@given(cap=st.integers(1, 40), events=EVENTS, steps=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_no_second_is_above_the_cap(cap: int, events: list[tuple[int, str]], steps: int) -> None:
    shares, workers, now = Shares(), [_Worker((index, 0)) for index in range(4)], 0.0
    senders = list(workers)
    everything: list[float] = []
    for index, event in events:
        worker = workers[index]
        if event == "gone":  # another process takes its place, and the old one sends until its lease ends
            worker = workers[index] = _Worker((index, worker.key[1] + 1))
            senders.append(worker)
        if event != "silent":
            asked_at = now
            ends = now + (0.4 if event == "late" else 0.0) + LEASE  # the message was under way
            number, share = shares.grant(worker.key, cap, wanted(cap, index, 4), worker.holding, ends, ends - LEASE)
            if event != "lost reply":
                worker.holding, worker.ends, worker.share = number, asked_at + LEASE, share
        for _ in range(steps * 2):
            now += 0.05
            for one in senders:
                before = len(one.sent)
                one.send(now)
                everything += one.sent[before:]
    for at in everything:
        assert sum(at - 1 < other <= at for other in everything) <= cap


@given(cap=st.floats(0.1, 10_000) | st.integers(1, 10_000), workers=st.integers(1, 50))
def test_the_wanted_shares_are_the_rate(cap: float, workers: int) -> None:
    parts = [wanted(cap, index, workers) for index in range(workers)]
    assert math.isclose(sum(parts), cap)
    assert all(part == math.floor(part) for part in parts[1:])
    assert max(parts[1:], default=0) - min(parts[1:], default=0) <= 1


def test_the_whole_rate_is_given_out() -> None:
    shares, now = Shares(), 10.0
    got = [shares.grant(name, 100, wanted(100, index, 3), 0, now + LEASE, now)[1] for index, name in enumerate("abc")]
    assert got == [34, 33, 33]


def test_a_share_rests_for_a_second_before_another_worker_has_it() -> None:
    shares = Shares()
    number, share = shares.grant("a", 10, 10, 0, 2.0, 0.0)
    assert (number, share) == (1, 10)
    assert shares.grant("b", 10, 10, 0, 4.9, 2.9)[1] == 0  # the lease ended at 2.0
    assert shares.grant("b", 10, 10, 1, 5.0, 3.0)[1] == 10


def test_a_lower_share_counts_once_the_worker_has_read_it() -> None:
    shares = Shares()
    first, _ = shares.grant("a", 10, 10, 0, 2.0, 0.0)
    second, _ = shares.grant("a", 10, 5, first, 2.5, 0.5)  # the worker may not have read it yet
    assert shares.grant("b", 10, 5, 0, 2.6, 0.6)[1] == 0
    shares.grant("a", 10, 5, second, 3.0, 1.0)
    assert shares.grant("b", 10, 5, 1, 3.1, 1.1)[1] == 0  # it rests
    assert shares.grant("b", 10, 5, 2, 4.0, 2.0)[1] == 5


def test_an_unlimited_rate_is_unlimited_for_all() -> None:
    shares = Shares()
    assert shares.grant("a", math.inf, wanted(math.inf, 0, 2), 0, 2.0, 0.0)[1] == math.inf
    assert shares.grant("b", math.inf, wanted(math.inf, 1, 2), 0, 2.0, 0.0)[1] == math.inf
    assert shares.grant("a", 10, 5, 1, 2.5, 0.5)[1] == 0  # b may still send without a cap


def test_the_share_of_a_worker_that_ended_comes_back() -> None:
    shares = Shares()
    shares.grant("a", 10, 10, 0, 2.0, 0.0)
    shares.end("a", 0.5)
    assert shares.in_use(1.4) == 10
    assert shares.in_use(1.6) == 0
