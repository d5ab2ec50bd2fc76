"""Write the files of jobs, list them, install units, and remove all of it."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bulkimg.errors import RunRefused, StorageError, UsageError
from bulkimg.schedule.mark import Mark, drift, read_mark

_PATIENCE = 60.0  # seconds for one call of a program of systemd
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Places:
    """Where the machine keeps units and cron's lines. Another root is a directory that looks like one."""

    root: Path = Path("/")

    @property
    def units(self) -> Path:
        return self.root / "etc/systemd/system"

    @property
    def cron(self) -> Path:
        return self.root / "etc/cron.d"

    @property
    def is_live(self) -> bool:
        """Return whether this is the running machine, whose systemd can be spoken to."""
        return self.root == Path("/")


@dataclass(frozen=True, slots=True)
class Written:
    """A file that schedule wrote earlier."""

    path: Path
    mark: Mark
    drift: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.name.partition(".")[0]


def write(files: Mapping[str, str], place: Path, job: Path) -> list[Path]:
    """Write files into a directory, all or none. Raises UsageError where one of another origin is in the way."""
    if not place.is_dir():
        raise UsageError(f"--out {place}: is not a directory; create it (mkdir -p), or choose another")
    for name in files:
        _refuse_foreign(place / name, job)
    written: list[Path] = []
    try:
        for name, text in files.items():
            _replace(place / name, text)
            written.append(place / name)
    except OSError as error:
        raise StorageError(
            f"{error.filename or place}: cannot be written: {error.strerror}; choose another directory"
        ) from None
    return written


def _refuse_foreign(path: Path, job: Path) -> None:
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_file():
        raise UsageError(
            f"{path}: is in the way and no file of bulkimg schedule; move it, or choose another [job] name"
        )
    mark = read_mark(_text(path))
    if mark is None:
        raise UsageError(
            f"{path}: was not written by bulkimg schedule, so it is left; move it, or choose another [job] name"
        )
    if mark.job != str(job):
        raise UsageError(f"{path}: is of the job {mark.job}; give one of the two jobs another [job] name")


def _replace(path: Path, text: str) -> None:
    """Write a file that is never seen half written. Units and /etc/cron.d must be readable, and hold no secret."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(text, "utf-8")
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""


# -- what is there ------------------------------------------------------------------------------------------------------


def listed(places: Iterable[Path], version: str) -> list[Written]:
    """Return every file of these directories that schedule wrote. A link is not followed."""
    found = []
    for place in places:
        for path in sorted(place.glob("bulkimg-*")) if place.is_dir() else ():
            if path.is_symlink() or not path.is_file():
                continue
            text = _text(path)
            if mark := read_mark(text):
                found.append(Written(path, mark, tuple(drift(text, mark, version))))
    return found


def of_job(found: Iterable[Written], job: str) -> list[Written]:
    """Return the files of a job, named by its file or by its name."""
    path = os.path.normpath(Path(job).absolute())
    return [one for one in found if one.mark.job == path or one.name in (job, f"bulkimg-{job}")]


# -- systemd ------------------------------------------------------------------------------------------------------------


def refuse_without_systemd(places: Places) -> None:
    """Raise UsageError where units cannot be installed."""
    if places.is_live and os.geteuid():
        raise UsageError(
            "--install writes into /etc/systemd/system, which needs root; use sudo, or --out DIR and install the files yourself"
        )
    if places.is_live and not Path("/run/systemd/system").is_dir():  # sd_booted(3)
        raise UsageError("systemd does not run this machine, so nothing can be installed; use --out DIR, or --as cron")
    for program in ("systemctl", "systemd-analyze"):
        if shutil.which(program) is None:
            raise UsageError(
                f"{program} is not installed, so a unit can be neither checked nor enabled; install systemd"
            )


def verify(files: Mapping[str, str]) -> str:
    """Return what `systemd-analyze verify` says about units, or "". Raises UsageError if it is not installed."""
    with tempfile.TemporaryDirectory(prefix="bulkimg-") as name:
        for unit, text in files.items():
            (Path(name) / unit).write_text(text, "utf-8")
        done = _called(["systemd-analyze", "verify", "--man=no", *(str(Path(name) / unit) for unit in files)])
        return "" if done.returncode == 0 else done.stderr.strip().replace(f"{name}/", "")


def install(files: Mapping[str, str], job: Path, places: Places) -> list[Path]:
    """Verify units, write them, and enable the timer. What cannot be enabled is removed again.

    Raises UsageError where a unit is wrong, RunRefused where systemd does not take it.
    """
    refuse_without_systemd(places)
    if why := verify(files):
        raise UsageError(f"systemd-analyze verify refuses the unit: {why}; nothing was installed")
    before = {name: _text(places.units / name) for name in files if (places.units / name).is_file()}
    written = write(files, places.units, job)
    (timer,) = (path.name for path in written if path.suffix == ".timer")
    try:
        _systemctl(places, "daemon-reload")
        _systemctl(places, "enable", *(["--now"] if places.is_live else []), timer)
    except RunRefused:
        for path in written:
            if path.name in before:
                _replace(path, before[path.name])
            else:
                path.unlink()
        with contextlib.suppress(RunRefused):
            _systemctl(places, "daemon-reload")
        raise
    return written


def remove(found: Sequence[Written], places: Places) -> list[Path]:
    """Disable the timers among these files and remove the files. Returns what was removed.

    Raises RunRefused where systemd does not obey, StorageError where a file cannot be removed.
    """
    timers = [one.path.name for one in found if one.path.suffix == ".timer" and one.path.parent == places.units]
    if timers:
        refuse_without_systemd(places)
        _systemctl(places, "disable", *(["--now"] if places.is_live else []), *timers)
    removed = list(_unlinked(found))
    if timers:
        _systemctl(places, "daemon-reload")
    return removed


def _unlinked(found: Iterable[Written]) -> Iterator[Path]:
    for one in found:
        try:
            one.path.unlink()
        except OSError as error:
            raise StorageError(f"{one.path}: cannot be removed: {error.strerror}; use sudo") from None
        yield one.path


def _systemctl(places: Places, *words: str) -> None:
    if not places.is_live and words[0] == "daemon-reload":
        return
    root = [] if places.is_live else [f"--root={places.root}"]
    done = _called(["systemctl", *root, *words])
    if done.returncode:
        raise RunRefused(
            f"systemctl {' '.join(words)}: {done.stderr.strip() or f'exit code {done.returncode}'}; nothing was changed"
        )


def _called(words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=_PATIENCE, stdin=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "SYSTEMD_COLORS": "0"},
        )  # fmt: skip
    except FileNotFoundError:
        raise UsageError(f"{words[0]} is not installed; install systemd") from None
    except subprocess.TimeoutExpired:
        raise RunRefused(f"{words[0]} has not answered for {_PATIENCE:g} s; see journalctl -xe") from None
