"""Read a time of `--when`, as a systemd calendar or as five cron fields, and write it as the other where that is exact."""

import calendar
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MINUTES, HOURS, DAYS, MONTHS = (frozenset(range(*ends)) for ends in ((60,), (24,), (1, 32), (1, 13)))
WEEKDAYS = frozenset(range(7))  # Sunday is 0
_WEEKDAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CRON_EXAMPLE = "write five fields, such as 30 2 * * *"
_EXAMPLE = "write a time such as 02:30 or Mon..Fri 02:30"
_DATE_EXAMPLE = "write a date such as *-02-28 02:30"
_LONGEST_MONTH = {month: 29 if month == 2 else calendar.monthrange(2027, month)[1] for month in MONTHS}

# systemd.time(7); cron(8) calls some of them otherwise.
_SYSTEMD_WORDS: Mapping[str, str] = {
    "minutely": "*-*-* *:*:00",
    "hourly": "*-*-* *:00:00",
    "daily": "*-*-* 00:00:00",
    "weekly": "Mon *-*-* 00:00:00",
    "monthly": "*-*-01 00:00:00",
    "quarterly": "*-01,04,07,10-01 00:00:00",
    "semiannually": "*-01,07-01 00:00:00",
    "yearly": "*-01-01 00:00:00",
    "annually": "*-01-01 00:00:00",
}
_CRON_WORDS: Mapping[str, str] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ZONE = re.compile(r"UTC|[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)+")


class WrongTime(ValueError):
    """A `--when` is not a time, or cannot be said in another way. Its text is the rest of a sentence."""


class Unread(WrongTime):
    """A systemd calendar that is more than this module reads. It may still be right."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The times at which a job starts: every minute that is in all sets. `zone` is "" for that of the machine.

    `either_day`: cron's rule for two restricted day fields, which starts on a day that is in one of them.
    """

    minutes: frozenset[int] = MINUTES
    hours: frozenset[int] = HOURS
    days: frozenset[int] = DAYS
    months: frozenset[int] = MONTHS
    weekdays: frozenset[int] = WEEKDAYS
    second: int = 0
    either_day: bool = False
    zone: str = ""

    @property
    def never_comes(self) -> bool:
        """Return whether no month is long enough, such as 31 February."""
        return bool(self.why_never)

    @property
    def why_never(self) -> str:
        """Return why no day is one of the calendar, such as `February has no day 31`, or ""."""
        if self.either_day or any(min(self.days) <= _LONGEST_MONTH[month] for month in self.months):
            return ""
        months = [calendar.month_name[month] for month in sorted(self.months)]
        named = " and ".join(part for part in (", ".join(months[:-1]), months[-1]) if part)
        return f"{named} {'has' if len(months) == 1 else 'have'} no day {min(self.days)}"


def split_zone(text: str) -> tuple[str, str]:
    """Return a time without its zone, and the zone or "". The zone is the last word."""
    words = text.split()
    if len(words) > 1 and _ZONE.fullmatch(words[-1]) and words[-1].lower() not in _WEEKDAY_NAMES:
        return " ".join(words[:-1]), words[-1]
    return " ".join(words), ""


def is_cron(text: str) -> bool:
    """Return whether a time without its zone is meant for cron: five fields, or a word that begins with @."""
    return len(text.split()) >= 5 or text.startswith("@")


def read(text: str) -> Calendar:
    """Read either notation, with or without a zone. Raises WrongTime."""
    time, zone = split_zone(text)
    if not time:
        raise WrongTime(f"is empty; {_EXAMPLE}")
    return _read_cron(time, zone) if is_cron(time) else _read_systemd(time, zone)


# -- cron ---------------------------------------------------------------------------------------------------------------


def _read_cron(text: str, zone: str) -> Calendar:
    if text.startswith("@"):
        if text.lower() not in _CRON_WORDS:
            raise WrongTime(f"is not a time of the clock; write five fields, or one of {', '.join(_CRON_WORDS)}")
        text = _CRON_WORDS[text.lower()]
    fields = text.split()
    if len(fields) != 5:
        raise WrongTime(
            f"has {len(fields)} fields, and cron has five (minute, hour, day, month, weekday); {_CRON_EXAMPLE}"
        )
    minutes = _cron_field(fields[0], "minute", MINUTES)
    hours = _cron_field(fields[1], "hour", HOURS)
    days = _cron_field(fields[2], "day", DAYS)
    months = _cron_field(fields[3], "month", MONTHS, _MONTH_NAMES, first=1)
    weekdays = frozenset(day % 7 for day in _cron_field(fields[4], "weekday", frozenset(range(8)), _WEEKDAY_NAMES))
    both = "*" not in (fields[2], fields[4])
    if both and (fields[2].startswith("*") or fields[4].startswith("*")):
        raise WrongTime(
            "restricts day and weekday, one of them with */, which one cron reads as both and another as either; write the days "
            "as a list"
        )
    if both and (days == DAYS or weekdays == WEEKDAYS):  # either of them: every day
        days, weekdays, both = DAYS, WEEKDAYS, False
    return Calendar(minutes, hours, days, months, weekdays, either_day=both, zone=zone)


