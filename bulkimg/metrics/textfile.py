"""Write the result of a job's last run for Prometheus' textfile collector: one complete file for each job.

The collector refuses a directory in which two files describe one metric in different words. Other versions of bulkimg
write into the same directory, so a help text that was released must never change.
"""

import os
import re
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from bulkimg import __version__
from bulkimg.errors import Exit, UsageError
from bulkimg.metrics.exposition import Family, Sample, sample_line, text
from bulkimg.model import Status

MODE = 0o644  # the collector is another user
_LONGEST = 65_536  # bytes of an earlier file: ours have 2,000
_SUCCESS = "bulkimg_last_success_timestamp_seconds"
_NO_NAME, _UNDO, _NAMED = "(no name)", " (undo)", " (job)"  # in labels
_MOST = 100  # characters of a job's name that its file's name has


class Job(NamedTuple):
    """What a file is about: a job by its name, or runs without one (""). An undo is no success of what it takes back."""

    name: str
    is_undo: bool = False

    @property
    def label(self) -> str:
        """Return the value of the label `job`: the job's name. No two have the same."""
        name = self.name or _NO_NAME
        if self.name == _NO_NAME or self.name.endswith((_UNDO, _NAMED)):  # a job whose name looks like ours
            name += _NAMED
        return f"{name}{_UNDO}" if self.is_undo else name

    @property
    def file_name(self) -> str:
        """Return the name of the job's file: `bulkimg-NAME.prom`. No two have the same: `+` is in no name of a job."""
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", self.name)[:_MOST]
        digest = "" if plain == self.name else "-" + sha256(self.name.encode("utf-8", "replace")).hexdigest()[:8]
        job = f"-{plain}{digest}" if self.name else ""
        return f"bulkimg{job}{'+undo' if self.is_undo else ''}.prom"


class Ended(NamedTuple):
    """How a run ended. `at` is seconds since the epoch; `counts` are rows by status."""

    job: Job
    at: float
    exit_code: int
    seconds: float = 0.0
    counts: Mapping[str, int] = {}
    requests: int = 0


def check_directory(directory: Path) -> None:
    """Raise UsageError if no file can be written there."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".bulkimg-", suffix=".tmp", dir=directory)
        os.close(descriptor)
        Path(name).unlink()
    except OSError as error:
        raise UsageError(
            f"--metrics-file {directory}: cannot be written to: {error.strerror}; give a directory that exists and is writable"
        ) from None


def write(directory: Path, ended: Ended) -> str:
    """Replace the job's file. Returns "", or why it was not possible; the earlier file is then as it was."""
    path = directory / ended.job.file_name
    try:
        _replace(path, text(_families(ended, _last_success(path, ended.job.label))))
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def _families(ended: Ended, before: float) -> list[Family]:
    job = {"job": ended.job.label}
    success = max(before, ended.at) if ended.exit_code == Exit.OK else before

    def gauge(name: str, help_: str, value: float) -> Family:
        return Family(name, "gauge", help_, [Sample(job, value)])

    rows = [Sample({**job, "status": status.value}, ended.counts.get(status.value, 0)) for status in Status]
    return [
        gauge("bulkimg_last_run_timestamp_seconds", "When the job's last run ended.", ended.at),
        gauge(_SUCCESS, "When a run of the job last ended with exit code 0; 0 if none did.", success),
        gauge("bulkimg_last_run_duration_seconds", "How long the job's last run took.", ended.seconds),
        gauge("bulkimg_last_run_exit_code", "Exit code of the job's last run.", ended.exit_code),
        Family("bulkimg_last_run_rows", "gauge", "Rows of the job's last run by status.", rows),
        gauge("bulkimg_last_run_requests", "Requests that the job's last run sent.", ended.requests),
        Family(
            "bulkimg_build_info", "gauge", "Version of bulkimg, as a label; always 1.",
            [Sample({**job, "version": __version__}, 1)],
        ),
    ]  # fmt: skip


def _last_success(path: Path, job: str) -> float:
    """Return the time of the last success from the earlier file, or 0."""
    begin = sample_line(_SUCCESS, {"job": job}, 0).removesuffix("0")
    lines = _earlier(path).split("\n")
    for line in lines:
        if line.startswith(begin) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", found := line.removeprefix(begin)):
            return float(found)
    return 0.0


def _earlier(path: Path) -> str:
    """Return the beginning of the earlier file; "" where it is no regular file. A pipe would never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(_LONGEST).decode("utf-8", "replace")


def _replace(path: Path, content: str) -> None:
    """Write a file at once, readable for all whatever the umask. Its temporary name does not end in .prom."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode("utf-8", "replace"))
            os.fchmod(descriptor, MODE)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    with suppress(OSError):  # the new file is complete; some file systems cannot sync a directory
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
