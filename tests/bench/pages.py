"""Measure what open pages cost a run: `python -m tests.bench.pages`.

A run of 100,000 rows against the answering server, alternately without a page and with eight open streams of it. A
ratio is that of two runs of one turn, seconds apart; the median of all turns counts. The readers of the streams are a
process of their own, and so is the page.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.answers import answering
from tests.bench.sections import keep, machine
from tests.conftest import ROOT

STREAMS = 8
Timed = Sequence[tuple[float, float]]  # seconds of sending and of CPU
# Reads the streams until they end. Prints the events of the first one.
_READERS = """
import http.client, sys, threading
port, token, run, streams = int(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
seen = []
def asked(path, cookie=""):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"Cookie": cookie})
    return connection.getresponse()
cookie = asked("/?token=" + token).headers["Set-Cookie"].partition(";")[0]
def read(number):
    while True:
        answer = asked(f"/run/{run}/stream", cookie)
        if answer.status == 200:
            break
        answer.read()
    for line in answer:
        if number == 0 and line.startswith(b"event: body"):
            seen.append(line)
readers = [threading.Thread(target=read, args=(number,)) for number in range(streams)]
for reader in readers: reader.start()
for reader in readers: reader.join()
print(len(seen))
"""


def sent(place: Path, url: str, rate: str, name: str) -> tuple[float, float]:
    """Run all rows once. Returns the seconds of sending, and the CPU seconds of the run's process."""
    environment = {**os.environ, "BULKIMG_SESSION": "0" * 32, "BULKIMG_ENDPOINT": url}
    command = [sys.executable, "-m", "bulkimg", "run", str(place / "m.csv"), "--yes", "--no-survey", "--json"]
    command += ["--rate", rate, "--progress", "none", "--run-id", name, "--runs-dir", str(place / "runs")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(json.loads(done.stdout)["pace"]["sending_s"]), cpu


@contextmanager
def pages(place: Path, name: str, found: list[tuple[float, int]]) -> Iterator[None]:
    """Keep eight streams of a run open. Adds the page's CPU seconds, and how often it was drawn."""
    command = [sys.executable, "-m", "bulkimg", "ui", "--runs-dir", str(place / "runs")]
    page = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert page.stdout is not None
    url = page.stdout.readline().split()[-1]
    port, token = url.split(":")[2].partition("/")[0], url.partition("token=")[2]
    words = [sys.executable, "-c", _READERS, port, token, name, str(STREAMS)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as readers:
        try:
            yield
            drawn = int(readers.communicate(timeout=60)[0])  # the streams end with the run
        finally:
            readers.kill()
    ticks = sum(map(int, Path(f"/proc/{page.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    found.append((ticks / os.sysconf("SC_CLK_TCK"), drawn))
    page.terminate()
    page.communicate(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rate", default="unlimited")
    parser.add_argument("--keep", action="store_true", help="write the section into RESULTS.md")
    asked = parser.parse_args()
    alone: list[tuple[float, float]] = []
    watched: list[tuple[float, float]] = []
    cost: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory(prefix="bulkimg-pages-") as where, answering(lambda: None) as url:
        place = Path(where)
        (place / "runs").mkdir()
        (place / "m.csv").write_text("uuid,name\n" + "".join(f"{n:032x},new {n}\n" for n in range(1, asked.rows + 1)))
        for turn in range(asked.turns):
            for is_watched in (True, False) if turn % 2 else (False, True):
                with ExitStack() as stack:
                    if is_watched:
                        stack.enter_context(pages(place, f"r{turn}-watched", cost))
                    name = "watched" if is_watched else "alone"
                    (watched if is_watched else alone).append(sent(place, url, asked.rate, f"r{turn}-{name}"))
            sys.stderr.write(f"turn {turn + 1}: {alone[-1]} alone, {watched[-1]} watched, {cost[-1]}\n")
    text = report(asked.rows, asked.rate, alone, watched, cost)
    print(text)
    if asked.keep:
        keep(f"What open pages cost at {asked.rate}", text)


def report(rows: int, rate: str, alone: Timed, watched: Timed, cost: Sequence[tuple[float, int]]) -> str:
    seconds, cpu = ([b[n] / a[n] for a, b in zip(alone, watched, strict=True)] for n in (0, 1))
    share = [100 * page / of[0] for (page, _), of in zip(cost, watched, strict=True)]
    drawn = statistics.median(number for _, number in cost)
    return "\n".join(
        [
            f"{machine()}, shared with other work; {rows:,} rows, `--rate {rate} --no-survey`, {len(alone)} alternating turns without a page and",
            f"with {STREAMS} open streams, each of which got {drawn:.0f} drawings (median). Only ratios are kept, because seconds say little on such a",
            f"machine. `python -m tests.bench.pages --rate {rate} --turns {len(alone)} --keep` writes this.",
            "",
            "| with pages; without them = 1 | median | least | most |",
            "|---|---|---|---|",
            f"| seconds of sending | {_row(seconds, 3)} |",
            f"| CPU seconds of the run | {_row(cpu, 3)} |",
            f"| CPU of the page with its start, % of the seconds of sending | {_row(share, 1)} |",
        ]
    )


def _row(values: list[float], digits: int) -> str:
    found = (statistics.median(values), min(values), max(values))
    return " | ".join(f"{value:.{digits}f}" for value in found)


if __name__ == "__main__":
    main()
