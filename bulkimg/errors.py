"""This file draws the error tree and names the exit codes (docs/reference/exit-codes.md).

    BulkimgError
    ├── UsageError          2  an option, a job file, a profile or a credential is wrong
    ├── ManifestRefused     3  the manifest has problems; nothing was sent
    ├── TargetError         5  the server is not there, or does not let us in
    │   └── LoginRefused
    ├── RunRefused          7  another process holds the run, or it cannot be carried on
    └── StorageError        8  the disk or the ledger failed

A bad row is a value (`model.Problem`, `model.Outcome`), never an exception.
"""

import errno
from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """The exit codes other people's scripts rely on."""

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
    """A sentence for the user that says what, where and what to do next, and the exit code that goes with it."""

    exit_code: Exit = Exit.USAGE


class UsageError(BulkimgError):
    """An option, a job file, a profile or a credential is wrong."""


class ManifestRefused(BulkimgError):
    """The manifest has problems (all of them, in `problems`) and nothing was sent."""

    exit_code = Exit.MANIFEST

    def __init__(self, why: str, problems: Sequence[Any] = ()) -> None:
        super().__init__(why)
        self.problems = problems


class TargetError(BulkimgError):
    """The server is not there, or is not what the settings say."""

    exit_code = Exit.TARGET


class LoginRefused(TargetError):
    """The server does not accept the credentials."""


class RunRefused(BulkimgError):
    """The run is held by another process, or is not one that can be carried on."""

    exit_code = Exit.REFUSED


class StorageError(BulkimgError):
    """The local disk or the ledger failed; the run stops and can be resumed when there is space."""

    exit_code = Exit.STORAGE


def out_of_resources(error: BaseException | None) -> str:
    """What the system did not give us, if that is the reason; Python and its event loop may say only what could not be done
    without it."""
    while error is not None:
        if isinstance(error, MemoryError):
            return "out of memory"
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            return f"the system gives us no more: {error.strerror}"
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return str(error)
        error = error.__context__
    return ""