def _cron_field(
    text: str, name: str, allowed: frozenset[int], names: Sequence[str] = (), first: int = 0
) -> frozenset[int]:
    """Read a field as every cron reads it: `*`, `*/5`, `1-5`, `1-20/5`, `1,15`, and names."""
    found: set[int] = set()
    for term in text.lower().split(","):
        parts = re.fullmatch(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d{1,4}))?", term, re.ASCII)
        if not parts or (parts[4] and parts[1] != "*" and not parts[3]):
            raise WrongTime(
                f"has the {name} {term[:40]!r}, which not every cron reads; write numbers, 1-5, 1,15 or */5"
            )
        if parts[1] == "*":
            begin, end = min(allowed), min(max(allowed), 6) if name == "weekday" else max(allowed)
        else:
            begin = _number(parts[2], name, allowed, names, first)
            end = _number(parts[3], name, allowed, names, first) if parts[3] else begin
        step = int(parts[4]) if parts[4] else 1
        if end < begin or step < 1:
            raise WrongTime(
                f"has the {name} {term[:40]!r}, whose end is before its beginning or whose step is 0; {_CRON_EXAMPLE}"
            )
        found.update(range(begin, end + 1, step))
    return frozenset(found)


def _number(text: str, name: str, allowed: frozenset[int], names: Sequence[str], first: int) -> int:
    if text in names:
        return names.index(text) + first
    if not text.isdecimal() or int(text) not in allowed:
        raise _out_of_range(name, text, allowed, _CRON_EXAMPLE)
    return int(text)


def _out_of_range(name: str, text: str, allowed: frozenset[int], example: str) -> WrongTime:
    return WrongTime(f"has the {name} {text[:40]!r}, which is not from {min(allowed)} to {max(allowed)}; {example}")


def as_cron(when: Calendar) -> str:
    """Return the five fields. Raises WrongTime where cron cannot say it."""
    if when.second:
        raise WrongTime("has seconds, which cron does not know; write whole minutes")
    if when.days != DAYS and when.weekdays != WEEKDAYS and not when.either_day:
        raise WrongTime("needs a day and a weekday at the same time, and cron starts on either; write one of them")
    return " ".join(
        (
            _cron_set(when.minutes, MINUTES),
            _cron_set(when.hours, HOURS),
            _cron_set(when.days, DAYS),
            _cron_set(when.months, MONTHS),
            _cron_set(when.weekdays, WEEKDAYS),
        )
    )


def _cron_set(numbers: frozenset[int], every: frozenset[int]) -> str:
    if numbers == every:
        return "*"
    step = _step(numbers, every) if 0 in every and len(every) > 7 else 0
    return f"*/{step}" if step else _listed(numbers, "-", 1)


def _step(numbers: frozenset[int], every: frozenset[int]) -> int:
    """Return n where the numbers are every n-th from 0, else 0."""
    ordered = sorted(numbers)
    if len(ordered) < 3 or ordered[0]:
        return 0
    step = ordered[1]
    return step if ordered == list(range(0, max(every) + 1, step)) else 0


def _listed(numbers: Iterable[int], dash: str, width: int, names: Sequence[str] = ()) -> str:
    """Write numbers as a list, and three or more that follow each other as a range."""
    parts = []
    rest = sorted(numbers)
    while rest:
        run = 1
        while run < len(rest) and rest[run] == rest[0] + run:
            run += 1
        run = run if run > 2 else 1
        ends = [names[number] if names else f"{number:0{width}}" for number in (rest[0], rest[run - 1])]
        parts.append(dash.join(ends) if run > 1 else ends[0])
        rest = rest[run:]
    return ",".join(parts)


# -- systemd ------------------------------------------------------------------------------------------------------------

_DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_FROM_MONDAY = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _read_systemd(text: str, zone: str) -> Calendar:
    words = _SYSTEMD_WORDS.get(text.lower(), text).split()
    weekdays, days, months = WEEKDAYS, DAYS, MONTHS
    minutes, hours, second = frozenset({0}), frozenset({0}), 0
    if len(words) in (3, 4) and not any(":" in word or word[:1].isalpha() for word in words):
        raise WrongTime(f"has {len(words)} fields, and cron has five; {_CRON_EXAMPLE}")
    if words and words[0][:1].isalpha():
        weekdays = _systemd_weekdays(words.pop(0))
    if words and "-" in words[0]:
        months, days = _systemd_date(words.pop(0))
    if words and ":" in words[0]:
        hours, minutes, second = _systemd_time(words.pop(0))
    if words and words[0].isalpha():
        zones = "a zone is Europe/Berlin or UTC"
        raise WrongTime(f"has {words[0][:40]!r} behind the time, and {zones}; write one such as 02:30 Europe/Berlin")
    if words and re.fullmatch(r"\w+", words[0], re.ASCII):
        raise WrongTime(f"has {words[0][:40]!r}, which is not a time of the day; {_EXAMPLE}")
    if words:
        raise Unread(f"has {words[0][:40]!r}")
    return Calendar(minutes, hours, days, months, weekdays, second, zone=zone)


