"""Format counts with their nouns, rates and times as people write them."""

import math


def count(number: int, noun: str) -> str:
    """Return `1 row` or `2,000 rows`."""
    return f"{number:,} {noun if number == 1 else f'{noun}s'}"


def rate_text(per_second: float) -> str:
    """Return `50/s`, or `unlimited` for infinity."""
    return "unlimited" if math.isinf(per_second) else f"{per_second:g}/s"


def clock_text(seconds: float) -> str:
    """Return seconds as `0:18` or `1:02:03`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
