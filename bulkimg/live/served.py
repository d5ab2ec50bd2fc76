"""Say which directories the live page serves: those with the name of a run that are where their path says.

A symbolic link may lead to a file of another place or user, so neither a linked directory nor a linked ledger is read.
"""

import re

from bulkimg.errors import UsageError
from bulkimg.ledger import RunDirectory

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_WHOLE_NAME = re.compile(NAME, re.ASCII)


def has_a_name(directory: RunDirectory) -> bool:
    """Return whether the directory has a name that a run can have."""
    return _WHOLE_NAME.fullmatch(directory.run_id) is not None


def is_served(directory: RunDirectory) -> bool:
    """Return whether the page shows this directory."""
    return has_a_name(directory) and not _link(directory) and directory.ledger.is_file()


def refuse_links(directory: RunDirectory) -> None:
    """Raise UsageError if the run's directory or a file of its ledger is a symbolic link."""
    if link := _link(directory):
        raise UsageError(
            f"{link}: is a symbolic link, which the page does not follow; show what it leads to with --runs-dir"
        )


def refuse_unserved(directory: RunDirectory) -> None:
    """Raise UsageError if the page does not show this run."""
    refuse_links(directory)
    if not has_a_name(directory):
        raise UsageError(
            f"{directory.path}: the name of the directory is not that of a run, so it has no page; "
            "see bulkimg report, or rename it: letters, digits, . _ and -, at most 100"
        )


def _link(directory: RunDirectory) -> str:
    """Return the first path that is a symbolic link, or ""."""
    ledger = directory.ledger
    paths = (directory.path, ledger, *(ledger.with_name(f"{ledger.name}-{end}") for end in ("wal", "shm")))
    return next((str(path) for path in paths if path.is_symlink()), "")
