"""Times: both notations, exact conversions, the next times, clocks that change."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkimg.errors import UsageError
from bulkimg.schedule.calendar import (
    DAYS,
    HOURS,
    MINUTES,
    MONTHS,
    WEEKDAYS,
    Calendar,
    WrongTime,
    as_cron,
    as_systemd,
    read,
    split_zone,
)
from bulkimg.schedule.job import Kind
from bulkimg.schedule.plan import read_times
from bulkimg.schedule.times import asked_systemd, changed_clocks, machine_zone, next_times, zone_of

NOW = datetime(2026, 11, 27, 14, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "cron", "systemd"),
    [
        ("02:30", "30 2 * * *", "*-*-* 02:30:00"),
        ("daily", "0 0 * * *", "*-*-* 00:00:00"),
        ("hourly", "0 * * * *", "*-*-* *:00:00"),
        ("weekly", "0 0 * * 1", "Mon *-*-* 00:00:00"),
        ("monthly", "0 0 1 * *", "*-*-01 00:00:00"),
        ("Mon..Fri 02:30", "30 2 * * 1-5", "Mon..Fri *-*-* 02:30:00"),
        ("Sat,Sun 3:00", "0 3 * * 0,6", "Sat,Sun *-*-* 03:00:00"),
        ("*-*-1,15 04:00:00", "0 4 1,15 * *", "*-*-01,15 04:00:00"),
        ("*:0/15", "*/15 * * * *", "*-*-* *:00/15:00"),
        ("30 2 * * *", "30 2 * * *", "*-*-* 02:30:00"),
        ("0 3 * * sun", "0 3 * * 0", "Sun *-*-* 03:00:00"),
        ("0 3 * * 7", "0 3 * * 0", "Sun *-*-* 03:00:00"),
        ("0 0 1-7 jan,jul *", "0 0 1-7 1,7 *", "*-01,07-01..07 00:00:00"),
        ("@weekly", "0 0 * * 0", "Sun *-*-* 00:00:00"),
    ],
)
def test_both_notations_say_the_same(text: str, cron: str, systemd: str) -> None:
    assert as_cron(read(text)) == cron
    assert as_systemd(read(text)) == systemd
    assert read(cron) == read(systemd) == read(text)


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("02:30:15", as_cron, "seconds"),
        ("Mon *-*-1..7 02:00", as_cron, "cron starts on either"),
        ("0 2 1 * 1", as_systemd, "systemd only on days that are both"),
    ],
)
def test_what_is_not_exact_is_refused(text: str, kind: object, why: str) -> None:
    with pytest.raises(WrongTime, match=why):
        kind(read(text))  # type: ignore[operator]


def test_a_cron_line_with_both_days_stays_what_it_is() -> None:
    assert as_cron(read("0 2 1 * 1")) == "0 2 1 * 1"
    days = [at.day for at in next_times(read("0 2 1 * 1"), UTC, NOW, 3)]
    assert days == [30, 1, 7], "Monday, the first, Monday"
    assert as_cron(read("0 2 1-31 * 1")) == "0 2 * * *", "every day is one of either"


@pytest.mark.parametrize(
    "text",
    ["", "soon", "25:00", "60 2 * * *", "5/15 * * * *", "0 2 L * *", "0 2 * * 1#2", "0 2 */2 * 1", "@reboot", "0 2 * *",
     "0 2 5-1 * *", "*/0 * * * *", "1 2 3 4 5 6 7", "02:30:60", "٣٠ 2 * * *"],
)  # fmt: skip
def test_a_wrong_time_is_refused(text: str) -> None:
    with pytest.raises(WrongTime):
        read(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("25:00", "the hour '25', which is not from 0 to 23"),
        ("Mon 99:00", "the hour '99', which is not from 0 to 23"),
        ("2:60", "the minute '60', which is not from 0 to 59"),
        ("02:30:61", "the second '61', which is not from 0 to 59"),
        ("*-13-01 02:30", "the month '13', which is not from 1 to 12"),
        ("*-*-32 02:30", "the day '32', which is not from 1 to 31"),
        ("61 * * * *", "the minute '61', which is not from 0 to 59"),
        ("* 24 * * *", "the hour '24', which is not from 0 to 23"),
        ("0 2 32 * *", "the day '32', which is not from 1 to 31"),
        ("0 2 * * 8", "the weekday '8', which is not from 0 to 7"),
        ("30 2 * *", "has 4 fields, and cron has five"),
        ("Feb 30", "'feb', which is a month where a weekday is expected"),
        ("*-02-30 02:30", "never comes: February has no day 30"),
        ("0 0 31 4,6 *", "never comes: April and June have no day 31"),
        ("Foo 02:30", "'foo', which is not a weekday"),
        ("2am", "'2am', which is not a time of the day"),
        ("02:30 CET", "'CET' behind the time, and a zone is Europe/Berlin or UTC"),
        ("1..99:00", "the hour '1..99'"),
        (" ", "is empty"),
    ],
)
@pytest.mark.parametrize("kind", ["systemd", "cron"])
def test_a_wrong_time_names_the_wrong_part_and_shows_an_example(text: str, part: str, kind: Kind) -> None:
    with pytest.raises(UsageError) as caught:
        read_times(text, kind, lambda: NOW, "UTC")
    said = str(caught.value)
    assert said.startswith(f"--when {text!r} ")
    assert part in said
    example = said.rpartition("; write ")[2]
    assert "02:30" in example or "30 2 * * *" in example
    assert "\n" not in said


@pytest.mark.parametrize("text", ["0 0 31 2 *", "*-02-30 02:30", "0 0 31 4,6 *"])
def test_a_day_that_no_month_has_never_comes(text: str) -> None:
    assert next_times(read(text), UTC, NOW) == []


def test_a_leap_day_comes() -> None:
    assert [at.year for at in next_times(read("0 0 29 2 *"), UTC, NOW)] == [2028, 2032, 2036]


def some(numbers: frozenset[int]) -> st.SearchStrategy[frozenset[int]]:
    return st.just(numbers) | st.frozensets(st.sampled_from(sorted(numbers)), min_size=1, max_size=4)


CALENDARS = st.builds(
    Calendar, some(MINUTES), some(HOURS), some(DAYS), some(MONTHS), some(WEEKDAYS), st.sampled_from([0, 30])
)


@given(CALENDARS)
def test_what_is_written_is_read_again(when: Calendar) -> None:
    assert read(as_systemd(when)) == when
    try:
        line = as_cron(when)
    except WrongTime:
        return
    assert read(line) == when


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is absent")
@settings(max_examples=40, deadline=None)
@given(
    CALENDARS,
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
    st.sampled_from([NOW, datetime(2027, 3, 27, 20, 0, tzinfo=UTC), datetime(2026, 10, 24, 20, 0, tzinfo=UTC)]),
)
def test_the_next_times_are_those_of_systemd(when: Calendar, zone: str, now: datetime) -> None:
    assert next_times(when, zone_of(zone), now, by_cron=False) == asked_systemd(as_systemd(when), zone, now)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is absent")
@pytest.mark.parametrize("now", [datetime(2027, 3, 26, 12, tzinfo=UTC), datetime(2026, 10, 23, 12, tzinfo=UTC)])
def test_systemd_leaves_out_what_is_skipped_and_starts_once_at_what_comes_twice(now: datetime) -> None:
    """What the command says about changed clocks is what systemd does."""
    found = asked_systemd("02:30", "Europe/Berlin", now, 4)
    assert found == next_times(read("02:30"), BERLIN, now, 4, by_cron=False)
    nights = [at.astimezone(BERLIN).date() for at in found or ()]
    skipped = datetime(2027, 3, 28).date()  # noqa: DTZ001 - a date
    assert len(set(nights)) == 4
    assert skipped not in nights


@pytest.mark.parametrize(
    ("text", "kinds"),
    [("02:30", ["skipped", "twice"]), ("04:30", []), ("*:30", []), ("Mon 02:30", []), ("*-*-28 02:30", ["skipped"])],
)
def test_changed_clocks_are_said_where_they_matter(text: str, kinds: list[str]) -> None:
    found = changed_clocks(read(text), BERLIN, NOW)
    assert [kind for kind, _ in found] == kinds
    for kind, at in found:
        if kind == "skipped":
            there = at.replace(tzinfo=BERLIN).astimezone(UTC).astimezone(BERLIN).replace(tzinfo=None)
            assert there != at
        else:
            first = at.replace(tzinfo=BERLIN).astimezone(UTC)
            assert (first + timedelta(hours=1)).astimezone(BERLIN).replace(tzinfo=None) == at


def test_zones_are_split_from_times() -> None:
    assert split_zone("02:30 Europe/Berlin") == ("02:30", "Europe/Berlin")
    assert split_zone("30 2 * * 1-5 UTC") == ("30 2 * * 1-5", "UTC")
    assert split_zone("30 2 * * fri") == ("30 2 * * fri", "")
    assert split_zone("daily") == ("daily", "")
    with pytest.raises(WrongTime, match="Nowhere/Land"):
        zone_of("Nowhere/Land")


def test_the_machines_zone_is_that_of_its_clock(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    assert machine_zone(tmp_path) == "UTC"
    (etc / "localtime").symlink_to("../usr/share/zoneinfo/Europe/Berlin")
    assert machine_zone(tmp_path) == "Europe/Berlin"
    (etc / "localtime").unlink()
    (etc / "localtime").write_bytes(b"TZif")
    assert machine_zone(tmp_path) == ""
    (etc / "timezone").write_text("Asia/Tokyo\n")
    assert machine_zone(tmp_path) == "Asia/Tokyo"