def _systemd_weekdays(text: str) -> frozenset[int]:
    found: set[int] = set()
    for term in text.lower().split(","):
        begin, dots, end = term.partition("..")
        first, last = _weekday(begin), _weekday(end if dots else begin)
        found.update(range(first, last + 1) if first <= last else {*range(first, 7), *range(last + 1)})
    return frozenset(found)


def _weekday(text: str) -> int:
    for number, name in enumerate(_DAY_NAMES):
        if text in (name.lower(), name[:3].lower()):
            return number
    if "-" in text:  # an older way to write a range
        raise Unread(f"has {text[:40]!r}, which is not a weekday")
    if text[:3] in _MONTH_NAMES:
        raise WrongTime(f"has {text[:40]!r}, which is a month where a weekday is expected; {_DATE_EXAMPLE}")
    raise WrongTime(f"has {text[:40]!r}, which is not a weekday; {_EXAMPLE}")


def _systemd_date(text: str) -> tuple[frozenset[int], frozenset[int]]:
    parts = text.split("-")
    if len(parts) == 3 and parts.pop(0) != "*":
        raise Unread("is of one year")
    if len(parts) != 2:
        raise Unread("is not a date")
    return (
        _systemd_field(parts[0], "month", MONTHS, _DATE_EXAMPLE),
        _systemd_field(parts[1], "day", DAYS, _DATE_EXAMPLE),
    )


def _systemd_time(text: str) -> tuple[frozenset[int], frozenset[int], int]:
    parts = [*text.split(":"), "0"]
    if len(parts) not in (3, 4) or not re.fullmatch(r"\d{1,2}", parts[2], re.ASCII):
        raise Unread("is not a time of the day with whole seconds")
    (second,) = _systemd_field(parts[2], "second", MINUTES)
    return _systemd_field(parts[0], "hour", HOURS), _systemd_field(parts[1], "minute", MINUTES), second


def _systemd_field(text: str, name: str, allowed: frozenset[int], example: str = _EXAMPLE) -> frozenset[int]:
    """Read `*`, `5`, `0/15` (from 0, every 15), `1..5`, `1..9/2` and lists of them."""
    found: set[int] = set()
    for term in text.split(","):
        if term.isascii() and term.isdecimal() and int(term) not in allowed:
            raise _out_of_range(name, term, allowed, example)
        parts = re.fullmatch(r"(?:\*|(\d{1,2})(?:\.\.(\d{1,2}))?)(?:/(\d{1,2}))?", term, re.ASCII)
        if not parts:
            raise Unread(f"has the {name} {term[:40]!r}")
        begin = int(parts[1]) if parts[1] else min(allowed)
        end = int(parts[2]) if parts[2] else begin if parts[1] and not parts[3] else max(allowed)
        step = int(parts[3]) if parts[3] else 1
        if not {begin, end} <= allowed or end < begin or step < 1:
            raise Unread(f"has the {name} {term[:40]!r}")
        found.update(range(begin, end + 1, step))
    return frozenset(found)


def as_systemd(when: Calendar) -> str:
    """Return the calendar of a timer. Raises WrongTime where systemd cannot say it."""
    if when.either_day:
        raise WrongTime(
            "restricts day and weekday: cron starts on either, and systemd only on days that are both; write one of them, or "
            "choose --as cron"
        )
    weekdays = {(day - 1) % 7 for day in when.weekdays}  # from Monday, so that Sat and Sun are next to each other
    days = "" if when.weekdays == WEEKDAYS else _listed(weekdays, "..", 1, _FROM_MONDAY) + " "
    date = f"*-{_systemd_set(when.months, MONTHS)}-{_systemd_set(when.days, DAYS)}"
    time = f"{_systemd_set(when.hours, HOURS)}:{_systemd_set(when.minutes, MINUTES)}:{when.second:02}"
    return f"{days}{date} {time}{f' {when.zone}' if when.zone else ''}"


def _systemd_set(numbers: frozenset[int], every: frozenset[int]) -> str:
    if numbers == every:
        return "*"
    step = _step(numbers, every) if 0 in every else 0
    return f"00/{step}" if step else _listed(numbers, "..", 2)
