"""`make bench`: bulkimg beside its peers on the same rows against nginx, side by side in one run; medians.

Prints its section of tests/bench/RESULTS.md, and keeps it when all peers ran. Two clocks: «sending» is from the first request to the last durable outcome (for
peers: the last answer), «whole» is the process with its start, reading, checking and result files.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import nginx
from tests.bench.peers import BODY, HEADERS, uuids
from tests.bench.pictures import bars
from tests.bench.sections import HERE, keep, machine


@dataclass(frozen=True)
class Measured:
    sending: float
    whole: float
    cpu: float


def measure(run: Callable[[], float | None]) -> Measured:
    """`run` returns the seconds it spent sending, or None when only the whole is known."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    sending = run()
    whole, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(whole if sending is None else sending, whole, cpu)


def write_rows(path: Path, count: int) -> None:
    rng = random.Random(1)
    lines = [f"{rng.getrandbits(128):032x},{nginx.FIELDS['name']},{nginx.FIELDS['platform']}\n" for _ in range(count)]
    path.write_text("uuid,name,platform\n" + "".join(lines))


class Peers:
    """Each method sends all rows once and returns its seconds of sending, if it knows them."""

    def __init__(self, url: str, place: Path, concurrency: int) -> None:
        self.url, self.place, self.concurrency = url, place, concurrency
        self.manifest = place / "rows.csv"
        self._prepare_curl()

    def _prepare_curl(self) -> None:
        heads = "".join(f'header = "{name}: {value}"\n' for name, value in HEADERS.items())
        body = BODY.decode().replace('"', '\\"')
        entries = (
            f'url = "{self.url}/zstack/v1/images/{uuid}/actions"\nrequest = PUT\n{heads}data = "{body}"\noutput = /dev/null\n'
            for uuid in uuids(str(self.manifest))
        )
        (self.place / "curl.conf").write_text("next\n".join(entries))
        (self.place / "uuids.txt").write_text("\n".join(uuids(str(self.manifest))) + "\n")

    def bulkimg(self, processes: int = 1) -> float:
        runs = self.place / "runs"
        environment = {
            **os.environ,
            "BULKIMG_SESSION": "0123456789abcdef0123456789abcdef",
            "BULKIMG_ENDPOINT": self.url,
            "BULKIMG_SURVEY": "false",  # nginx says the same to every request, so there are no images to look at
        }
        command = [
            sys.executable,
            "-m",
            "bulkimg",
            "run",
            str(self.manifest),
            "--yes",
            "--rate",
            "unlimited",
            "--progress",
            "none",
            "--no-adaptive",
        ]
        command += ["--concurrency", str(self.concurrency), "--runs-dir", str(runs), "--json"]
        command += ["--processes", str(processes)]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
        if done.returncode:
            raise RuntimeError(f"bulkimg exited {done.returncode}: {done.stderr[-500:]}")
        summary = json.loads(done.stdout)
        assert summary["counts"]["updated"] == summary["rows"], summary["counts"]
        shutil.rmtree(runs)
        return float(summary["pace"]["sending_s"])

    def bulkimg2(self) -> float:
        return self.bulkimg(processes=2)

    def aiohttp(self) -> float:
        return self._python_peer("aiohttp", self.concurrency)

    def requests(self) -> float:
        return self._python_peer("requests", 64)

    def _python_peer(self, name: str, concurrency: int) -> float:
        command = [sys.executable, "-m", "tests.bench.peers", name, self.url, str(self.manifest), str(concurrency)]
        return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)

    def curl(self) -> None:
        command = ["curl", "-s", "--parallel", "--parallel-max", "64", "-K", str(self.place / "curl.conf")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def parallel(self) -> None:
        heads = " ".join(f"-H '{name}: {value}'" for name, value in HEADERS.items())
        one = f"curl -s -o /dev/null -X PUT {heads} -d '{BODY.decode()}' {self.url}/zstack/v1/images/{{}}/actions"
        with (self.place / "uuids.txt").open() as lines:
            subprocess.run(
                ["parallel", "-j", "64", one],
                stdin=lines,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )


NAMES = {
    "bulkimg": "bulkimg, ledger on",
    "bulkimg2": "bulkimg --processes 2, ledger on",
    "aiohttp": "bare aiohttp loop (uvloop)",
    "curl": "curl --parallel --parallel-max 64",
    "requests": "requests, 64 threads",
    "parallel": "GNU parallel -j 64 + curl",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=list(NAMES))
    asked = parser.parse_args()
    names = [name for name in asked.only if name not in ("curl", "parallel") or shutil.which(name)]
    for name in set(asked.only) - set(names):
        print(f"left out: {name} is not installed")
    with tempfile.TemporaryDirectory(prefix="bulkimg-bench-") as where:
        place = Path(where)
        place.chmod(0o755)
        write_rows(place / "rows.csv", asked.rows)
        with nginx.serving(place) as url:
            peers = Peers(url, place, asked.concurrency)
            found: dict[str, list[Measured]] = {name: [] for name in names}
            for turn in range(asked.runs):
                for name in names:
                    found[name].append(measure(getattr(peers, name)))
                    print(f"run {turn + 1}: {name}: {found[name][-1].sending:.2f} s", file=sys.stderr)
    text = report(found, asked.rows, asked.concurrency)
    print(text)
    if set(names) == set(NAMES):
        keep("Throughput beside the peers", text)
        per_second = {NAMES[name]: asked.rows / _median(runs, "sending") for name, runs in found.items()}
        bars(HERE / "throughput.svg", "Rows a second while sending", "rows/s", per_second)


def _median(runs: list[Measured], clock: str) -> float:
    return statistics.median(float(getattr(run, clock)) for run in runs)


def report(found: dict[str, list[Measured]], rows: int, concurrency: int) -> str:
    medians = {
        name: Measured(*(_median(runs, clock) for clock in ("sending", "whole", "cpu"))) for name, runs in found.items()
    }
    ours = medians["bulkimg"]
    lines = [
        f"{machine()}, nginx on loopback; "
        f"{rows:,} rows, concurrency {concurrency}, medians of {len(next(iter(found.values())))} alternating runs. `python -m tests.bench` prints this.",
        "",
        "| | rows/s sending | rows/s whole process | CPU µs/row | bulkimg is × as fast (sending) | (whole) |",
        "|---|---|---|---|---|---|",
    ]
    for name, m in medians.items():
        lines.append(
            f"| {NAMES[name]} | {rows / m.sending:,.0f} | {rows / m.whole:,.0f} | {m.cpu / rows * 1e6:,.0f} "
            f"| {m.sending / ours.sending:.2f} | {m.whole / ours.whole:.2f} |"
        )
    lines += [
        "",
        "«Sending» is from the first request to the last durable outcome (for peers: the last answer); «whole» is the process,",
        "with its start, and for bulkimg with checking the manifest and writing every result file. curl and GNU parallel know",
        "only their whole. CPU is of the client's processes, user and system.",
        "",
        "![rows a second](throughput.svg)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
