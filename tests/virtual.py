"""An event loop with virtual time: half an hour passes as fast as its events are handled."""

import asyncio
import contextlib
import selectors
from collections.abc import Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

from asyncio_throttle import throttler

T = TypeVar("T")


class Stuck(Exception):
    """Every task waits, and no event will come."""


class _Selector(selectors.DefaultSelector):
    """Advance the virtual time instead of waiting."""

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
    """An event loop whose time begins at 0 and passes only while every task sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


@contextlib.contextmanager
def virtual_throttler(loop: VirtualLoop) -> Iterator[None]:
    """Replace the time in asyncio-throttle's module. All our own code takes the time as an argument."""
    real = throttler.time
    throttler.time = SimpleNamespace(monotonic=loop.time)
    try:
        yield
    finally:
        throttler.time = real


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time. Raises Stuck if the coroutine can never end."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, virtual_throttler(loop):
        return runner.run(work)
