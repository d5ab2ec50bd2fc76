"""This file spreads a test's work over processes of its own, each begun anew, so that nothing of one part leaks into another."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Share = TypeVar("Share")
Found = TypeVar("Found")


def in_processes(work: Callable[[Share], Found], shares: Sequence[Share], workers: int = 2) -> list[Found]:
    """What came of each share, in their order; one worker is this process."""
    if workers == 1:
        return [work(share) for share in shares]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(work, shares))
