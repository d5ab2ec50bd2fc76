"""Send the same campaign in three ways: one process, a desk with two workers, four shards that are merged.

Run it as `python -m tests.bench.ways`. Each way has a fresh sandbox of the zstack dialect. The sandbox's own log is the judge:
the most requests in any second, changes that were executed twice, and whether every image is as it should be. While the
two workers send, one of them is killed every five seconds.
"""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import nginx
from tests.bench.__main__ import write_rows
from tests.bench.sections import keep, machine
from tests.conftest import ROOT, Server
from tests.windows import most_within

ROWS = 20_000
RATE = 400
EVERY = 5.0  # seconds between two kills
TITLE = "One campaign in three ways"
RUN = ["--rate", str(RATE), "--yes", "-q", "--concurrency", "64"]


class Way(NamedTuple):
    """How one way ended."""

    name: str
    counts: dict[str, int]
    seconds: float
    most: int
    twice: int
    wrong: int
    about: str


@contextlib.contextmanager
def sandbox() -> Iterator[Server]:
    """Start a sandbox on a free port."""
    words = [sys.executable, "-m", "bulkimg", "sandbox", "--port", "0", "--images", str(ROWS), "--workers", "200"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        yield Server(lines[0].split()[1], lines[1].split()[1], process.pid, "")
    finally:
        process.terminate()
        process.wait(10)


ACCOUNT = {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "password"}


def bulkimg(place: Path, server: Server, *words: str, **credentials: str) -> "subprocess.Popen[bytes]":
    """Start a command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BULKIMG_ENDPOINT": server.url, **(credentials or ACCOUNT)}
    return subprocess.Popen([sys.executable, "-m", "bulkimg", *words], cwd=place, env=environment)


def ended(*processes: "subprocess.Popen[bytes]") -> None:
    for process in processes:
        assert process.wait(900) == 0


def one_process(place: Path, server: Server) -> str:
    ended(bulkimg(place, server, "run", "m.csv", "--run-id", "whole", *RUN))
    return ""


def two_workers(place: Path, server: Server) -> str:
    ended(bulkimg(place, server, "run", "m.csv", "--run-id", "whole", "--cluster", "local:2", *RUN))
    return ""


def two_killed_workers(place: Path, server: Server) -> str:
    desk = bulkimg(place, server, "run", "m.csv", "--run-id", "whole", "--cluster", "local:2", *RUN)
    killed, over = 0, threading.Event()

    def kill() -> None:
        nonlocal killed
        while not over.wait(EVERY):
            workers = [pid for pid in children(desk.pid) if "spawn_main" in _words(pid)]
            if workers and server.puts():
                os.kill(workers[killed % len(workers)], signal.SIGKILL)
                killed += 1

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        ended(desk)
    finally:
        over.set()
        killing.join()
    return f"{killed} workers killed"


def children(pid: int) -> list[int]:
    """Return the present child processes of all threads of a process."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def four_shards(place: Path, server: Server) -> str:
    ended(*[bulkimg(place, server, "run", "m.csv", "--run-id", "s", "--shard", f"{n}/4", *RUN) for n in (1, 2, 3, 4)])
    ended(bulkimg(place, server, "merge", *[f"s-{n}-of-4" for n in (1, 2, 3, 4)], "--run-id", "whole", "-q"))
    return "merged"


def measure(name: str, send: Callable[[Path, Server], str]) -> Way:
    with tempfile.TemporaryDirectory() as folder, sandbox() as server:
        place = Path(folder)
        wanted = {uuid: f"way {n}" for n, uuid in enumerate(sorted(server.images()))}
        place.joinpath("m.csv").write_text(
            "uuid,description\n" + "".join(f"{uuid},{text}\n" for uuid, text in wanted.items())
        )
        begun = time.perf_counter()
        about = send(place, server)
        seconds = time.perf_counter() - begun
        summary = json.loads((place / "runs/whole/summary.json").read_text())
        requests, images = server.requests(), server.images()
    most = most_within(1.0, sorted(float(request["at"]) for request in requests))
    wrong = sum(images[uuid]["description"] != text for uuid, text in wanted.items())
    counts = {status: number for status, number in summary["counts"].items() if number}
    return Way(name, counts, seconds, most, executed_twice(requests), wrong, about)


def executed_twice(requests: list[dict[str, Any]]) -> int:
    """Return how many changes reached an image more than once, each with a job of its own.

    A change with the wrong spelling of the action key is refused and not executed.
    """
    jobs: dict[str, set[str]] = {}
    for request in requests:
        if request["method"] == "PUT" and "updateImage" in request["body"]:
            jobs.setdefault(re.findall("[0-9a-f]{32}", request["path"])[0], set()).add(request["job_uuid"])
    return sum(number - 1 for number in Counter({uuid: len(found) for uuid, found in jobs.items()}).values())


def left_in_a_second() -> int:
    """Return the most requests that four shards sent in any second, as their ledgers note it.

    nginx answers each change at once, so every request is a change, and the ledger has its moment.
    """
    with tempfile.TemporaryDirectory() as folder, nginx.serving(Path(folder)) as url:
        place, server, moments = Path(folder), Server(url, "0" * 32, 0, ""), list[float]()
        write_rows(place / "m.csv", ROWS // 2)
        words = ["run", "m.csv", "--no-survey", "--run-id", "s", *RUN]
        environment = {"BULKIMG_SESSION": "0" * 32}
        ended(*[bulkimg(place, server, *words, "--shard", f"{n}/4", **environment) for n in (1, 2, 3, 4)])
        for ledger in place.glob("runs/*/run.db"):
            db = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
            moments += [ms / 1000 for (ms,) in db.execute("SELECT started_at FROM outcome")]
            db.close()
    return most_within(1.0, sorted(moments))


def main() -> None:
    ways = [
        measure("one process", one_process),
        measure("`--cluster local:2`", two_workers),
        measure(f"`--cluster local:2`, one killed every {EVERY:g} s", two_killed_workers),
        measure("4 shards", four_shards),
    ]
    lines = [
        f"{machine()}. `python -m tests.bench.ways`: {ROWS:,} rows at {RATE} requests a second in all, sandbox of the zstack",
        "dialect on the same machine, which answers each change with a job that is polled. Judged by the sandbox's log.",
        "",
        "| way | outcomes | whole, s | most in any second | executed twice | images not as asked | |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        counts = ", ".join(f"{number:,} {status}" for status, number in way.counts.items())
        lines.append(
            f"| {way.name} | {counts} | {way.seconds:.0f} | {way.most} | {way.twice} | {way.wrong} | {way.about} |"
        )
    lines += [
        "",
        "The sandbox notes a request when it reads it. Where its process waits for a core it reads several at once, so it",
        f"may note more in a second than came. As they left, {ROWS // 2:,} changes of 4 shards were at most",
        f"{left_in_a_second()} in any second (against nginx, which answers at once).",
    ]
    print("\n".join(lines))
    keep(TITLE, "\n".join(lines))


if __name__ == "__main__":
    main()
