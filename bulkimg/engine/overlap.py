"""Refuse a second living run of the same manifest or job against one target: it would send the same changes twice.

Runs that begin at the same moment look for each other and enter themselves under one kernel lock, one after the other, so
that never both go on.
"""

import fcntl
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bulkimg.errors import BulkimgError, RunRefused, StorageError
from bulkimg.ledger import Ledger, RunDirectory, list_runs
from bulkimg.ledger.rundir import make_runs_dir
from bulkimg.model import iso_utc

_OVER = frozenset({"done", "refused"})  # states in which a held run sends nothing more
LOOK_AGAIN = 0.2  # seconds between two looks at the run that is waited for
ENTERING = 30.0  # seconds for those who enter themselves at the same moment; each needs milliseconds


class Work(NamedTuple):
    """What a run works on. "" stands for a part that it does not have or does not know yet."""

    target: str
    manifest: str  # absolute path
    job: str
    sha256: str
    shard: str = ""  # as `2/4`

    def is_like(self, other: "Work") -> bool:
        """Return whether both would change the same images."""
        if self.target != other.target or self._is_beside(other):
            return False
        return any(mine and mine == theirs for mine, theirs in zip(self[1:4], other[1:4], strict=True))

    def _is_beside(self, other: "Work") -> bool:
        """Return whether both are shards of one division, and not the same one."""
        mine, theirs = self.shard.partition("/"), other.shard.partition("/")
        return self.shard != other.shard and bool(self.shard and other.shard) and mine[2] == theirs[2]


class Other(NamedTuple):
    """A living run of the same work."""

    directory: RunDirectory
    target: str

    def refusal(self, waited: float) -> RunRefused:
        run = self.directory
        after = f" after {waited:g} s of --lock-wait" if waited else ""
        return RunRefused(
            f"run {run.run_id} of the same manifest or job is under way{after} against {self.target} (since "
            f"{iso_utc(run.begun_at)}); wait until it ends: bulkimg status {run.words}"
        )

    @property
    def waiting(self) -> str:
        """Return what is said when the wait begins."""
        return f"run {self.directory.run_id} of the same manifest or job is still under way; waiting for its end"


def work_of(ledger: Ledger) -> Work:
    """Return the work of this ledger's run."""
    settings = ledger.meta("settings", {})
    target = f"{settings.get('endpoint')}{settings.get('base_path')}"
    return Work(
        target,
        ledger.meta("manifest_path") or "",
        settings.get("job_name", ""),
        ledger.meta("sha256") or "",
        settings.get("shard", ""),
    )


class _Waiting:
    """The wait for other runs of the same work. It is said once."""

    def __init__(self, seconds: float, tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._seconds, self._tell, self._clock = seconds, tell, clock
        self._end = clock() + seconds
        self._is_said = False

    def pause(self, other: Other) -> float:
        """Return the seconds until the next look. Raises RunRefused, which names the other run, when the time is over."""
        if (left := self._end - self._clock()) <= 0:
            raise other.refusal(self._seconds)
        if not self._is_said:
            self._tell(other.waiting)
            self._is_said = True
        return min(LOOK_AGAIN, left)


@contextmanager
def alone(
    runs_dir: Path,
    work: Work | None,
    wait: float = 0.0,
    *,
    own: str = "",
    tell: Callable[[str], None] = lambda sentence: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Enter the block, which creates a run, once no living run does the same work. No other process is in it meanwhile.

    Waits up to `wait` seconds for the other run, then raises RunRefused, which names it. `own` is a run that the caller
    holds. Without `work`, overlapping is allowed.
    """
    make_runs_dir(runs_dir)
    waiting = _Waiting(wait, tell, clock)
    while True:
        with entering(runs_dir):
            other = find_other(runs_dir, work, own) if work else None
            if other is None:
                yield
                return
        sleep(waiting.pause(other))


async def admit(
    directory: RunDirectory,
    ledger: Ledger,
    wait: float,
    *,
    tell: Callable[[str], None],
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Enter this run as the one that sends, once no other of the same work is entered. Raises RunRefused like `alone`.

    Only now is everything about the work known, such as that two manifests have the same content.
    """
    runs_dir = directory.path.parent
    waiting = _Waiting(wait, tell, clock)
    while True:
        with entering(runs_dir):
            other = find_other(runs_dir, work_of(ledger), directory.path.name, admitted_only=True)
            if other is None:
                ledger.set_meta(admitted=True)
                return
        await sleep(waiting.pause(other))


@contextmanager
def entering(runs_dir: Path) -> Iterator[None]:
    """Hold the kernel's lock of the runs directory. A process that dies leaves it."""
    descriptor = os.open(runs_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + ENTERING
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RunRefused(
                        f"{runs_dir}: another process has been starting a run for {ENTERING:g} s; end it or let it "
                        "continue, then run again"
                    ) from None
                time.sleep(0.005)
            except OSError as error:
                raise StorageError(
                    f"{runs_dir}: cannot be locked: {error.strerror}; choose another --runs-dir"
                ) from None
        yield
    finally:
        os.close(descriptor)


def find_other(runs_dir: Path, work: Work, own: str, *, admitted_only: bool = False) -> Other | None:
    """Return a living run in the same runs directory that does the same work, or None. `own` is not looked at."""
    for other in list_runs(runs_dir):
        if other.path.name != own and other.is_held() and _does(other, work, admitted_only=admitted_only):
            return Other(other, work.target)
    return None


def _does(other: RunDirectory, work: Work, *, admitted_only: bool) -> bool:
    try:
        ledger = Ledger.open(other.ledger, read_only=True)
    except BulkimgError:  # damaged, so it does not send
        return False
    try:
        if ledger.meta("plan_only") or ledger.meta("state") in _OVER or not work.is_like(work_of(ledger)):
            return False
        return not admitted_only or bool(ledger.meta("admitted"))
    finally:
        ledger.close()
