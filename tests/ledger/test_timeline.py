"""What the ledger remembers of a run's time: seconds, minutes, events, and the last sign of life."""

from collections import Counter
from pathlib import Path

import pytest

from bulkimg.errors import StorageError
from bulkimg.ledger import Ledger, timeline
from bulkimg.model import RunEvent, Sample


def sample(at: float, *, puts: int = 10, seconds: int = 1, rate: float | None = 200.0) -> Sample:
    return Sample(at, seconds, {"put": puts, "poll": 1}, {"updated": puts}, {12: puts}, 4, 16, rate, 100)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "run.db")
    made.keep_checksums()
    return made


def test_samples_and_events_come_back_as_they_were(ledger: Ledger) -> None:
    samples = [sample(1000.0), sample(1001.0, rate=None)]
    events = [RunEvent(1000.5, "held", "HTTP_500; sending pauses for 1.0 s"), RunEvent(1001.5, "reopened", "again")]
    timeline.add(ledger, samples, events)
    assert list(timeline.samples(ledger)) == samples
    assert timeline.events(ledger) == events
    assert timeline.newest(ledger, 1) == samples[-1:]
    assert timeline.last_sign_of_life(ledger) == 1002.0


def test_a_ledger_without_time_has_none(ledger: Ledger) -> None:
    assert list(timeline.samples(ledger)) == []
    assert timeline.newest(ledger, 1) == []
    assert timeline.last_sign_of_life(ledger) == 0.0


def test_old_seconds_become_minutes_and_nothing_is_lost(ledger: Ledger) -> None:
    count = timeline.KEPT + timeline.MERGED + 100
    begun = 1_700_000_040.0  # a whole minute
    for at in range(0, count, 900):
        timeline.add(ledger, [sample(begun + second) for second in range(at, min(at + 900, count))])
    found = list(timeline.samples(ledger))
    minutes = [one for one in found if one.seconds == timeline.MINUTE]
    assert len(found) <= timeline.KEPT + timeline.MERGED / timeline.MINUTE * 3
    assert minutes, "the oldest seconds are merged"
    assert [one.at for one in found] == sorted(one.at for one in found)
    assert sum(one.requests["put"] for one in found) == 10 * count
    assert sum(one.outcomes["updated"] for one in found) == 10 * count
    assert sum((Counter(one.latency) for one in found), Counter()) == {12: 10 * count}
    ledger.close()
    Ledger.open(ledger.path).verify()


def test_events_are_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_EVENTS", 3)
    timeline.add(ledger, [], [RunEvent(float(n), "held", str(n)) for n in range(5)])
    timeline.add(ledger, [], [RunEvent(9.0, "held", "9")])
    assert [event.text for event in timeline.events(ledger)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE sample SET requests = '{\"put\":9}'",
        "UPDATE sample SET rate = 1000",
        "UPDATE event SET text = 'all was well'",
        "DELETE FROM event",
    ],
)
def test_a_changed_record_is_damage(ledger: Ledger, damage: str) -> None:
    timeline.add(ledger, [sample(1000.0)], [RunEvent(1000.5, "held", "HTTP_500")])
    ledger.db.execute(damage)
    ledger.close()
    with pytest.raises(StorageError, match="attempts and outcomes"):
        Ledger.open(ledger.path).verify()


def test_time_is_written_with_the_transaction_of_a_caller_or_not_at_all(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.transaction():
            timeline.add(ledger, [sample(1000.0)])
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - raised two lines above
        fail()
    assert list(timeline.samples(ledger)) == []
    ledger.close()
    Ledger.open(ledger.path).verify()
