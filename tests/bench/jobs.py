"""Compare bulkimg with a bare loop on answers of 202 and polls.

Run it as `python -m tests.bench.jobs [--rows N] [--runs N] [--keep]`.

The server is `bulkimg sandbox` in the zstack dialect, a new one for each measurement, and counts the requests itself.
It is a Python program on the same two cores, so it limits both. The processor time of a row shows the difference then.
"""

import argparse
import asyncio
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tests.bench.sections import keep, machine
from tests.conftest import ROOT, Server, sandbox_process

POLL_FIRST, POLL_GROWTH = 0.05, 1.6  # seconds to a job's first poll, and their growth, as in bulkimg
CONCURRENCIES = (64, 256)


class Measured(NamedTuple):
    """Requests and rows a second at the server, polls for each row, microseconds of processor time for each row."""

    requests: float
    rows: float
    polls: float
    cpu: float


def measure(run: Callable[[Server, Path], None], rows: int) -> Measured:
    """Measure one process that sends all rows to a sandbox of its own."""
    with sandbox_process("--images", str(rows)) as server, tempfile.TemporaryDirectory(prefix="bulkimg-jobs-") as where:
        manifest = Path(where) / "m.csv"
        manifest.write_text("uuid,name,platform\n" + "".join(f"{u},new-{u[:8]},Linux\n" for u in server.images()))
        before = _seconds_of_children()
        run(server, manifest)
        cpu = _seconds_of_children() - before
        seen = server.requests()
        changed = sum(image["name"].startswith("new-") for image in server.images().values())
    assert changed == rows, f"{changed} of {rows} images are changed"
    took = seen[-1]["at"] - seen[0]["at"]
    polls = sum("/api-jobs/" in request["path"] for request in seen)
    return Measured(len(seen) / took, rows / took, polls / rows, cpu / rows * 1e6)


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bulkimg(server: Server, manifest: Path, concurrency: int) -> None:
    command = [sys.executable, "-m", "bulkimg", "run", str(manifest), "--yes", "--no-survey", "--no-adaptive"]
    command += ["--rate", "unlimited", "--progress", "none", "-q", "--json", "--concurrency", str(concurrency)]
    command += ["--runs-dir", str(manifest.parent / "runs")]
    environment = {**os.environ, "BULKIMG_SESSION": server.session, "BULKIMG_ENDPOINT": server.url}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def bare(server: Server, manifest: Path, concurrency: int) -> None:
    command = [sys.executable, "-m", "tests.bench.jobs", "bare", str(manifest), str(concurrency)]
    subprocess.run([*command, server.url, server.session], check=True, cwd=ROOT)


class Loop:
    """The bare loop: no rate, no ledger, and only the status is checked."""

    def __init__(self, session: Any, url: str, token: str, results: TextIO) -> None:
        self._session, self._url, self._results = session, f"{url}/zstack/v1", results
        self._headers = {"Authorization": f"OAuth {token}", "Content-Type": "application/json;charset=UTF-8"}

    async def work(self, rows: Iterator[dict[str, str]]) -> None:
        for row in rows:
            image = row.pop("uuid")
            status = await self._change(image, json.dumps({"updateImage": row}).encode())
            self._results.write(json.dumps({"uuid": image, "http_status": status}) + "\n")

    async def _change(self, image: str, body: bytes) -> int:
        job = uuid.uuid4().hex
        headers = {**self._headers, "X-Job-UUID": job}
        async with self._session.put(f"{self._url}/images/{image}/actions", data=body, headers=headers) as answer:
            await answer.read()
            assert answer.status == 202
        status, delay = 202, POLL_FIRST
        while status == 202:
            await asyncio.sleep(delay)
            delay *= POLL_GROWTH
            async with self._session.get(f"{self._url}/api-jobs/{job}") as answer:
                await answer.read()
                status = answer.status
        assert status == 200
        return status


async def run_bare(manifest: Path, concurrency: int, url: str, token: str) -> None:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    with manifest.open(newline="") as file, manifest.with_suffix(".jsonl").open("w") as results:
        rows = iter(csv.DictReader(file))
        async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
            loop = Loop(session, url, token, results)
            await asyncio.gather(*(loop.work(rows) for _ in range(concurrency)))


Found = Mapping[tuple[str, int], Sequence[Measured]]
PEERS = {"bulkimg": bulkimg, "bare aiohttp loop": bare}


def turns(rows: int, runs: int) -> Found:
    found: dict[tuple[str, int], list[Measured]] = {}
    for turn in range(runs):
        for concurrency in CONCURRENCIES:
            for name, peer in PEERS.items():
                now = measure(lambda server, path, peer=peer, n=concurrency: peer(server, path, n), rows)  # type: ignore[misc]
                found.setdefault((name, concurrency), []).append(now)
                sys.stderr.write(
                    f"turn {turn + 1}: {name}, concurrency {concurrency}: {now.requests:,.0f} requests/s\n"
                )
    return found


def report(found: Found, rows: int) -> str:
    lines = [
        f"{machine()}, `bulkimg sandbox` (zstack dialect) beside it on the same cores; {rows:,} rows, `--rate unlimited --no-survey",
        f"--no-adaptive`, {len(next(iter(found.values())))} alternating turns, medians; a ratio is the median of those of each turn. `python -m tests.bench.jobs`",
        f"prints this. The loop polls first after {POLL_FIRST * 1000:g} ms, then {POLL_GROWTH:g} times as late, and so does bulkimg.",
        "",
        "| | concurrency | requests/s | rows/s | polls a row | CPU µs/row | bulkimg is × as fast (requests/s) | (rows/s) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, concurrency), these in found.items():
        ours = found["bulkimg", concurrency]
        middle = Measured(*(statistics.median(column) for column in zip(*these, strict=True)))
        beside = [statistics.median(a[n] / b[n] for a, b in zip(ours, these, strict=True)) for n in (0, 1)]
        lines.append(
            f"| {name} | {concurrency} | {middle.requests:,.0f} | {middle.rows:,.0f} | {middle.polls:.2f} | {middle.cpu:,.0f} "
            f"| {beside[0]:.2f} | {beside[1]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="write the section of RESULTS.md")
    asked = parser.parse_args()
    text = report(turns(asked.rows, asked.runs), asked.rows)
    print(text)
    if asked.keep:
        keep("Jobs: 202 and polls", text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["bare"]:
        import uvloop

        uvloop.run(run_bare(Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:6]))
    else:
        main()
