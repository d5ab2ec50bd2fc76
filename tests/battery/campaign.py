"""T35 and a part of T40: two editors of the same images in many steps, and a plan of a large number of images."""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.battery.report import Record
from tests.battery.stateful import failure
from tests.conftest import Cli, Server, sandbox_process
from tests.journeys.test_editor import IMAGES, steps, with_server


def editors(examples: int, dialect: str) -> Record:
    """Run so many examples of up to 25 steps: plan, apply, undo, and another user's edits between them."""
    begun = time.monotonic()
    steps.clear()
    with sandbox_process("--images", str(IMAGES), "--dialect", dialect) as server:
        broken = failure(with_server(server), examples, steps=25)
    said = ", ".join(f"{name} {count:,}" for name, count in sorted(steps.items())) + (broken and f"; {broken}")
    test = f"two editors of four images, {dialect}"
    return Record("T35", test, sum(steps.values()), int(bool(broken)), "steps", said, time.monotonic() - begun)


def fleet(images: int) -> Record:
    """Export, edit and plan very many images: seconds, requests and memory. Nothing may be sent."""
    begun = time.monotonic()
    with sandbox_process("--images", str(images)) as server, tempfile.TemporaryDirectory() as name:
        cli = Cli(Path(name)).at(server)
        cli("export", "-o", "all.csv", "--fields", "name,platform", "--with-expectations", "--rate", "unlimited")
        exported = time.monotonic() - begun
        _edit(cli.place / "all.csv")
        _peak(cli, "check", "all.csv")
        before = len(server.requests())
        planned = time.monotonic()
        changes, memory = _peak(cli, "plan", "all.csv", "--rate", "unlimited", "--json")
        seconds = time.monotonic() - planned
        requests = _requests_since(server, before)
    actions = changes["changes"]["actions"]
    failed = int(actions != {"update": (images + 1) // 2, "unchanged": images // 2, "conflict": 0, "missing": 0})
    failed += int(requests > images * 600 / 100_000 + 1)
    notes = f"plan {seconds:.0f} s, {requests} requests, at most {memory:.0f} MB; start of the sandbox and export {exported:.0f} s"
    return Record("T40", "plan of a fleet", images, failed, "images", notes, time.monotonic() - begun)


def tagged(images: int, dialect: str) -> Record:
    """Plan with two tags on each of so many images, and count the requests."""
    begun = time.monotonic()
    with (
        sandbox_process("--images", str(images), "--dialect", dialect) as server,
        tempfile.TemporaryDirectory() as name,
    ):
        cli = Cli(Path(name)).at(server)
        cli.write("m.csv", "uuid,userTags\n" + "".join(f"{uuid},a;b\n" for uuid in server.images()))
        cli("run", "m.csv", "--yes", "--rate", "unlimited")
        requests = len(server.requests())
        failed = sum(set(image["_tags"]) != {"a", "b"} for image in server.images().values())
    notes = f"{requests:,} requests, {requests / images:.1f} an image"
    return Record("T40", f"two tags an image, {dialect}", images, failed, "images", notes, time.monotonic() - begun)


def _edit(path: Path) -> None:
    """Give every second image another name."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    for row in rows[1::2]:
        row[1] += "-n"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _peak(cli: Cli, *arguments: str) -> tuple[dict[str, dict[str, dict[str, int]]], float]:
    """Return the command's JSON output, and its peak memory in MB."""
    out = cli.place / "out.json"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bulkimg", *arguments],
            cwd=cli.place,
            env=cli.env(),
            stdout=file,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    text = out.read_text()
    return json.loads(text) if text.startswith("{") else {}, used.ru_maxrss / 1024


def _requests_since(server: Server, before: int) -> int:
    requests = server.requests()[before:]
    assert all(request["method"] == "GET" for request in requests), "a plan sends nothing"
    return len(requests)


def campaign(images: int) -> list[Record]:
    """The large plan first, then two editors and tags, in both dialects."""
    both = ("documented", "zstack")
    stories = [editors(max(1, images // 1000), dialect) for dialect in both]
    return [fleet(images), *stories, *(tagged(max(1, images // 500), dialect) for dialect in both)]
