"""This file is an event loop whose time is virtual: half an hour passes as fast as its events can be handled."""

import asyncio
import contextlib
import selectors
from collections.abc import Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

from asyncio_throttle import throttler

T = TypeVar("T")


class Stuck(Exception):
    """Everybody waits, and nothing will ever happen."""


class _Selector(selectors.DefaultSelector):
    """Instead of waiting for the time to pass, lets it."""

    def __init__(self, loop: "VirtualLoop") -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None and not (found := super().select(0)):
            raise Stuck
        if timeout:
            self._loop.now += timeout
        return super().select(0) if timeout is not None else found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 and passes only while everybody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


@contextlib.contextmanager
def virtual_throttler(loop: VirtualLoop) -> Iterator[None]:
    """asyncio-throttle takes the time from its module; everything else of ours takes it as an argument."""
    real = throttler.time
    throttler.time = SimpleNamespace(monotonic=loop.time)
    try:
        yield
    finally:
        throttler.time = real


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time; Stuck when it can have none."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, virtual_throttler(loop):
        return runner.run(work)
