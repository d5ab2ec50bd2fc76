"""Compare adaptive concurrency with the best fixed one: `python -m tests.bench.adaptive`.

First against the sandbox, whose workers need 20 ms each; then as a picture in virtual time, while the number of the
server's workers changes.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path

from tests.bench.pictures import lines
from tests.bench.sections import HERE, keep, machine
from tests.conftest import Cli, sandbox_process
from tests.pace.test_adaptive import SERVICE, Trial

SWEEPS = {5: (4, 5, 6, 8, 12), 20: (16, 20, 24, 30, 40), 50: (32, 50, 64, 80)}
RUNS = 3
SECONDS = 14  # seconds of sending, at the server's full speed or 1,000 rows a second
SETTLED = 10.0  # seconds from the start


@dataclass(frozen=True)
class Reached:
    per_second: float
    p95: float  # milliseconds


def one(workers: int, concurrency: int, *, adaptive: bool) -> Reached:
    rows = int(min(workers / SERVICE, 1000) * SECONDS)
    options = ("--images", str(rows), "--dialect", "documented", "--workers", str(workers), "--service-time", "20")
    with sandbox_process(*options) as server, tempfile.TemporaryDirectory() as place:
        cli = Cli(Path(place)).at(server)
        cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},n-{uuid[:8]}\n" for uuid in server.images()))
        how = "--adaptive" if adaptive else "--no-adaptive"
        cli("run", "m.csv", "--yes", "--no-survey", "--rate", "unlimited", "--concurrency", str(concurrency), how)
        results = (cli.run_dir() / "results.jsonl").read_text().splitlines()
    took = []
    for result in map(json.loads, results):
        begun = datetime.fromisoformat(result["started_at"].replace("Z", "+00:00")).timestamp()
        took.append((begun, result["duration_ms"]))
    first, last = min(took)[0], max(took)[0]
    late = [(begun, ms) for begun, ms in took if begun >= first + min(SETTLED, (last - first) * 0.6)]
    times = sorted(ms for _, ms in late)
    return Reached(len(late) / (last - min(late)[0]), times[int(0.95 * len(times))])


def median(runs: list[Reached]) -> Reached:
    """Return the median of each figure."""
    return Reached(*(statistics.median(figures) for figures in zip(*map(astuple, runs), strict=True)))


def sweep(workers: int) -> str:
    """Find the best fixed concurrency.

    The best one of a sweep is run again and again, because the best of many single runs is also the luckiest.
    """
    fixed = {concurrency: [one(workers, concurrency, adaptive=False)] for concurrency in SWEEPS[workers]}
    best = max(fixed, key=lambda concurrency: fixed[concurrency][0].per_second)
    runs = []
    for _ in range(RUNS):
        runs.append(one(workers, 128, adaptive=True))
        fixed[best].append(one(workers, best, adaptive=False))
    found, beside = median(runs), median(fixed[best][1:])
    sys.stderr.write(f"{workers} workers: {runs}, best fixed {best}: {fixed[best]}\n")
    return (
        f"| {workers} | {found.per_second:,.0f} | {found.p95:.0f} | {best} | {beside.per_second:,.0f} "
        f"| {beside.p95:.0f} | {found.per_second / beside.per_second:.3f} |"
    )


def picture(path: Path) -> None:
    trial = Trial((50, 5, 50), noise="lognormal").run()
    seconds = int(trial.each * 3)
    throughput = [(t + 0.5, sum(t <= when < t + 1 for when, _ in trial.done) * SERVICE) for t in range(seconds)]
    lines(
        path,
        "Concurrency that finds itself, while the server's workers change",
        "seconds of virtual time; workers need 20 ms ± 30 % (lognormal)",
        "rows",
        {"limit": trial.limits, "rows done in 20 ms": throughput},
        {"workers": [(number * trial.each, workers) for number, workers in enumerate(trial.steps)]},
    )


def main() -> None:
    rows = [sweep(workers) for workers in SWEEPS]
    picture(HERE / "adaptive.svg")
    text = [
        f"{machine()}, the sandbox (documented dialect) beside it on the same cores, `--service-time 20`, `--concurrency 128` and",
        f"no rate; from 10 s after the start (or the last 40 %). `python -m tests.bench.adaptive` prints this; medians of {RUNS}",
        "alternating runs, the best fixed one being that of a sweep of single runs.",
        "",
        "| workers | adaptive rows/s | p95 ms | best fixed concurrency | its rows/s | its p95 ms | adaptive is × the best |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "![limit over time](adaptive.svg)",
        "",
        "The picture is in virtual time, against the queueing model of `tests.pace.test_adaptive.py`.",
    ]
    keep("Concurrency that finds itself", "\n".join(text))


if __name__ == "__main__":
    main()
