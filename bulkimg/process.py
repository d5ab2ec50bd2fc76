"""Set up a process of ours: its event loop, its open files, no core dump."""

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable

from bulkimg.errors import UsageError

OTHER_FILES = 32  # open files next to the connections; 23 were counted, and the end of a run opens a few more
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_DUMPABLE = 4


def end_with(parent: int) -> None:
    """Be killed when the process that started us ends, however it ends and even while we are stopped; at once where it has.

    To the kernel it is the thread that started us: the one that the run's event loop is in, which outlives us in any case.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


def leave_no_core() -> None:
    """A crash must not write the credentials in our memory to a file, nor another process of this user read them."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # The limit does not count where cores go to a program; this does.
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def allow_files(concurrency: int, processes: int = 1) -> None:
    """A connection for every row in flight, and a pipe for every other process: raise our own limit as far as the system lets
    us. UsageError where that is not enough.

    Otherwise rows would wait for connections that cannot be made, and libuv ends the process where it cannot make a pipe.
    """
    others = OTHER_FILES + (processes - 1)
    needed = concurrency + others
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < needed:
        fewer = f"lower --concurrency to {hard - others}, or " if hard > others else ""
        rows = "1 row in flight" if concurrency == 1 else f"{concurrency} rows in flight"
        also = f" and {processes} processes" if processes > 1 else ""
        raise UsageError(
            f"too few open files: {rows}{also} need {needed}, but the system allows {hard}; "
            f"{fewer}raise the limit (ulimit -n), then resume the run"
        )
    raise_files(needed)


def raise_files(needed: int) -> None:
    """Our own limit of open files, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop where it is installed: a third less CPU a request."""
    try:
        import uvloop  # not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
