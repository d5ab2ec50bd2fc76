"""This file hands out moments at which requests may go out, evenly spaced: to one process, or to all that share a target.

It is the generic cell rate algorithm (ITU-T I.371, Annex A): one number, the moment of the last slot, tells all there is to
tell, so that it fits into a file which many processes share. A process takes a slot only for a request that is waiting: one that
is idle takes none from the others, and two that are busy take turns.

Why the file is safe: the number is read and written under a lock that the kernel frees when its holder dies; a process that dies
with a slot leaves a gap of one request and no more. Nobody waits for the lock: where a stopped process holds it, the others go on
at their own rate. The clock is the machine's own (CLOCK_MONOTONIC), and the file lies where a restart of the machine empties it.
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
from typing import NamedTuple, Protocol

CATCH_UP = 0.010  # seconds: a slot that nobody could take in time is good for so long
FORGET = 7 * 86400.0  # seconds after which the file of a target that nobody talks to is removed
FARTHEST = 3600.0  # seconds ahead
_MOMENT = struct.Struct("<d")


class Slot(NamedTuple):
    """A moment at which one request may go out, and that of the request before it; seconds of the clock."""

    at: float
    before: float


class Slots(Protocol):
    """`take(now, spacing)`: the next slot, `spacing` seconds after the last one; None when it cannot be told now, to be asked again
    a little later. `give_back` undoes it, if nobody has taken a later one."""

    def take(self, now: float, spacing: float) -> Slot | None: ...
    def give_back(self, slot: Slot) -> None: ...
    def close(self) -> None: ...


def following(last: float, now: float, spacing: float) -> Slot:
    return Slot(max(last + spacing, now - CATCH_UP), last)


class OwnSlots:
    """Of this process alone."""

    def __init__(self) -> None:
        self._last = -math.inf

    def take(self, now: float, spacing: float) -> Slot | None:
        slot = following(self._last, now, spacing)
        self._last = slot.at
        return slot

    def give_back(self, slot: Slot) -> None:
        if self._last == slot.at:
            self._last = slot.before

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
        _sweep(self._place)

    def take(self, now: float, spacing: float) -> Slot | None:
        if not self._lock():
            return None
        try:
            last = self._read()
            # A moment that is farther ahead than any slot is no number of ours.
            slot = following(last if 0 <= last < now + FARTHEST else 0.0, now, spacing)
            os.pwrite(self._file, _MOMENT.pack(slot.at), 0)
            return slot
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def give_back(self, slot: Slot) -> None:
        if not self._lock():
            return
        try:
            if self._read() == slot.at:
                os.pwrite(self._file, _MOMENT.pack(slot.before), 0)
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

    def _read(self) -> float:
        kept = os.pread(self._file, _MOMENT.size, 0)
        moment: float = _MOMENT.unpack(kept)[0] if len(kept) == _MOMENT.size else 0.0
        return moment

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
    for path in place.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGET:
                path.unlink()
