"""Hand out evenly spaced slots for requests, to one process or to all processes that send to one target.

The algorithm is the generic cell rate algorithm (ITU-T I.371, Annex A). Nearly all its state is the time of the last
slot, so the state fits into a file that many processes share. A process takes a slot only for a request that could go
out now at its own rate. So an idle process takes no slots from the others, two busy processes take turns, and a slow
process does not slow a fast one down.

The file is safe for these reasons. It is read and written under a lock that the kernel frees when its holder dies. No
process takes a slot in the future, so a process that dies leaves no gap. Waiting for the lock is bounded: if a stopped
process holds it, the others continue at their own rate. The clock is the machine's own (CLOCK_MONOTONIC), and the file
is in a place that a restart of the machine empties.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import stat
import struct
import tempfile
import time
from pathlib import Path
from typing import Protocol

CATCH_UP = 0.010  # seconds for which a slot that could not be taken in time stays valid
CATCH_UP_FAST = 0.020  # the same at 200 slots a second and more, where a busy machine misses many of them
FAST = 0.0052  # seconds between two slots at that rate
RESTED = 0.5  # seconds without a slot after which missed slots are dropped
FORGET = 7 * 86400.0  # seconds after which the file of an unused target is removed
FARTHEST = 1.0  # seconds; a last slot further in the future than this is not valid
SOONEST = 0.0005  # seconds; uvloop counts whole milliseconds, so a shorter wait is no wait
BUSY = 0.001  # seconds until the next try to take the lock
DEAF = 0.1  # seconds of such tries; a holder that runs keeps the lock for microseconds
_KEPT = struct.Struct("<dd")


class Slots(Protocol):
    """Give out slots.

    `take(now, spacing)` returns 0 if a request may go out now, at least `spacing` seconds after the last slot. The slot
    is then taken. Otherwise it takes nothing and returns the seconds until the next try.
    """

    def take(self, now: float, spacing: float) -> float: ...
    def close(self) -> None: ...


def due(last: float, now: float, spacing: float) -> float:
    """Return the time of the slot after the last one, in seconds of the clock."""
    slot = last + spacing
    if spacing > FAST:
        return max(slot, now - CATCH_UP)
    return now if now - slot > RESTED else max(slot, now - CATCH_UP_FAST)


class OwnSlots:
    """The slots of this process alone."""

    def __init__(self) -> None:
        self._last = -math.inf

    def take(self, now: float, spacing: float) -> float:
        slot = due(self._last, now, spacing)
        if slot > now + SOONEST:
            return slot - now
        self._last = slot
        return 0.0

    def close(self) -> None:
        pass


class SharedSlots:
    """The slots of all processes of this user on this machine that send to the same target.

    Raises OSError if there is no safe place for the file. Processes of other users or in other containers do not share
    it.
    """

    def __init__(self, target: str, place: Path | None = None) -> None:
        self._place = place or _place()
        self._path = self._place / hashlib.sha256(target.encode()).hexdigest()[:32]
        _check(self._place)
        self._file = self._open()
        self._deaf_since: float | None = None
        _sweep(self._place)

    def take(self, now: float, spacing: float) -> float:
        if not self._lock():
            self._deaf_since = self._deaf_since or now
            return 0.0 if now - self._deaf_since > DEAF else BUSY
        self._deaf_since = None
        try:
            last, theirs = self._read(now)
            slot = due(last, now, min(spacing, theirs))  # the faster of two processes sets the spacing
            if slot > now + SOONEST:
                return slot - now
            os.pwrite(self._file, _KEPT.pack(slot, spacing), 0)
            return 0.0
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._file)

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _read(self, now: float) -> tuple[float, float]:
        """Return the last slot and the spacing of the process that took it.

        Content that bulkimg did not write is ignored.
        """
        kept = os.pread(self._file, _KEPT.size, 0)
        last, spacing = _KEPT.unpack(kept) if len(kept) == _KEPT.size else (0.0, 0.0)
        return (last, spacing) if 0 <= last < now + FARTHEST and 0 < spacing < math.inf else (0.0, math.inf)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def shared_slots(target: str) -> Slots:
    """Return the shared slots of the target, or this process's own if the machine has no safe place for the file."""
    try:
        return SharedSlots(target)
    except OSError:
        return OwnSlots()


def _place() -> Path:
    """Return the folder of the files.

    It does not depend on the environment, so a shell and cron use the same one. It is in memory if possible, so a
    restart of the machine empties it.
    """
    memory = Path("/dev/shm")  # noqa: S108 - _check() refuses a folder that is not ours alone
    return (memory if memory.is_dir() else Path(tempfile.gettempdir())) / f"bulkimg-pace-{os.getuid()}"


def _check(place: Path) -> None:
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{place} is not a folder of ours alone")


def _sweep(place: Path) -> None:
    """Remove the files of unused targets, once a day."""
    last = place / ".swept"
    with contextlib.suppress(OSError):
        if time.time() - last.stat().st_mtime < FORGET / 7:
            return
    last.touch(mode=0o600)
    for path in place.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGET:
                path.unlink()
