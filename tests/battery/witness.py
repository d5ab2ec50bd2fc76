"""The witness server as a program, and the object that tests control it with.

The witness writes every request to its own log, synced, before it executes it. The same log says when a change was
applied and when an answer ended. It shares no code with bulkimg and imports none of it.

Lines of the log, by "kind": request (number, connection, arrived, method, path, query, job, scheme, credential's sha256,
body, sha256), applied (request, uuid, job), end (request, how, fault, left), mark (name), outage, recovery. All have `at`
(seconds since the epoch) and `mono` (the monotonic clock, the same for every process of the machine). `arrived` is of that
clock too: when the kernel received the request, however late the witness read it.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.battery.api import ACCOUNT, PASSWORD
from tests.battery.witness_api import WitnessApi
from tests.battery.witness_script import Script
from tests.battery.witness_server import Log, Server

ROOT = Path(__file__).parent.parent.parent
Rules = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Witness:
    """A witness process and access to its state."""

    url: str
    session: str
    pid: int
    path: Path  # of the log

    @property
    def environment(self) -> dict[str, str]:
        """Return the endpoint and a given session."""
        return {"BULKIMG_ENDPOINT": self.url, "BULKIMG_SESSION": self.session}

    @property
    def account(self) -> dict[str, str]:
        """Return the endpoint and an account that logs in."""
        return {"BULKIMG_ENDPOINT": self.url, "BULKIMG_ACCOUNT": ACCOUNT, "BULKIMG_PASSWORD": PASSWORD}

    def log(self, since: str | None = None) -> list[dict[str, Any]]:
        """Return every line so far. `since`: only those after the last mark of that name."""
        whole = self.path.read_bytes().rpartition(b"\n")[0].split(b"\n")  # the last line may be incomplete
        lines = [json.loads(line) for line in whole if line]
        if since is None:
            return lines
        marks = [n for n, line in enumerate(lines) if line["kind"] == "mark" and line["name"] == since]
        return lines[marks[-1] + 1 :]

    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["kind"] == "request"]

    def puts(self) -> list[dict[str, Any]]:
        return [line for line in self.requests() if line["path"].endswith("/actions")]

    def table(self) -> dict[str, dict[str, Any]]:
        return self._ask("GET", "table")  # type: ignore[no-any-return]

    def set_script(self, rules: Rules) -> None:
        """Replace the script. An empty one makes a healthy server."""
        self._ask("PUT", "script", list(rules))

    def reset(self) -> None:
        """Reset the table and drop all jobs. The log continues with a mark `reset`."""
        self._ask("POST", "reset", {})

    def mark(self, name: str) -> None:
        self._ask("POST", "mark", name)

    def forget_sessions(self) -> None:
        """End every session."""
        self._ask("POST", "forget-sessions", {})

    def outage(self, how: str, seconds: float) -> None:
        """Begin an outage (refuse, 503 or silent) that ends by itself. In `refuse`, make no request until then."""
        self._ask("POST", "outage", {"how": how, "seconds": seconds})

    def _ask(self, method: str, what: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_witness/{what}", data=data, method=method)
        request.add_header("Connection", "close")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextlib.contextmanager
def witness(
    place: Path, *, images: int = 100, dialect: str = "zstack", script: Rules = (), **more: Any
) -> Iterator[Witness]:
    """Start a witness on a free port with its log in `place`. It is ended with the block, by its pid.

    `more`: seed, workers, service_ms, and sync=False if speed matters more than a durable log.
    """
    log = place / "witness.jsonl"
    sync = more.pop("sync", True)
    named = {"images": images, "dialect": dialect, "script": json.dumps(list(script)), **more}
    options = [part for name, value in named.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = [
        sys.executable,
        "-m",
        "tests.battery.witness",
        "--log",
        str(log),
        *options,
        *([] if sync else ["--no-sync"]),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        yield Witness(said["url"], said["session"], process.pid, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


async def serve(asked: argparse.Namespace) -> None:
    log = Log(asked.log, sync=asked.sync)
    api = WitnessApi(asked.dialect, asked.images, asked.seed, asked.workers, asked.service_ms / 1000, log.note)
    script = Script(asked.seed)
    script.replace(asked.script)
    server = Server(api, script, log)
    await server.listen()
    print(json.dumps({"url": server.url, "session": api.session}), flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--dialect", choices=("documented", "zstack"), default="zstack")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--script", type=json.loads, default=[])
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--service-ms", type=float, default=0.0)
    parser.add_argument("--no-sync", dest="sync", action="store_false")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
