"""T41 and a part of T40: the rate as the server counts it, and a manifest of a million rows."""

import random
import tempfile
import time
from pathlib import Path

from tests.battery.report import Record
from tests.conftest import Cli
from tests.cost import cost
from tests.stamped import stamped_sandbox
from tests.windows import most_within

RATES = ((100, 1000), (1000, 5000))  # requests a second, rows
BUNCHED = 2  # requests above the cap: senders that are stopped between their last check and the write


def pace(dialect: str, rate: int, rows: int) -> Record:
    """Run at a rate. It fails if any second holds more than the cap, or if less than 95 % of the cap is reached.

    What is reached counts from a second after the first PUT: nothing is sent while the plan is made, and a run begins with
    few rows in flight.
    """
    begun = time.monotonic()
    with stamped_sandbox(images=rows, dialect=dialect) as server, tempfile.TemporaryDirectory() as place:
        cli = Cli(Path(place))
        cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},r\n" for uuid in server.images()))
        cli.at(server)("run", "m.csv", "--yes", "--rate", f"{rate}/s", "--concurrency", "64", "--progress", "none")
        requests = server.requests()
    requests.sort(key=lambda request: request["at"])
    times = [request["at"] for request in requests]
    begun_at = next(request["at"] for request in requests if request["method"] == "PUT")
    busy = [at for at in times[: int(len(times) * 0.9)] if at > begun_at + 1]  # the last requests wait for jobs
    reached = (len(busy) - 1) / (busy[-1] - busy[0]) / rate
    most = most_within(1.0, times)
    failed = int(most > rate + BUNCHED or reached < 0.95)
    notes = f"most in any second {most}, reached {reached:.1%} of the rate"
    test = f"--rate {rate}/s, {dialect}"
    return Record("T41", test, len(times), failed, "requests", notes, time.monotonic() - begun)


def million(rows: int = 1_000_000) -> Record:
    """Run `bulkimg check` on a million rows: seconds, and its peak memory."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as place:
        with (Path(place) / "m.csv").open("w") as file:
            file.write("uuid,name,description,platform,virtio,userTags\n")
            for n in range(rows):
                texts = f"ubuntu-22.04-server-web-{n:07d},golden image of the platform team number {n}"
                file.write(f"{rng.getrandbits(128):032x},{texts},Linux,true,env=prod;team=web\n")
        took = cost(["check", "m.csv"], 0, Path(place))
    notes = f"{took.wall:.0f} s, {took.cpu:.0f} s of processor, at most {took.peak / 1e6:.0f} MB"
    return Record("T40", "check of a manifest", rows, 0, "rows", notes, took.wall)


def load(rows: int) -> list[Record]:
    """Run the large manifest first: its memory is the largest child's, and the sandbox is larger."""
    first = million(rows)
    return [first, *(pace(dialect, rate, n) for dialect in ("documented", "zstack") for rate, n in RATES)]
