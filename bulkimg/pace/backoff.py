"""Compute the wait before a retry. The random generator is an argument."""

import random

BASE = 0.5  # seconds
MOST = 30.0


def full_jitter(tries: int, rng: random.Random) -> float:
    """Return the seconds to wait after `tries` (1 or more) failed tries: uniform, up to an exponential bound."""
    return rng.uniform(0, min(MOST, BASE * 2 ** min(tries - 1, 16)))
