"""Processes inside one event loop with virtual time, which can be stopped, woken and killed as SIGSTOP, SIGCONT and SIGKILL do.

A process is a context: whatever its first task starts belongs to it. What a stopped process would do waits, its timers
too, while time passes for all others. What a killed process would do is never done, not even its `finally`.
"""

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from tests.virtual import VirtualLoop

_OWNER: contextvars.ContextVar["SimProcess | None"] = contextvars.ContextVar("owner", default=None)


class SimProcess:
    """One process of a simulation."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_stopped = False
        self.is_dead = False
        self.is_buried = False  # its tasks are cancelled to free what they hold; they must reach nobody any more
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in order
        self._waiting: list[Callable[[], object]] = []
        self.context = contextvars.copy_context()
        self.context.run(_OWNER.set, self)

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self.context)

    def stop(self) -> None:
        self.is_stopped = True

    def wake(self) -> None:
        """Let it continue. What came meanwhile happens in its order."""
        self.is_stopped = False
        if self.is_dead and not self.is_buried:
            return
        waiting, self._waiting = self._waiting, []
        for step in waiting:
            asyncio.get_running_loop().call_soon(step, context=self.context)

    def kill(self) -> None:
        self.is_dead = True

    def step(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Execute one callback, later if the process is stopped. If it is dead, at its burial, where it can do nothing."""
        if (self.is_stopped or self.is_dead) and not self.is_buried:
            self._waiting.append(lambda: callback(*args))
        else:
            callback(*args)

    async def bury(self) -> None:
        """End the tasks that a kill has left."""
        self.kill()
        self.is_buried = True
        self.wake()
        while rest := [task for task in self.tasks if not task.done()]:
            for task in rest:  # again where one has taken the first for the end of what it waited for
                task.cancel()
            await asyncio.wait(rest, timeout=1.0)
        self.tasks.clear()


class ProcessLoop(VirtualLoop):
    """A virtual loop that hands the callbacks of a process to it."""

    def __init__(self) -> None:
        super().__init__()
        self.set_task_factory(_noted)

    def _call_soon(self, callback: Any, args: Any, context: Any) -> Any:
        callback, args = _owned(callback, args, context)
        return super()._call_soon(callback, args, context)  # type: ignore[misc] # BaseEventLoop's own

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:  # type: ignore[override]
        callback, args = _owned(callback, args, context)
        return super().call_at(when, callback, *args, context=context)


def _owner(context: contextvars.Context | None) -> SimProcess | None:
    return context.get(_OWNER) if context is not None else _OWNER.get()


def _owned(callback: Any, args: Any, context: Any) -> tuple[Any, Any]:
    owner = _owner(context)
    if owner is None or getattr(callback, "__func__", None) is SimProcess.step:
        return callback, args
    return owner.step, (callback, args)


def _noted(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
    if owner := _owner(more.get("context")):
        owner.tasks[task] = None
        task.add_done_callback(lambda done: owner.tasks.pop(done, None))
    return task


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Let what is started in the block belong to no process."""
    token = _OWNER.set(None)
    try:
        yield
    finally:
        _OWNER.reset(token)


def present() -> SimProcess | None:
    """Return the process whose step this is."""
    return _OWNER.get()
