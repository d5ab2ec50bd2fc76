"""Run `make bench`: bulkimg and its peers on the same rows against nginx, in turns in one run. Results are medians.

Prints its section of tests/bench/RESULTS.md, and keeps it if all peers ran. There are two times: «sending» is from the
first request to the last durable outcome (for peers: the last answer), «whole» is the process with its start, reading,
checking and result files. A ratio is the median of the ratios of all turns: both sides of each are from the same turn,
seconds apart.
"""

import argparse
import itertools
import json
import math
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import nginx
from tests.bench.peers import HEADERS, changes
from tests.bench.pictures import bars
from tests.bench.sections import HERE, keep, machine
from tests.conftest import ROOT

NAMES = {
    "bulkimg": "bulkimg, ledger on",
    "aiohttp": "bare aiohttp loop (uvloop)",
    "curl": "curl --parallel --parallel-max 64",
    "requests": "requests, 64 threads",
    "parallel": "GNU parallel -j 64 + curl",
}
SHARE = {"requests": 0.1, "parallel": 0.01}  # of the rows, for methods that would need minutes


@dataclass(frozen=True)
class Measured:
    """Microseconds for each row."""

    sending: float
    whole: float
    cpu: float


def measure(run: Callable[[], float | None], rows: int, of: int) -> Measured:
    """Measure a method. `run` returns the seconds of sending, or None if only the whole is known.

    If it sends fewer rows than the others, its start is divided by as many rows as theirs.
    """
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    sent = run()
    whole, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    sending = whole if sent is None else sent
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(sending / rows * 1e6, (sending / rows + (whole - sending) / of) * 1e6, cpu / rows * 1e6)


def write_rows(path: Path, count: int) -> None:
    """Write a manifest with the values that nginx answers."""
    rng = random.Random(1)
    cells = ",".join("true" if value is True else str(value) for value in nginx.FIELDS.values())
    lines = [f"{rng.getrandbits(128):032x},{cells}\n" for _ in range(count)]
    path.write_text(f"uuid,{','.join(nginx.FIELDS)}\n" + "".join(lines))


