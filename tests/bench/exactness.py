"""Measure how exactly a rate is kept in real time, when requests leave: `python -m tests.bench.exactness`.

tests/bench/underload.py measures the rate under load.
"""

import asyncio
import statistics
import sys
import time
from itertools import pairwise

import uvloop

from bulkimg.pace.rate import RateLimiter
from bulkimg.pace.slots import shared_slots
from tests.bench.sections import keep, machine
from tests.bench.underload import table
from tests.windows import most_within

RATES = (1, 5, 50, 500, 5000)
SECONDS = 12.0


async def sent(rate: RateLimiter, seconds: float) -> list[float]:
    """Return the moments of all requests of 64 waiters."""
    end, moments = time.monotonic() + seconds, list[float]()

    async def wait() -> None:
        while time.monotonic() < end:
            await rate.admit()
            await rate.check()
            moments.append(time.monotonic())

    await asyncio.gather(*(wait() for _ in range(64 if rate.per_second > 20 else 2)))
    return sorted(moment for moment in moments if moment < end)


async def measure(per_second: float) -> str:
    rate = RateLimiter(per_second)
    with rate.shared(shared_slots(f"the bench, {per_second}")):
        cpu = time.process_time()
        moments = await sent(rate, SECONDS)
        cpu = (time.process_time() - cpu) / SECONDS
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    reached = (len(moments) - 1) / (moments[-1] - moments[0]) / per_second
    spread = statistics.pstdev(gaps) / statistics.mean(gaps)
    sys.stderr.write(f"{per_second}/s: {reached:.3f}\n")
    return f"| {per_second:,} | {reached:.1%} | {most_within(1.0, moments):,} | {spread:.2f} | {cpu:.1%} |"


async def changes() -> str:
    """Change the rate 5,000 → 5 → 500 → 50 → 5,000, two seconds each.

    Returns the most in any second that contains a change, and what both rates allow.
    """
    rates = (5000, 5, 500, 50, 5000)
    rate = RateLimiter(rates[0])
    with rate.shared(shared_slots("the bench, changes")):
        begun = time.monotonic()
        sending = asyncio.ensure_future(sent(rate, 2.0 * len(rates)))
        for per_second in rates[1:]:
            await asyncio.sleep(2.0)
            rate.set(per_second)
        moments = [moment - begun for moment in await sending]
    found = []
    for number, (before, after) in enumerate(pairwise(rates), 1):
        around = [moment for moment in moments if 2 * number - 1 < moment < 2 * number + 1]
        found.append(f"{before:,} → {after:,}: {most_within(1.0, around):,}")
    return "; ".join(found)


async def main() -> None:
    rows = [await measure(per_second) for per_second in RATES]
    text = [
        f"{machine()}, {SECONDS:g} s each, waiters without end, slots shared through the file that other processes would take them",
        "from too. `python -m tests.bench.exactness` prints this. The spread is the coefficient of variation of the gaps between",
        "requests; a loop waits for whole milliseconds, so that above 500/s requests go by the millisecond.",
        "",
        "| rate, a second | reached | most in any second | spread of gaps | of one core |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Live changes, most in any second around each: {await changes()}.",
    ]
    keep("The rate", "\n".join(text))


if __name__ == "__main__":
    uvloop.run(main())
    keep("The rate under load", table())
