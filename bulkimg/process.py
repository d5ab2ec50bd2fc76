"""Set up a process of ours: its event loop, its open files, no core dump."""

import asyncio
import ctypes
import resource
import sys
from collections.abc import Callable

from bulkimg.errors import UsageError

OTHER_FILES = 32  # open files next to the connections; 23 were counted, and the end of a run opens a few more
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def leave_no_core() -> None:
    """A crash must not write the credentials in our memory to a file, nor another process of this user read them."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # The limit does not count where cores go to a program; this does.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def allow_files(concurrency: int) -> None:
    """Raise our own limit of open files to a connection for every row in flight. UsageError where the system does not let us.

    Otherwise rows would wait for connections that cannot be made, and libuv ends the process where it cannot make a pipe.
    """
    needed = concurrency + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        fewer = f"lower --concurrency to {hard - OTHER_FILES}, or " if hard > OTHER_FILES else ""
        rows = "1 row in flight" if concurrency == 1 else f"{concurrency} rows in flight"
        raise UsageError(
            f"too few open files: {rows} need {needed}, but the system allows {hard}; "
            f"{fewer}raise the limit (ulimit -n), then resume the run"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed: a third less CPU a request."""
    try:
        import uvloop  # not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
