"""Write dates as Gson does, read them back, and read the timestamps of SQL that conditions hold."""

import re
from datetime import datetime
from functools import lru_cache

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_JAVA = re.compile(r"(\w{3}) (\d+), (\d+) (\d+):(\d+):(\d+) ([AP])M", re.ASCII)
_SQL = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d{1,6}))?)?)?", re.ASCII)


def java_date(moment: datetime) -> str:
    """Return `Apr 27, 2026 3:10:09 PM`: a date as Gson writes it, in the server's zone and without its name."""
    return f"{moment:%b} {moment.day}, {moment.year} {moment.hour % 12 or 12}:{moment:%M:%S} {'AM' if moment.hour < 12 else 'PM'}"


@lru_cache(maxsize=1 << 17)  # a sort reads the date of every row
def read_java_date(text: str) -> datetime:
    """Return the moment that `java_date` wrote."""
    found = _JAVA.fullmatch(text)
    if found is None:
        raise ValueError(text)
    day, year, hour, minute, second = map(int, found.groups()[1:6])
    return datetime(year, _MONTHS.index(found[1]) + 1, day, hour % 12 + 12 * (found[7] == "P"), minute, second)


def read_sql_date(text: str) -> datetime:
    """Read `2024-01-20 00:00:00`, also without time or seconds, or with parts of a second. Raises ValueError."""
    found = _SQL.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    return datetime(year, month, day, hour, minute, second, int((found[7] or "0").ljust(6, "0")))


def sql_date(moment: datetime) -> str:
    """Return MySQL's text of a timestamp."""
    return f"{moment:%Y-%m-%d %H:%M:%S}"
