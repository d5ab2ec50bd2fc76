"""A model of a campaign over many regions: hours, what fails, what it costs the servers. A simulation with a seed.

Run it as `python -m tests.bench.model`, with `--help` for its assumptions. It sends nothing. Every region is a server with a
run of its own, because a management node decides how fast it may be asked. docs/explanation/scale.md has its table.
"""

import argparse
import random
import statistics
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

HOUR = 3600.0


@dataclass(frozen=True)
class World:
    """What is assumed. Rates are requests a second, times are seconds, chances are parts of one."""

    images: int = 10_000_000
    regions: int = 50
    rate: float = 20.0
    exact: float = 0.98  # part of the cap that a run uses (tests/bench/RESULTS.md, «A rate and what is sent»)
    polls: float = 1.0  # for each change, where the server answers with a job
    transient: float = 0.001  # changes whose answer is lost or temporary: asked about and sent again
    refused: float = 0.0002  # changes that the server refuses for good
    days_between_outages: float = 4.0  # of one region
    outage: float = 600.0  # seconds of an outage, on average; they are distributed exponentially
    max_outage: float = HOUR  # then the run stops and waits for a person
    person: float = 4 * HOUR  # until a person resumes a stopped run
    days_between_deaths: float = 30.0  # of one sending process
    restart: float = 60.0  # seconds until a dead process is started again
    open_rows: int = 60  # rows that a dead process leaves in doubt: what it had claimed and not settled
    slow_start: float = 4.0  # seconds lost after an outage, because the rate climbs


class Region(NamedTuple):
    """How one region ended."""

    seconds: float
    requests: float
    outages: int
    stopped: int
    deaths: int
    asked: int  # rows in doubt that were asked about
    refused: int


def region(world: World, rng: random.Random) -> Region:
    """Play one region's run to its end."""
    rows = world.images / world.regions
    looks = 2 / 200  # of a row: the survey, and the comparison before it is sent
    work = rows * (1 + world.polls + looks + world.transient * (2 + world.polls))
    rate = world.rate * world.exact
    clock = done = 0.0
    outages = stopped = deaths = asked = 0
    next_outage = rng.expovariate(1 / (world.days_between_outages * 24 * HOUR))
    next_death = rng.expovariate(1 / (world.days_between_deaths * 24 * HOUR))
    while True:
        event = min(next_outage, next_death)
        if clock + (work - done) / rate <= event:
            clock += (work - done) / rate
            return Region(clock, work, outages, stopped, deaths, asked, round(rows * world.refused))
        done += max(0.0, event - clock) * rate
        clock = max(clock, event)
        if event == next_outage:
            outages += 1
            lasts = rng.expovariate(1 / world.outage)
            if lasts > world.max_outage:
                stopped += 1
                lasts = max(lasts, world.max_outage + world.person)
            clock += lasts + world.slow_start
            next_outage = clock + rng.expovariate(1 / (world.days_between_outages * 24 * HOUR))
        else:
            deaths += 1
            asked += world.open_rows
            work += 2 * world.open_rows  # each is asked about, and those that were not sent are claimed again
            clock += world.restart
            next_death = clock + rng.expovariate(1 / (world.days_between_deaths * 24 * HOUR))


class Campaign(NamedTuple):
    """Medians over many campaigns of all regions."""

    half: float  # hours until half of the regions are done
    most: float  # until nine tenths are
    last: float
    requests: float
    outages: float
    stopped: float
    deaths: float
    asked: float
    refused: float


def campaign(world: World, times: int, seed: int = 1) -> Campaign:
    """Play so many campaigns. Returns the medians."""
    rng, found = random.Random(seed), []
    for _ in range(times):
        regions = sorted((region(world, rng) for _ in range(world.regions)), key=lambda one: one.seconds)
        hours = [one.seconds / HOUR for one in regions]
        sums = [sum(values) for values in list(zip(*regions, strict=True))[1:]]
        found.append(Campaign(hours[len(hours) // 2], hours[len(hours) * 9 // 10], hours[-1], *sums))
    return Campaign(*(statistics.median(values) for values in zip(*found, strict=True)))


CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("as assumed", {}),
    ("server that answers 200 at once", {"polls": 0.0}),
    ("50 requests/s each", {"rate": 50.0}),
    ("an outage a day in each region", {"days_between_outages": 1.0}),
    ("outages of an hour, one a day", {"days_between_outages": 1.0, "outage": HOUR}),
    ("senders that die every day", {"days_between_deaths": 1.0}),
    ("1 % of the answers are lost", {"transient": 0.01}),
    ("500 regions", {"regions": 500}),
)


def table(world: World, times: int) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| | half, h | 9 of 10, h | last, h | requests, million | outages | stopped | deaths | rows asked about |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, changes in CASES:
        one = campaign(replace(world, **changes), times)
        lines.append(
            f"| {name} | {one.half:.1f} | {one.most:.1f} | {one.last:.1f} | {one.requests / 1e6:.1f} | {one.outages:.0f} | "
            f"{one.stopped:.0f} | {one.deaths:.0f} | {one.asked:.0f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for one in fields(World):
        parser.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
    parser.add_argument("--times", type=int, default=200, help="campaigns to play for each line")
    asked = vars(parser.parse_args())
    times = asked.pop("times")
    print("\n".join(table(World(**asked), times)))


if __name__ == "__main__":
    main()
