"""Hand out evenly spaced moments for requests: to one process, or to all that share a target.

It is the generic cell rate algorithm (ITU-T I.371, Annex A): the moment of the last slot is nearly all its state, so
that it fits into a file which many processes share. A process takes a slot only for a request that could go out now by its own
rate: one that is idle takes none from the others, two that are busy take turns, and a slow one does not slow a fast one down.

Why the file is safe: it is read and written under a lock that the kernel frees when its holder dies; no process takes a slot
in the future, so one that dies leaves no gap. Waiting for the lock is bounded: where a stopped process holds it,
the others continue at their own rate. The clock is the machine's own (CLOCK_MONOTONIC), and the file lies where a restart of the
machine empties it.
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

CATCH_UP = 0.010  # seconds: a slot that could not be taken in time is valid for so long
CATCH_UP_FAST = 0.020  # the same from 200 slots a second on, where a busy machine costs many of them
FAST = 0.0052  # seconds between two of them
RESTED = 0.5  # seconds without a slot after which nothing is caught up on
FORGET = 7 * 86400.0  # seconds after which the file of an unused target is removed
FARTHEST = 1.0  # seconds ahead: no slot is taken before its time
SOONEST = 0.0005  # seconds: uvloop counts whole milliseconds, so a shorter wait is none
BUSY = 0.001  # seconds until the lock is asked for again
DEAF = 0.1  # seconds for which that is done; a holder that is alive has it for microseconds
_KEPT = struct.Struct("<dd")


class Slots(Protocol):
    """`take(now, spacing)`: 0 when one request may go out now, `spacing` seconds after the last one, and it is then the last one;
    else the seconds until it may be asked for again, and nothing is taken."""

    def take(self, now: float, spacing: float) -> float: ...
    def close(self) -> None: ...


def due(last: float, now: float, spacing: float) -> float:
    """The moment of the slot after the last one."""
    slot = last + spacing
    if spacing > FAST:
        return max(slot, now - CATCH_UP)
    return now if now - slot > RESTED else max(slot, now - CATCH_UP_FAST)


class OwnSlots:
    """Of this process alone."""

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
    """Of every process of this user on this machine that sends to the same target. OSError where there is no safe place for it.

    A process in a container of its own, or of another user, is not seen.
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
            slot = due(last, now, min(spacing, theirs))  # the faster of two neighbours says how far apart they are
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
        """The last slot, and how far apart the one who took it wants them; anything else than that was not written by us."""
        kept = os.pread(self._file, _KEPT.size, 0)
        last, spacing = _KEPT.unpack(kept) if len(kept) == _KEPT.size else (0.0, 0.0)
        return (last, spacing) if 0 <= last < now + FARTHEST and 0 < spacing < math.inf else (0.0, math.inf)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def shared_slots(target: str) -> Slots:
    """Those of the target; where the machine has no safe place for them, of this process alone."""
    try:
        return SharedSlots(target)
    except OSError:
        return OwnSlots()


def _place() -> Path:
    """The same for a shell and for cron, so not where the environment says; in memory, so of this start of the machine."""
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
