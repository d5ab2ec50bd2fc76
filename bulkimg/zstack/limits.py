"""Read a server's limits: Retry-After (RFC 9110 §10.2.3), RateLimit and X-RateLimit headers.

Nothing that merely looks like one of them is believed.
"""

import re
from collections.abc import Mapping
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


_EPOCH = 1_000_000_000  # a reset above it is a moment, as GitHub's is, not seconds from now
_COUNT = re.compile(r"[0-9]{1,15}")
_SHORT = re.compile(r"(?:^|[;,\s])r\s*=\s*([0-9]{1,15})(?=$|[;,\s]).*?[;,\s]t\s*=\s*([0-9]{1,15})(?=$|[;,\s])")
_LONG = re.compile(
    r"(?:^|[;,\s])remaining\s*=\s*([0-9]{1,15})(?=$|[;,\s]).*?[;,\s]reset\s*=\s*([0-9]{1,15})(?=$|[;,\s])"
)


def parse_rate_limit(headers: Mapping[str, str], now: float) -> tuple[int, float] | None:
    """(requests the server still takes, seconds until it takes more), or None where it does not say both.

    `RateLimit: "name";r=5;t=30` (draft-ietf-httpapi-ratelimit-headers-10; of several policies the first that is nearest
    its end counts), `RateLimit: limit=100, remaining=5, reset=30` (-07), `RateLimit-Remaining` with `RateLimit-Reset`
    (-06), and `X-RateLimit-Remaining` with `X-RateLimit-Reset` (seconds, or seconds since the epoch).
    """
    if (text := headers.get("RateLimit")) is not None:
        found = [
            (int(r), float(t)) for item in _policies(text) for r, t in (_SHORT.findall(item) or _LONG.findall(item))
        ]
        return min(found, default=None)
    for prefix in ("RateLimit", "X-RateLimit"):
        remaining, reset = headers.get(f"{prefix}-Remaining"), headers.get(f"{prefix}-Reset")
        if remaining is not None and reset is not None:
            return _pair(remaining.strip(), reset.strip(), now)
    return None


def _policies(text: str) -> list[str]:
    """`"a";r=1;t=2, "b";r=3;t=4` is two; the older `limit=…, remaining=…, reset=…` is one."""
    return text.split(",") if ";" in text else [text]


def _pair(remaining: str, reset: str, now: float) -> tuple[int, float] | None:
    if not _COUNT.fullmatch(remaining) or not _COUNT.fullmatch(reset):
        return None
    seconds = float(reset) / (1000 if len(reset) >= 13 else 1)  # some say milliseconds since the epoch
    return int(remaining), max(0.0, seconds - now) if seconds > _EPOCH else seconds
