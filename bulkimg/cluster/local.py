"""Start workers as processes of this machine, in a cluster that only this run can use."""

import asyncio
import logging
import multiprocessing.spawn
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import dask
from distributed import LocalCluster
from distributed.security import Security

# Dask serves status pages over plain HTTP, which every user of the machine can read. These have nothing to show.
_NO_PAGES: dict[str, list[str]] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
_WORKER = "Dask Worker process"  # how the names of its processes begin
_NOT_CLEAN = "ignore:resource_tracker:UserWarning"  # said by a process of Python's, after SIGKILL of this one


@asynccontextmanager
async def local_cluster(workers: int) -> AsyncIterator[LocalCluster]:
    """Yield a cluster of so many processes, to be closed. Raises OSError, RuntimeError, ImportError without cryptography."""
    security = Security.temporary()  # other users of this machine must not reach it
    with _without_main():
        with dask.config.set(_NO_PAGES), _quiet():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tls",
                security=security,
                dashboard_address=None,
                scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL,
                asynchronous=True,
                memory_limit=0,
            )
            starting = asyncio.ensure_future(cluster)
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                await asyncio.wait([starting])  # one that is half started cannot be closed
                await cluster.close()
                raise
        yield cluster


@contextmanager
def _quiet() -> Iterator[None]:
    """Start Python's resource tracker without its warning: semaphores that it finds left over are removed by it."""
    sys.warnoptions.append(_NOT_CLEAN)
    try:
        yield
    finally:
        sys.warnoptions.remove(_NOT_CLEAN)


class _Preparation:
    """What a new worker process gets of this one: all but its main program.

    Python would run that program again in each worker, as it is, unless it begins with `if __name__ == "__main__"`. One
    that calls the library twice would then repeat its first run.
    """

    clusters = 0
    original: Callable[[str], dict[str, Any]] | None = None

    @classmethod
    def data(cls, name: str) -> dict[str, Any]:
        assert cls.original
        found = cls.original(name)
        if cls.clusters and name.startswith(_WORKER):
            # Ctrl-C is for the desk, which lets workers drain. Each is started by a thread of its own, and inherits this.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            found.pop("init_main_from_name", None)
            found.pop("init_main_from_path", None)
        return found


@contextmanager
def _without_main() -> Iterator[None]:
    """Leave the main program out of worker processes. Dask starts a dead worker again, so this holds for the whole run."""
    if _Preparation.original is None:
        _Preparation.original = multiprocessing.spawn.get_preparation_data
        multiprocessing.spawn.get_preparation_data = _Preparation.data
    _Preparation.clusters += 1
    try:
        yield
    finally:
        _Preparation.clusters -= 1
