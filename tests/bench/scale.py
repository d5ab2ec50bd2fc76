"""Measure the cost of a row by the number of rows, with a stub server: `python -m tests.bench.scale [ROWS …]`."""

import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from bulkimg import Session
from bulkimg.engine.connect import Ports
from bulkimg.engine.create import create_run
from bulkimg.engine.execute import Engine
from bulkimg.engine.reopen import resume_run
from bulkimg.layers import flags_layer, merge
from bulkimg.ledger import RunDirectory, claims, stats
from bulkimg.zstack import Answer
from tests.bench.pictures import lines
from tests.bench.sections import HERE, keep, machine

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)  # the last one takes half an hour


class Stub:
    """Answer at once as a server that has executed everything."""

    async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer:
        assert await begin()
        uuid = request.split(b"/actions", 1)[0][-32:]
        await asyncio.sleep(0)
        return Answer(200, b'{"inventory":{"uuid":"%b","name":"new","platform":"Linux"}}' % uuid)

    async def close(self) -> None:
        pass


def run(rows: int) -> None:
    """Measure a process of its own with its memory, and print JSON."""
    with tempfile.TemporaryDirectory(prefix="bulkimg-scale-") as place:
        rng = random.Random(1)
        manifest = Path(place) / "m.csv"
        with manifest.open("w") as file:
            file.write("uuid,name,platform\n")
            file.writelines(f"{rng.getrandbits(128):032x},new,Linux\n" for _ in range(rows))
        options = {"endpoint": "http://stub:8080", "runs_dir": f"{place}/runs", "rate": "unlimited", "concurrency": 64}
        settings = merge(flags_layer({**options, "survey": False, "action_key": "updateImage", "adaptive": False}))
        begun = time.monotonic()
        opened = create_run(str(manifest), settings)
        read = time.monotonic()
        ports = Ports(connect=lambda settings, now: Stub())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            summary = runner.run(Engine(opened, Session("5" * 32), lambda event: None, ports).execute())
        ended = time.monotonic()
        directory = opened.directory.path
        size = opened.directory.ledger.stat().st_size
        opened.close()
        assert summary.counts["updated"] == rows, summary
        reopening = time.monotonic()
        again = resume_run(RunDirectory(directory), settings)
        scan = time.monotonic()
        left = stats.rows_to_do(again.ledger), claims.claim(again.ledger, 0, 256, lambda: "", 0.0)
        scanned = time.monotonic()
        assert left == (0, []), left
        again.close()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([read - begun, ended - read, memory, size / rows, scan - reopening, scanned - scan]))


def main(sizes: list[int]) -> None:
    found = {}
    for rows in sizes:
        command = [sys.executable, "-m", "tests.bench.scale", "one", str(rows)]
        found[rows] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        sys.stderr.write(f"{rows:,}: {found[rows]}\n")
    table = [
        f"| {rows:,} | {read:.1f} | {sending:.1f} | {(read + sending) / rows * 1e6:.0f} | {memory:.0f} | {size:.0f} | {summing:.1f} | {scan:.1f} |"
        for rows, (read, sending, memory, size, summing, scan) in found.items()
    ]
    points = [(rows / 1000, values[2]) for rows, values in found.items()]
    lines(HERE / "memory.svg", "Memory over rows", "thousand rows", "MB at most", {"peak memory": points})
    text = [
        f"{machine()}; `--no-survey`, concurrency 64, a transport that answers at once. `python -m tests.bench.scale` prints this;",
        "«Opening» is what `resume` does before it goes on, with all check sums; the scan is its search for rows without an outcome, when there are none.",
        "",
        "| rows | s reading and checking | s sending and writing results | µs a row | MB at most | ledger bytes a row | s opening again | s scan |",
        "|---|---|---|---|---|---|---|---|",
        *table,
        "",
        "![memory over rows](memory.svg)",
    ]
    keep("What a row costs", "\n".join(text))


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        run(int(sys.argv[2]))
    else:
        main([int(size) for size in sys.argv[1:]] or list(SIZES))
