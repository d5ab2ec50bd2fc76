"""Find the next times of a calendar, and what the change of the clocks does to them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

from bulkimg.schedule.calendar import DAYS, HOURS, WEEKDAYS, Calendar, WrongTime

_LOOKED_AHEAD = 400  # days in which clocks are looked at: more than a year
_PATIENCE = 10.0  # seconds for systemd-analyze
_UTC_NAMES = frozenset(
    {"UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal", "Etc/GMT", "GMT"}
)


def machine_zone(root: Path = Path("/")) -> str:
    """Return the name of the machine's time zone, or "" where it has none of the database's names."""
    localtime, named = root / "etc/localtime", root / "etc/timezone"
    if localtime.is_symlink():
        _, found, name = str(localtime.readlink()).partition("zoneinfo/")
        return name if found else ""
    if not localtime.exists():
        return "UTC"  # localtime(5)
    try:
        return named.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def is_same_zone(one: str, other: str) -> bool:
    return one == other or {one, other} <= _UTC_NAMES


def zone_of(name: str) -> tzinfo:
    """Return a zone of the database. Raises WrongTime."""
    if name in _UTC_NAMES:
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError of its own kind
        pass
    except KeyError:
        pass
    raise WrongTime(
        f"has the zone {name[:60]!r}, which this machine's time zone database does not have; write one such as UTC or Europe/Berlin"
    )


def next_times(when: Calendar, zone: tzinfo, now: datetime, count: int = 3, *, by_cron: bool = True) -> list[datetime]:
    """Return the next times in UTC, none where there will be none. `by_cron`: as cron treats changed clocks.

    systemd leaves out a time that does not exist, and starts once at one that exists twice.
    """
    if when.never_comes:
        return []
    return list(islice(_times(when, zone, now, by_cron=by_cron), count))


def _times(when: Calendar, zone: tzinfo, now: datetime, *, by_cron: bool) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError  # only schedule needs it

    both = when.days != DAYS and when.weekdays != WEEKDAYS and not when.either_day
    sets = [when.minutes, when.hours, when.days, when.months, WEEKDAYS if both else when.weekdays]
    every = [None, HOURS, DAYS, None, WEEKDAYS]
    fields = [
        "*" if numbers == whole else ",".join(map(str, sorted(numbers)))
        for numbers, whole in zip(sets, every, strict=True)
    ]
    line = " ".join(fields if by_cron else [str(when.second), *fields])
    last: datetime | None = None
    try:
        for found in CronSim(line, now.astimezone(zone)):
            wall = found.replace(tzinfo=None)
            if (both and (found.weekday() + 1) % 7 not in when.weekdays) or wall == last:
                continue
            last = wall
            yield found.astimezone(UTC)
    except CronSimError:
        return


def asked_systemd(text: str, zone: str, now: datetime, count: int = 3) -> list[datetime] | None:
    """Return the next times in UTC as `systemd-analyze` finds them; None where it is not installed.

    Raises WrongTime where it does not read the calendar. `zone` is the one that the text names, or the machine's.
    """
    program = shutil.which("systemd-analyze")
    if program is None:
        return None
    base = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    done = subprocess.run(
        [program, "calendar", f"--iterations={count}", f"--base-time={base}", f"{text} {zone}".strip()],
        capture_output=True, text=True, check=False, timeout=_PATIENCE, stdin=subprocess.DEVNULL,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
    )  # fmt: skip
    if done.returncode:
        raise WrongTime("is not a time that systemd reads; write one such as 02:30, Mon..Fri 02:30 or *-*-01 04:00:00")
    stamps = re.findall(r"(?:Next elapse|Iter\. #\d+): \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", done.stdout)
    return [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for stamp in stamps]


# -- clocks that change -------------------------------------------------------------------------------------------------


def changed_clocks(when: Calendar, zone: tzinfo, now: datetime) -> list[tuple[str, datetime]]:
    """Return the next start that clocks skip ("skipped") and the next that they show twice ("twice"), in local time.

    A job that starts in every hour loses and gains nothing that matters.
    """
    if when.hours == HOURS:
        return []
    found: dict[str, datetime] = {}
    for begin, end, kind in _changes(zone, now):
        at = begin
        while kind not in found and at < end:
            if _is_start(when, at):
                found[kind] = at
            at += timedelta(minutes=1)
    return sorted(found.items(), key=lambda item: item[1])


def _changes(zone: tzinfo, now: datetime) -> Iterator[tuple[datetime, datetime, str]]:
    """Yield the spans of local time that are skipped or come twice."""
    at = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    step = timedelta(minutes=30)
    before = at.astimezone(zone).utcoffset() or timedelta()
    for _ in range(_LOOKED_AHEAD * 48):
        at += step
        after = at.astimezone(zone).utcoffset() or timedelta()
        if after > before:
            yield (at + before).replace(tzinfo=None), (at + after).replace(tzinfo=None), "skipped"
        elif after < before:
            yield (at + after).replace(tzinfo=None), (at + before).replace(tzinfo=None), "twice"
        before = after


def _is_start(when: Calendar, wall: datetime) -> bool:
    in_days, in_weekdays = wall.day in when.days, (wall.weekday() + 1) % 7 in when.weekdays
    is_day = in_days or in_weekdays if when.either_day else in_days and in_weekdays
    return is_day and wall.month in when.months and wall.hour in when.hours and wall.minute in when.minutes
