"""Spread a test's work over new processes, so that nothing of one share affects another."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Share = TypeVar("Share")
Found = TypeVar("Found")


def in_processes(work: Callable[[Share], Found], shares: Sequence[Share], workers: int = 2) -> list[Found]:
    """Return the results of all shares, in order. One worker is this process."""
    if workers == 1:
        return [work(share) for share in shares]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, shares))
