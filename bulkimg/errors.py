"""Define the errors and the exit codes (docs/reference/exit-codes.md).

    BulkimgError
    ├── UsageError          2  an option, a job file, a profile or a credential is wrong
    ├── ManifestRefused     3  the manifest has problems; nothing was sent
    ├── TargetError         5  the server cannot be reached, or is not the API
    │   └── LoginRefused
    ├── RunRefused          7  another process holds the run, or it cannot be resumed
    └── StorageError        8  the disk or the ledger failed

A bad row is a value (`model.Problem`, `model.Outcome`), never an exception.
"""

import errno
from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """The exit codes. Scripts of users depend on them."""

    OK = 0
    SOME_ROWS_NOT = 1
    USAGE = 2
    MANIFEST = 3
    ERROR_LIMIT = 4
    TARGET = 5
    TIME_BOX = 6
    REFUSED = 7
    STORAGE = 8
    CHANGES = 10
    INTERRUPTED = 130
    TERMINATED = 143


class BulkimgError(Exception):
    """The base of all errors: a sentence for the user (cause: consequence; what to do), with its exit code."""

    exit_code: Exit = Exit.USAGE
    result: Any = None  # the run (bulkimg.Result), if one began


class UsageError(BulkimgError):
    """An option, a job file, a profile or a credential is wrong."""


class ManifestRefused(BulkimgError):
    """The manifest has problems, and nothing was sent. `problems` holds all of them."""

    exit_code = Exit.MANIFEST

    def __init__(self, why: str, problems: Sequence[Any] = ()) -> None:
        super().__init__(why)
        self.problems = problems


class TargetError(BulkimgError):
    """The server cannot be reached, or is not what the settings say."""

    exit_code = Exit.TARGET


class LoginRefused(TargetError):
    """The server does not accept the credentials."""


class RunRefused(BulkimgError):
    """Another process holds the run, or it cannot be resumed."""

    exit_code = Exit.REFUSED


class StorageError(BulkimgError):
    """The local disk or the ledger failed. The run stops, and can be resumed when there is space."""

    exit_code = Exit.STORAGE


def not_installed(what: str, library: str, extra: str) -> UsageError:
    """Return the error about a library of an extra that is missing. `what` needs it, such as `--otel`."""
    return UsageError(
        f"{what} needs {library}, which is not installed; install bulkimg with its extra, in its checkout: "
        f"uv tool install '.[{extra}]' (or pip install {library} in bulkimg's environment)"
    )


def out_of_resources(error: BaseException | None) -> str:
    """Return the system resource that ran out, or "". All causes of the error are searched."""
    while error is not None:
        if isinstance(error, MemoryError):
            return "out of memory"
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            return f"out of system resources: {error.strerror}"
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return str(error)
        error = error.__context__
    return ""
