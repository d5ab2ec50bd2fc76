"""Be workers of a Dask cluster that differ from each other. Started as a program, without bulkimg in its memory.

    strangers.py ADDRESS KIND…    one process for each KIND; what the kind `good` sends and gets is in good.bytes

They are forks of one process, which has imported Dask: that is quicker than as many `dask worker`.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Nanny, Worker  # noqa: F401 - imports what a fork needs
from tornado.iostream import IOStream, SSLIOStream

ACCOUNT = {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "password"}


class Missing:
    """Finds no bulkimg, as where it is not installed."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "bulkimg":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def become(kind: str) -> None:
    os.environ.update(
        {
            "credentials": {},
            "account": {"BULKIMG_ACCOUNT": "intruder", "BULKIMG_PASSWORD": "password"},
            "endpoint": {**ACCOUNT, "BULKIMG_ENDPOINT": "http://127.0.0.1:1"},
        }.get(kind, ACCOUNT)
    )
    if kind == "bulkimg":
        sys.meta_path.insert(0, Missing)
    elif kind == "version":
        import bulkimg

        bulkimg.__version__ = "0.0.1"
    elif kind == "good":
        record()


def record() -> None:
    """Write down every byte of this process's connections, before it is encrypted and after it is decrypted."""
    log = Path("good.bytes").open("ab", buffering=0)  # noqa: SIM115 - until the end of the process

    def recorded(method: Callable[..., Any], *, reads: bool) -> Callable[..., Any]:
        def call(self: Any, data: Any) -> Any:
            if not reads:
                log.write(bytes(data))
            found = method(self, data)
            if reads and found:
                log.write(bytes(data[:found]))
            return found

        return call

    for stream in (IOStream, SSLIOStream):
        stream.write_to_fd = recorded(stream.write_to_fd, reads=False)  # type: ignore[method-assign]
        stream.read_from_fd = recorded(stream.read_from_fd, reads=True)  # type: ignore[method-assign]


async def serve(address: str, kind: str) -> None:
    worker = await Worker(address, nthreads=1, name=kind, local_directory=kind)
    await worker.finished()


def main(address: str, kinds: list[str]) -> None:
    for kind in kinds[1:]:
        if not os.fork():
            kinds = [kind]
            break
    become(kinds[0])
    asyncio.run(serve(address, kinds[0]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
