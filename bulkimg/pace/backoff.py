"""Compute the wait before a retry. Pure: chance is an argument."""

import random

BASE = 0.5  # seconds
MOST = 30.0


def full_jitter(tries: int, rng: random.Random) -> float:
    """Seconds before the try after `tries` failed ones (1 or more): uniform from 0 to an exponentially growing bound."""
    return rng.uniform(0, min(MOST, BASE * 2 ** min(tries - 1, 16)))
