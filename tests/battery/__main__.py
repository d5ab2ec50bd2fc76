"""`make battery`: what takes longer than `make test`. Prints its figures and keeps them in tests/battery/RESULTS.md.

Kills at random moments with resumes that may be killed too, in both dialects; the rate as the server
counts it; a manifest of a million rows.
"""

import argparse
import json
import os
import platform
import random
import re
import resource
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.conftest import Cli, Server, sandbox_process
from tests.pace.test_pace import most_in

RESULTS = Path(__file__).with_name("RESULTS.md")
ROWS = 300
CONCURRENCY = 16


@dataclass
class Kills:
    """What a number of killed runs came to."""

    dialect: str
    trials: int = 0
    crashes: int = 0
    lost: int = 0  # rows without exactly one outcome
    wrong: int = 0  # `updated` that the server does not show, or another status for what it does show
    unrecorded: int = 0  # PUTs that the ledger does not know of
    most_repeated: int = 0  # PUTs of one run beyond one a row, per crash

    @property
    def line(self) -> str:
        bound = f"< {3 / self.trials:.1%}" if self.trials else "-"
        return (
            f"| kill -9 at random times, {self.dialect} | {self.trials} runs × {ROWS} rows, {self.crashes} kills "
            f"| lost {self.lost}, wrong {self.wrong}, unrecorded PUTs {self.unrecorded} | {bound} "
            f"| most PUTs repeated per crash: {self.most_repeated} (at most {CONCURRENCY} were in flight) |"
        )


def kill_trial(cli: Cli, server: Server, rng: random.Random, mark: str, found: Kills) -> None:
    wanted = {uuid: f"{mark}-{n}" for n, uuid in enumerate(sorted(server.images()))}
    cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},{name}\n" for uuid, name in wanted.items()))
    before = len(server.puts())
    command = ["run", "m.csv", "--yes", "--rate", "unlimited", "--concurrency", str(CONCURRENCY), "--progress", "none"]
    resume = ["resume", "last", "--rate", "unlimited", "--progress", "none"]
    crashes = 0
    for _ in range(rng.choice((1, 1, 2, 3))):
        process = cli.at(server).start(*command)
        time.sleep(0.45 + rng.random() * 1.2)
        process.kill()
        process.communicate(timeout=30)
        crashes += 1
        runs = json.loads(cli("runs", "--json").out)
        if runs and runs[-1]["state"] in {"interrupted", "done", "ready"}:
            command = resume
    cli.at(server)(*command, code=None)
    found.trials += 1
    found.crashes += crashes
    check(cli, server, wanted, server.puts()[before:], crashes, found)


def check(
    cli: Cli, server: Server, wanted: dict[str, str], puts: list[dict[str, str]], crashes: int, found: Kills
) -> None:
    """By the results, the server's log and table, and the ledger read with plain SQL."""
    results = cli.results()
    images = server.images()
    seen = Counter(result["uuid"] for result in results)
    found.lost += sum(seen[uuid] != 1 for uuid in wanted)
    for result in results:
        applied = images[result["uuid"]]["name"] == wanted[result["uuid"]]
        found.wrong += (result["status"] == "updated") != applied
    db = sqlite3.connect(f"file:{cli.run_dir() / 'run.db'}?mode=ro", uri=True)
    known = dict(db.execute("SELECT lower(hex(uuid)), count(*) FROM attempt JOIN row USING (ordinal) GROUP BY 1"))
    db.close()
    sent = Counter(re.findall("[0-9a-f]{32}", put["path"])[0] for put in puts)
    found.unrecorded += sum(count > known.get(uuid, 0) for uuid, count in sent.items())
    found.most_repeated = max(found.most_repeated, -(-(len(puts) - len(wanted)) // crashes))


def kills(dialect: str, trials: int, seed: int) -> Kills:
    rng = random.Random(f"{seed} {dialect}")
    found = Kills(dialect)
    arguments = ("--images", str(ROWS), "--dialect", dialect, "--workers", "8", "--service-time", "15")
    with sandbox_process(*arguments) as server:
        for trial in range(trials):
            with tempfile.TemporaryDirectory() as place:
                kill_trial(Cli(Path(place)), server, rng, f"t{trial}", found)
            sys.stderr.write(f"\r{dialect}: {trial + 1}/{trials}")
    sys.stderr.write("\n")
    return found


def rate_line(dialect: str, rate: int, rows: int) -> str:
    with sandbox_process("--images", str(rows), "--dialect", dialect) as server, tempfile.TemporaryDirectory() as place:
        cli = Cli(Path(place))
        cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},r\n" for uuid in server.images()))
        cli.at(server)("run", "m.csv", "--yes", "--rate", f"{rate}/s", "--concurrency", "64", "--progress", "none")
        times = [request["at"] for request in server.requests()]
    busy = times[: int(len(times) * 0.9)]  # the last requests wait for jobs, not for the pace
    reached = (len(busy) - 1) / (busy[-1] - busy[0]) / rate
    return (
        f"| --rate {rate}/s, {dialect} | {len(times):,} requests | most in any second {most_in(1.0, times)} "
        f"| - | reached {reached:.1%} of the rate |"
    )


def million_line() -> str:
    """`bulkimg check` of a million rows: seconds and the most memory it held."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as place:
        with (Path(place) / "m.csv").open("w") as file:
            file.write("uuid,name,description,platform,virtio,userTags\n")
            for n in range(1_000_000):
                texts = f"ubuntu-22.04-server-web-{n:07d},golden image of the platform team number {n}"
                file.write(f"{rng.getrandbits(128):032x},{texts},Linux,true,env=prod;team=web\n")
        begun = time.perf_counter()
        Cli(Path(place))("check", "m.csv")
        seconds = time.perf_counter() - begun
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # the largest child so far
    return f"| check of a manifest of 1,000,000 rows | 1 | - | - | {seconds:.0f} s, {memory:.0f} MB |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30, help="trials per dialect")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    lines = [
        "# Battery",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {asked.seed}. "
        "`make battery` prints this.",
        "",
        "| test | trials | failures | 95 % bound (3/N) | also |",
        "|---|---|---|---|---|",
    ]
    lines.append(million_line())
    lines += [kills(dialect, asked.kills, asked.seed).line for dialect in ("documented", "zstack")]
    lines += [
        rate_line(dialect, rate, rows)
        for dialect in ("documented", "zstack")
        for rate, rows in ((100, 1000), (1000, 5000))
    ]
    text = "\n".join([*lines, ""])
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
