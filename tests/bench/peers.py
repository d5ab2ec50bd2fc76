"""Other ways to do the job, on the same rows: a bare aiohttp loop, requests with threads.

Run them as `python -m … NAME URL CSV N`. Each does the user's job: it reads the CSV file, sends a PUT for each row with
the row's own values, and writes one line of JSON for each answer to a file next to the CSV file. It prints the seconds
between its first request and its last answer.
"""

import asyncio
import csv
import importlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TextIO

HEADERS = {"Authorization": "OAuth 0123456789abcdef0123456789abcdef", "Content-Type": "application/json;charset=UTF-8"}


class Change(NamedTuple):
    uuid: str
    body: bytes


def changes(path: Path) -> Iterator[Change]:
    """Return one change for each row of the CSV file."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            uuid = row.pop("uuid")
            values = {name: value == "true" if value in ("true", "false") else value for name, value in row.items()}
            yield Change(uuid, json.dumps({"updateimage": values}).encode())


def _line(uuid: str, status: int) -> str:
    return json.dumps({"uuid": uuid, "status": "updated" if status == 200 else "failed", "http_status": status}) + "\n"


async def bare_aiohttp(url: str, rows: Iterator[Change], results: TextIO, concurrency: int) -> None:
    """Send with aiohttp: no rate, no ledger, and only the status is checked."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def work() -> None:
            for uuid, body in rows:
                async with session.put(f"{url}/zstack/v1/images/{uuid}/actions", data=body, headers=HEADERS) as answer:
                    await answer.read()
                    assert answer.status == 200
                    results.write(_line(uuid, answer.status))

        await asyncio.gather(*(work() for _ in range(concurrency)))


def threads_with_requests(url: str, rows: Iterator[Change], results: TextIO, concurrency: int) -> None:
    """Send with one session for each thread, as the documentation of requests recommends."""
    import threading

    import requests

    local = threading.local()

    def send(change: Change) -> str:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        target = f"{url}/zstack/v1/images/{change.uuid}/actions"
        answer = local.session.put(target, data=change.body, headers=HEADERS)
        assert answer.status_code == 200
        return _line(change.uuid, answer.status_code)

    with ThreadPoolExecutor(concurrency) as pool:
        for line in pool.map(send, rows):
            results.write(line)


def main() -> None:
    name, url, path, concurrency = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    importlib.import_module(name)  # not a part of sending
    with path.with_suffix(".jsonl").open("w") as results:
        begun = time.perf_counter()
        if name == "aiohttp":
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(bare_aiohttp(url, changes(path), results, concurrency))
        else:
            threads_with_requests(url, changes(path), results, concurrency)
        print(time.perf_counter() - begun)


if __name__ == "__main__":
    main()
