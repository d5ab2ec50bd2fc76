"""T31 in real time: the server is down in the middle of a run, and comes back.

    python -m tests.battery.outage --how refuse --seconds 20 --rate 100

`refuse`: nothing listens and every connection is reset. `503`: plain 503 to all. `silent`: requests are read, never
answered.
"""

import argparse
import math
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from tests.battery.checker import Findings
from tests.battery.faults_catalogue import BOTH, ZSTACK
from tests.battery.report import Record
from tests.battery.trial import HUNG, Bench, bench, last_of_each

HOWS = ("refuse", "503", "silent")
BEFORE = 3.0  # seconds of the run before the outage
AFTER = 15.0  # seconds' worth of rows that are left for afterwards
MOST_REQUESTS = 100  # in an outage of any length
FULL = 0.9  # of the rate
RAMP = 0.1  # of the rate, in the first second after recovery


@dataclass
class Figures:
    """The figures of an outage."""

    code: int
    found: Findings
    received: int  # requests in the outage that the witness received
    attempted: int  # requests that never reached it
    most_in_a_second: int  # of those it received, once the run had noticed
    first: float  # seconds from recovery to the first request
    full: float  # seconds from recovery to full speed
    first_second: int  # requests in the first second that follows the first one after recovery
    seconds: float


def outage(
    seconds: float = 60.0,
    concurrency: int = 16,
    *,
    how: str = "refuse",
    dialect: str = ZSTACK,
    rate: int = 100,
    seed: int = 1,
) -> Figures:
    """Run with one outage. The timeout for an answer is 2 s."""
    per_row = 2.2 if dialect == ZSTACK else 1.0  # requests
    rows = int(rate * (BEFORE + AFTER) / per_row)
    limit = BEFORE + AFTER * 4 + seconds * 2 + 90
    pace = ("--rate", f"{rate}/s", "--concurrency", str(concurrency), "--timeout", "2s", "--max-errors", "none")
    begun = time.monotonic()
    with bench(rows, dialect, seed=seed) as ready:
        ready.witness.mark("run")
        process = ready.start("run", "m.csv", "--yes", *last_of_each((*pace, "--progress", "none")))
        _wait_for_the_first_put(ready)
        time.sleep(BEFORE + random.Random(seed).random())
        ready.witness.outage(how, seconds)
        try:
            process.communicate(timeout=limit)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            code = HUNG
        return _figures(ready, code, rate, time.monotonic() - begun)


def _wait_for_the_first_put(ready: Bench) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and not ready.witness.puts():
        time.sleep(0.1)


def _figures(ready: Bench, code: int, rate: int, seconds: float) -> Figures:
    log = ready.witness.log("run")
    began, recovered = _moment(log, "outage"), _moment(log, "recovery")
    times = [one["mono"] for one in log if one["kind"] == "request"]
    during = [at for at in times if began <= at < recovered]
    later = [at - recovered for at in times if at >= recovered]
    first = min(later, default=math.inf)
    asked = ready.summary().get("pace", {}).get("requests", len(times))
    return Figures(
        code=code,
        found=ready.check(),
        received=len(during),
        attempted=max(0, asked - len(times)),
        most_in_a_second=_most_in_a_second([at for at in during if at > began + 3.0]),
        first=first,
        full=_full_speed(later, rate),
        first_second=sum(first <= at < first + 1.0 for at in later),
        seconds=seconds,
    )


def _moment(log: list[dict[str, Any]], kind: str) -> float:
    return float(next((one["mono"] for one in log if one["kind"] == kind), math.inf))


def _most_in_a_second(times: list[float]) -> int:
    return max((sum(at <= other < at + 1.0 for other in times) for at in times), default=0)


def _full_speed(later: list[float], rate: int) -> float:
    """Return the beginning of the first second with so many requests."""
    return next((at for n, at in enumerate(later) if sum(o < at + 1.0 for o in later[n:]) >= FULL * rate), math.inf)


def record(
    seconds: float = 60.0, concurrency: int = 16, *, how: str = "refuse", dialect: str = ZSTACK, rate: int = 100
) -> Record:
    """T31: at most 100 requests in the outage, no row failed by it, a slow start after it."""
    got = outage(seconds, concurrency, how=how, dialect=dialect, rate=rate)
    statuses = got.found.statuses
    not_updated = got.found.rows - statuses["updated"]
    too_many = got.received + got.attempted > MOST_REQUESTS
    # After it, all requests of the slow start reach the server: polls count too.
    too_fast = got.first_second > max(RAMP * rate, 2) * 1.5
    failures = int(bool(got.found.bad or not_updated or too_many or too_fast or got.code != 0))
    notes = (
        f"{got.found.rows} rows at {rate}/s, concurrency {concurrency}: exit {got.code}; in the outage {got.received} "
        f"requests received and {got.attempted} not connected, at most {got.most_in_a_second} in a second after its "
        f"first 3; after it first request {got.first:.1f} s, first second {got.first_second} requests, full speed "
        f"{got.full:.1f} s; not updated {not_updated} ({got.found})"
    )
    test = f"outage of {seconds:.0f} s, {how}, {dialect}, concurrency {concurrency}"
    return Record("T31", test, 1, failures, "runs", notes, got.seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--how", choices=HOWS, default="refuse")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--dialect", choices=BOTH, default=ZSTACK)
    asked = parser.parse_args()
    sys.stdout.write(f"{record(**vars(asked))}\n")


if __name__ == "__main__":
    main()
