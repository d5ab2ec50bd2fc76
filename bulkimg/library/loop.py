"""Plain calls: each has an event loop of its own, or none."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from bulkimg.errors import UsageError
from bulkimg.process import event_loop

T = TypeVar("T")


def wait_for(call: Coroutine[Any, Any, T]) -> T:
    """Run an async verb to its end. Raises UsageError inside a running event loop."""
    try:
        refuse_in_a_loop()
    except UsageError:
        call.close()
        raise
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(call)


def refuse_in_a_loop() -> None:
    """Raise UsageError if an event loop is running here: a plain call would hold it up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError("an event loop is running here; await the async form, such as bulkimg.arun(…)")
