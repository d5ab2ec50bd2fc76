"""What people use today, each on the same rows: a bare aiohttp loop, requests with threads. Run as `python -m … NAME URL CSV N`.

Each prints the seconds between its first request and its last answer.
"""

import asyncio
import csv
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.nginx import FIELDS

BODY = json.dumps({"updateimage": FIELDS}).encode()
HEADERS = {"Authorization": "OAuth 0123456789abcdef0123456789abcdef", "Content-Type": "application/json;charset=UTF-8"}


def uuids(path: str) -> list[str]:
    with Path(path).open(newline="") as file:
        return [row["uuid"] for row in csv.DictReader(file)]


async def bare_aiohttp(url: str, rows: list[str], concurrency: int) -> None:
    """No rate, no ledger, no checks but the status: what the HTTP client alone costs."""
    import aiohttp

    left = iter(rows)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def work() -> None:
            for uuid in left:
                async with session.put(f"{url}/zstack/v1/images/{uuid}/actions", data=BODY, headers=HEADERS) as answer:
                    await answer.read()
                    assert answer.status == 200

        await asyncio.gather(*(work() for _ in range(concurrency)))


def threads_with_requests(url: str, rows: list[str], concurrency: int) -> None:
    """A session a thread, as its documentation recommends."""
    import threading

    import requests

    local = threading.local()

    def send(uuid: str) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        answer = local.session.put(f"{url}/zstack/v1/images/{uuid}/actions", data=BODY, headers=HEADERS)
        assert answer.status_code == 200

    with ThreadPoolExecutor(concurrency) as pool:
        for _ in pool.map(send, rows):
            pass


def main() -> None:
    name, url, path, concurrency = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    rows = uuids(path)
    begun = time.perf_counter()
    if name == "aiohttp":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(bare_aiohttp(url, rows, concurrency))
    else:
        threads_with_requests(url, rows, concurrency)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main()
