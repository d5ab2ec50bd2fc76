"""Measure what a desk costs: the same rows through one process and through 1, 2 and 4 local workers, against nginx.

Run it as `python -m tests.bench.cluster`. On few cores the workers and the server take each other's time: the seconds show
the cost of the way through a desk, and not how much more several machines send. That follows from the desk's processor
time for a row, which bounds what one desk can feed.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bulkimg.cluster.messages import Message, packed
from bulkimg.credentials import Session
from tests.bench import nginx
from tests.bench.__main__ import write_rows
from tests.bench.sections import keep, machine
from tests.bench.ways import children
from tests.cluster import crew
from tests.conftest import ROOT, Server

ROWS = 20_000
TURNS = 3
WAYS = ("one process", "local:1", "local:2", "local:4")
TITLE = "One run through a desk and its workers"


class Turn(NamedTuple):
    """One run: seconds of sending and of the whole, and microseconds of processor for a row, of desk and workers."""

    sending: float
    whole: float
    desk: float
    workers: float


def turn(url: str, manifest: Path, way: str) -> Turn:
    """Send all rows once."""
    place = Path(tempfile.mkdtemp(dir=manifest.parent))
    words = [
        "run",
        str(manifest),
        "--no-survey",
        "--rate",
        "unlimited",
        "--concurrency",
        "64",
        "--no-adaptive",
        "--yes",
    ]
    words += ["--json", "-q", "--runs-dir", str(place)]
    words += ["--cluster", way] if way.startswith("local") else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BULKIMG_ENDPOINT": url, "BULKIMG_SESSION": "0" * 32}
    with (place / "out").open("wb") as out:
        begun = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "bulkimg", *words], env=environment, stdout=out)
        desk = workers = 0.0
        while process.poll() is None:
            if now := _processor(process.pid):
                desk, workers = now[0], max(workers, now[1])  # the workers end before the desk
            time.sleep(0.05)
        whole = time.perf_counter() - begun
    summary = json.loads((place / "out").read_bytes())
    assert summary["counts"]["updated"] == ROWS, summary
    return Turn(summary["pace"]["sending_s"], whole, desk / ROWS * 1e6, workers / ROWS * 1e6)


def _processor(pid: int) -> tuple[float, float] | None:
    """Return the seconds of processor that the process and its present children have used."""
    try:
        return _seconds(pid), sum(_seconds(child) for child in children(pid))
    except (OSError, IndexError, ValueError):
        return None


def _seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class CountingLink(crew.DirectLink):
    """Counts messages and their bytes, both ways."""

    messages = 0
    size = 0

    async def call(self, op: str, message: Message) -> dict[str, Any]:
        answer = await super().call(op, message)
        CountingLink.messages += 1
        CountingLink.size += len(packed(message)) + len(packed(answer))
        return answer


async def messages(url: str, manifest: Path, place: Path) -> tuple[float, float]:
    """Return messages and bytes a row, of a run with two workers."""
    crew.DirectLink = CountingLink  # type: ignore[misc]
    server = Server(url, "0" * 32, 0, "")
    hired = [crew.Hired(Session("0" * 32)) for _ in range(2)]
    scene = crew.Scene(place, server, hired, survey=False, concurrency=64, adaptive=False)
    summary = await scene.execute(scene.create(manifest))
    assert summary.counts["updated"] == ROWS
    return CountingLink.messages / ROWS, CountingLink.size / ROWS


def main() -> None:
    with tempfile.TemporaryDirectory() as name, nginx.serving(Path(name)) as url:
        place = Path(name)
        manifest = place / "rows.csv"
        write_rows(manifest, ROWS)
        turns: dict[str, list[Turn]] = {way: [] for way in WAYS}
        for _ in range(TURNS):
            for way in WAYS:
                turns[way].append(turn(url, manifest, way))
        each, size = asyncio.run(messages(url, manifest, place))
    lines = [
        f"{machine()}. `python -m tests.bench.cluster`: {ROWS:,} rows, no survey, 64 rows in flight, unlimited rate, nginx on the",
        f"same machine, medians of {TURNS} turns. Processor time is microseconds a row.",
        "",
        "| way | sending, s | rows/s | × one process | whole, s | desk | workers |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        middle = Turn(*(statistics.median(values) for values in zip(*turns[way], strict=True)))
        ratio = statistics.median(a.sending / b.sending for a, b in zip(turns[way], turns[WAYS[0]], strict=True))
        lines.append(
            f"| {way} | {middle.sending:.2f} | {ROWS / middle.sending:,.0f} | {ratio:.2f} | {middle.whole:.1f} | "
            f"{middle.desk:.0f} | {middle.workers:.0f} |"
        )
    desk = statistics.median(one.desk for one in turns["local:2"])
    lines += [
        "",
        f"{each:.2f} messages and {size:,.0f} bytes a row, counted both ways with two workers in one process. A desk that",
        f"needs {desk:.0f} µs a row feeds workers with {1e6 / desk:,.0f} rows a second together, at most.",
    ]
    print("\n".join(lines))
    keep(TITLE, "\n".join(lines))


if __name__ == "__main__":
    main()
