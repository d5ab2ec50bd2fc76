"""Set up a process of bulkimg: its event loop, its open files, no core dump."""

import asyncio
import contextlib
import ctypes
import math
import os
import resource
import sys
from collections.abc import Callable

from bulkimg.errors import UsageError

OTHER_FILES = 32  # open files besides the connections; 23 were counted, and the end of a run opens a few more
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def leave_no_core() -> None:
    """Forbid core dumps: a crash must not write credentials to a file, and no other process may read this memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # The limit has no effect if cores go to a program; prctl has.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def allow_files(concurrency: int) -> None:
    """Raise the limit of open files to one connection for every row in flight. Raises UsageError if the system refuses.

    Otherwise rows would wait for connections that cannot be made, and libuv ends the process if it cannot make a pipe.
    """
    needed = concurrency + OTHER_FILES
    hard = open_files(needed)
    if hard < needed:
        fewer = f"lower --concurrency to {hard - OTHER_FILES:g}, or " if hard > OTHER_FILES else ""
        rows = "1 row in flight" if concurrency == 1 else f"{concurrency} rows in flight"
        raise UsageError(
            f"too few open files: {rows} need {needed}, but the system allows {hard:g}; "
            f"{fewer}raise the limit (ulimit -n), then resume the run"
        )


def open_files(needed: int) -> float:
    """Raise the limit of open files to so many, or leave it if the system does not allow them. Returns what it allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = math.inf if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < needed <= allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return allowed


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop if it is installed: it needs a third less CPU time for each request."""
    try:
        import uvloop  # not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def give_way() -> None:
    """Let every other process of this machine go first. For those who only look."""
    with contextlib.suppress(OSError):
        os.nice(10)
