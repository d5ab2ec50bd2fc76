"""Create, find and lock run directories. `last` names the newest."""

import fcntl
import os
import random
import re
import shlex
import shutil
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

from bulkimg.errors import RunRefused, StorageError, UsageError

_STAMPED = re.compile(r"(\d{8}-\d{6}\.\d{3})-[0-9a-z]{4}")
LOCK_TRIES, LOCK_WAIT = 5, 0.02  # a check whether a run is held takes its lock for a moment
_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # without letters that look like digits


class RunDirectory:
    """The directory `runs/<run-id>/`. The lock is on the directory itself, so a dead process holds nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def words(self) -> str:
        """Return the run's name as a command line gives it: its id, and `--runs-dir` if it is not the default."""
        place = self.path.parent
        return self.run_id if place == Path("runs") else f"{self.run_id} --runs-dir {shlex.quote(str(place))}"

    @property
    def ledger(self) -> Path:
        return self.path / "run.db"

    def hold(self, kind: str = "run") -> "RunDirectory":
        """Lock the run for this process until `release` or the end of the process. `kind` is what messages call it.

        Raises RunRefused if another process holds it, or if another user could write in it.
        """
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        if why := _strange(os.fstat(descriptor)):
            os.close(descriptor)
            raise RunRefused(f"{self.path}: {why}")
        if not _lock(descriptor):
            os.close(descriptor)
            raise RunRefused(f"{kind} {self.run_id} is in use by another process; see bulkimg status {self.words}")
        self._lock = descriptor
        return self

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_held(self) -> bool:
        """Return whether a living process holds the run. Those who only look are not in each other's way."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # removed by `keep` or --prune since it was listed
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    @property
    def begun_at(self) -> float:
        """Return when the run began, in seconds since the epoch.

        The time comes from the id, or for a named run from the first file of the directory.
        """
        if found := _STAMPED.fullmatch(self.run_id):
            return datetime.strptime(found[1], "%Y%m%d-%H%M%S.%f").replace(tzinfo=UTC).timestamp()
        try:
            return (self.path / NAMED_AT).stat().st_mtime
        except OSError:
            return 0.0

    @property
    def is_begun_only(self) -> bool:
        """Return whether a process ended before it made the ledger. Such a run holds nothing."""
        return {path.name for path in self.path.iterdir()} <= {NAMED_AT}

    def remove(self) -> None:
        """Delete the run with all its files. The caller must hold it.

        It gets another name first: what is left of a removal that was interrupted is no run. `clear_remains` removes it.
        """
        remains = self.path.with_name(f"{REMAINS}{self.path.name}")
        self.path.rename(remains)
        shutil.rmtree(remains)


REMAINS = ".removing-"  # begins the name of a directory that is being removed
CAMPAIGN = "campaign.json"  # in the directory `X` of a campaign whose runs are `X.TARGET`
NAMED_AT = ".begun"  # an empty file in the directory of a named run: its time is the run's start


def _lock(descriptor: int) -> bool:
    for left in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(LOCK_WAIT)
    return False


def _strange(found: os.stat_result) -> str:
    """Return why other users may write in a directory, or "". A file that they could have changed is not trusted."""
    if found.st_uid != os.geteuid():
        return f"belongs to another user (uid {found.st_uid}); resume the run as that user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        mode = stat.S_IMODE(found.st_mode)
        return f"is writable by other users (mode {mode:04o}), so its ledger cannot be trusted; check its content, then run chmod 700 on it"
    return ""


def new_run(runs_dir: Path, now: float, name: str | None = None) -> RunDirectory:
    """Create and lock a new run directory with mode 0700. `now` is seconds since the epoch.

    The id is `name`, or a generated one that sorts by time. Raises RunRefused if a run of that name exists.
    """
    path = runs_dir / (name or new_id(now))
    make_runs_dir(runs_dir)
    try:
        make_private(path)
        if name:
            (path / NAMED_AT).touch(mode=0o600)
            os.utime(path / NAMED_AT, (now, now))
        make_durable(runs_dir)
        return RunDirectory(path).hold()
    except FileExistsError:
        raise RunRefused(f"run {path.name} already exists in {runs_dir}; choose another --run-id") from None
    except OSError as error:
        raise _cannot_create(path, error) from None


def make_runs_dir(runs_dir: Path) -> None:
    """Create the runs directory unless it exists. Raises StorageError."""
    try:
        if not runs_dir.is_dir():
            runs_dir.mkdir(0o755, parents=True, exist_ok=True)  # a user who can write in it could replace runs
            make_durable(runs_dir.parent)
    except OSError as error:
        raise _cannot_create(runs_dir, error) from None


def _cannot_create(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: cannot be created: {error.strerror}; choose another directory with --runs-dir")


def new_id(now: float) -> str:
    """Return an id that sorts by time. `now` is seconds since the epoch."""
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S.%f")[:-3]
    suffix = "".join(random.choices(_ALPHABET, k=4))  # noqa: S311 - tells two runs of one millisecond apart, no secret
    return f"{stamp}-{suffix}"


def make_private(path: Path) -> None:
    """Make a directory with mode 0700. Raises OSError."""
    path.mkdir(mode=0o700)
    path.chmod(0o700)  # whatever the umask is


def make_durable(directory: Path) -> None:
    """Make the directory's entries durable: a new file is on the disk only after that."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def list_runs(runs_dir: Path) -> list[RunDirectory]:
    """Return all runs, oldest first."""
    try:
        names = [entry.name for entry in os.scandir(runs_dir) if entry.is_dir() and not entry.name.startswith(REMAINS)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{runs_dir}: cannot be read: {error.strerror}") from None
    found = [RunDirectory(runs_dir / name) for name in names if (runs_dir / name / "run.db").is_file()]
    return sorted(found, key=lambda run: (run.begun_at, run.run_id))


def clear_remains(runs_dir: Path) -> None:
    """Remove what is left of runs whose removal was interrupted. Raises OSError."""
    for entry in os.scandir(runs_dir):
        if not entry.name.startswith(REMAINS) or not entry.is_dir(follow_symlinks=False):
            continue
        remains = RunDirectory(Path(entry.path))
        try:
            remains.hold()
        except (RunRefused, FileNotFoundError):  # another process is removing it
            continue
        try:
            shutil.rmtree(remains.path)
        finally:
            remains.release()


def find_run(runs_dir: Path, name: str) -> RunDirectory:
    """Return the run that an id, the beginning of an id, a directory or `last` names.

    Raises UsageError if it names no run or several.
    """
    if not isinstance(name, str) or not name:  # an unset variable in a script must not name the only run
        raise UsageError("no run is named; give a run's id, the beginning of one, its directory, or last")
    if (Path(name) / "run.db").is_file():
        return RunDirectory(Path(name))
    if "/" not in name and (runs_dir / name / "run.db").is_file():
        return RunDirectory(runs_dir / name)  # the whole id wins over a longer one that begins with it
    runs = list_runs(runs_dir)
    if name == "last" and runs:
        return runs[-1]
    matching = [run for run in runs if run.run_id.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if not runs:
        raise UsageError(f"there are no runs in {runs_dir}; choose another directory with --runs-dir")
    if "/" not in name and (runs_dir / name / CAMPAIGN).is_file():
        ids = ", ".join(run.run_id for run in matching) or "which are not there any more"
        raise UsageError(f"{name!r} is a campaign of several runs; name one of them: {ids}")
    what = "is the beginning of several runs" if matching else "is not a run"
    raise UsageError(f"{name!r} {what} in {runs_dir}; list them with bulkimg runs")