class Peers:
    """The methods. Each sends its rows once and returns its seconds of sending, if it knows them."""

    def __init__(self, url: str, place: Path, rows: int, concurrency: int) -> None:
        self.url, self.place, self.concurrency = url, place, concurrency
        self.manifest = place / "rows.csv"
        write_rows(self.manifest, rows)
        self.rows = {name: max(1, int(rows * SHARE.get(name, 1))) for name in NAMES}
        write_rows(place / "requests.csv", self.rows["requests"])
        self._prepare_curl()

    def _prepare_curl(self) -> None:
        """Write curl's input instead of the CSV file. This is not measured."""
        heads = "".join(f'header = "{name}: {value}"\n' for name, value in HEADERS.items())
        entries = []
        for uuid, body in changes(self.manifest):
            data = body.decode().replace('"', '\\"')
            target = f"{self.url}/zstack/v1/images/{uuid}/actions"
            entries.append(f'url = "{target}"\nrequest = PUT\n{heads}data = "{data}"\noutput = /dev/null\n')
        (self.place / "curl.conf").write_text("next\n".join(entries))
        few = itertools.islice(changes(self.manifest), self.rows["parallel"])
        (self.place / "uuids.txt").write_text("".join(f"{change.uuid}\n" for change in few))

    def bulkimg(self) -> float:
        runs = self.place / "runs"
        environment = {
            **os.environ,
            "BULKIMG_SESSION": "0123456789abcdef0123456789abcdef",
            "BULKIMG_ENDPOINT": self.url,
            "BULKIMG_SURVEY": "false",  # nginx answers every request the same, so there are no images to read
        }
        command = [sys.executable, "-m", "bulkimg", "run", str(self.manifest), "--yes", "--no-adaptive"]
        command += ["--rate", "unlimited", "--progress", "none", "--concurrency", str(self.concurrency)]
        command += ["--runs-dir", str(runs), "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
        if done.returncode:
            raise RuntimeError(f"bulkimg exited {done.returncode}: {done.stderr[-500:]}")
        summary = json.loads(done.stdout)
        assert summary["counts"]["updated"] == summary["rows"], summary["counts"]
        shutil.rmtree(runs)
        return float(summary["pace"]["sending_s"])

    def aiohttp(self) -> float:
        return self._python_peer("aiohttp", self.manifest, self.concurrency)

    def requests(self) -> float:
        return self._python_peer("requests", self.place / "requests.csv", 64)

    def _python_peer(self, name: str, manifest: Path, concurrency: int) -> float:
        command = [sys.executable, "-m", "tests.bench.peers", name, self.url, str(manifest), str(concurrency)]
        return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT).stdout)

    def curl(self) -> None:
        command = ["curl", "-s", "--parallel", "--parallel-max", "64", "-K", str(self.place / "curl.conf")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def parallel(self) -> None:
        heads = " ".join(f"-H '{name}: {value}'" for name, value in HEADERS.items())
        body = next(changes(self.manifest)).body.decode()
        one = f"curl -s -o /dev/null -X PUT {heads} -d '{body}' {self.url}/zstack/v1/images/{{}}/actions"
        with (self.place / "uuids.txt").open() as lines:
            subprocess.run(
                ["parallel", "-j", "64", one],
                stdin=lines,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


def turns(names: Sequence[str], rows: int, runs: int, concurrency: int) -> dict[str, list[Measured]]:
    """Run so many turns. In each of them every peer has its own."""
    found: dict[str, list[Measured]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="bulkimg-bench-") as where:
        place = Path(where)
        place.chmod(0o755)
        with nginx.serving(place) as url:
            peers = Peers(url, place, rows, concurrency)
            for turn in range(runs):
                for name in names:
                    found[name].append(measure(getattr(peers, name), peers.rows[name], rows))
                    sys.stderr.write(f"turn {turn + 1}: {name}: {found[name][-1].whole:.1f} µs a row\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES))
    asked = parser.parse_args()
    names = [name for name in asked.only if name not in ("curl", "parallel") or shutil.which(name)]
    for name in set(asked.only) - set(names):
        print(f"left out: {name} is not installed")
    found = turns(names, asked.rows, asked.runs, asked.concurrency)
    text = report(found, asked.rows, asked.concurrency)
    print(text)
    if set(names) == set(NAMES) and (asked.rows, asked.runs) == (60_000, 5):
        keep("Throughput beside the peers", text)
        per_second = {NAMES[name]: 1e6 / _median(runs, "sending") for name, runs in found.items()}
        bars(HERE / "throughput.svg", "Rows a second while sending", "rows/s", per_second)


def _median(runs: Sequence[Measured], clock: str) -> float:
    return statistics.median(float(getattr(run, clock)) for run in runs)


def ratio(ours: Sequence[Measured], theirs: Sequence[Measured], clock: str) -> float:
    """Return how many times as fast bulkimg is: the median over all turns."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(float(getattr(their, clock)) / float(getattr(our, clock)) for our, their in pairs)


def _cut(number: float) -> str:
    """Round down to two decimals, because it is compared with an aim."""
    return f"{math.floor(number * 100) / 100:.2f}"


def report(found: Mapping[str, Sequence[Measured]], rows: int, concurrency: int) -> str:
    number = len(next(iter(found.values())))
    few = ", ".join(f"{NAMES[name]} {int(rows * share):,}" for name, share in SHARE.items())
    lines = [
        f"{machine()}, nginx on loopback; {rows:,} rows of a CSV file, a uuid and {len(nginx.FIELDS)} fields; concurrency {concurrency},",
        f"`--rate unlimited --no-survey --no-adaptive`; {number} alternating turns. `python -m tests.bench` prints this. Fewer rows, because",
        f"they would need minutes: {few}. Their start is counted once for {rows:,} rows.",
        "",
        "| | rows/s sending | rows/s whole process | CPU µs/row | bulkimg is × as fast (sending) | (whole) |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        sending, whole, cpu = (_median(runs, clock) for clock in ("sending", "whole", "cpu"))
        beside = [_cut(ratio(found["bulkimg"], runs, c)) if "bulkimg" in found else "" for c in ("sending", "whole")]
        lines.append(
            f"| {NAMES[name]} | {1e6 / sending:,.0f} | {1e6 / whole:,.0f} | {cpu:,.0f} | {' | '.join(beside)} |"
        )
    lines += [
        "",
        "Figures are medians; a ratio is the median of the ratios of each turn. «Sending» is from the first request to the last durable",
        "outcome (for peers: the last answer); «whole» is the process with its start, and for bulkimg with checking the manifest and",
        "every result file. The bare loop and requests read the same CSV file and write a line of JSON for each answer. curl and GNU",
        "parallel know only their whole, read what was made of the CSV file before, and write nothing. CPU is of the client's",
        "processes, user and system.",
        "",
        "![rows a second](throughput.svg)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
