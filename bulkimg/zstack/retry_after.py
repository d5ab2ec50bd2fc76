"""This file reads the Retry-After header: seconds or an HTTP date (RFC 9110 §10.2.3), and nothing that merely looks like it."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_DATE = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    r"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d\d-[A-Z][a-z]{2}-\d\d \d\d:\d\d:\d\d GMT"
    r"|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})",
    re.ASCII,
)


def parse_retry_after(text: str, now: float) -> float | None:
    """Seconds from `now` (seconds since the epoch); 0 for the past; None for anything that the RFC does not allow."""
    text = text.strip(" \t")
    if re.fullmatch(r"[0-9]{1,19}", text):
        return float(text)
    if not _DATE.fullmatch(text):
        return None
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    then = then.replace(tzinfo=UTC)
    if re.search(r"-\d\d ", text) and then > datetime.fromtimestamp(now, UTC) + timedelta(days=50 * 365):
        then = then.replace(year=then.year - 100)  # a two-digit year is never more than 50 years ahead
    return max(0.0, then.timestamp() - now)
