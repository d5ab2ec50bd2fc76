"""Find out what another user of this machine may read, write and run."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

READ, WRITE, RUN = 4, 2, 1  # bits of a mode
_ACCESS_LIST = "system.posix_acl_access"


@dataclass(frozen=True, slots=True)
class User:
    """A user with all groups."""

    name: str
    uid: int
    gids: frozenset[int]


def find_user(name: str) -> User | None:
    """Return a user by name, or None if this machine has none of that name."""
    try:
        found = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return None
    return User(found.pw_name, found.pw_uid, frozenset(os.getgrouplist(found.pw_name, found.pw_gid)))


def this_user() -> User | None:
    """Return the user of this process, or None if it has no name here."""
    try:
        return find_user(pwd.getpwuid(os.geteuid()).pw_name)
    except KeyError:
        return None


def owner_of(path: Path) -> User | None:
    """Return the owner of a file, or None if it has no name here."""
    try:
        return find_user(pwd.getpwuid(path.stat().st_uid).pw_name)
    except (KeyError, OSError):
        return None


def refusal(user: User, path: Path, wanted: int) -> str:
    """Return what keeps the user from a path, in the rest of a sentence, or "". Access lists are believed."""
    if user.uid == 0:
        return ""
    whole = path.absolute()
    for place in (*reversed(whole.parents), whole, whole.resolve()):
        needed = wanted if place in (whole, whole.resolve()) else RUN
        try:
            found = place.stat()
        except OSError as error:
            return f"cannot be looked at: {error.strerror}"
        if not _allows(found, user, needed) and not _has_access_list(place):
            mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
            what = {READ: "read", WRITE: "written", RUN: "run"}.get(needed, "used")
            if place == whole:
                return f"cannot be {what} by {user.name} ({mode})"
            return f"cannot be reached by {user.name}: {place} has {mode}"
    return ""


def _allows(found: os.stat_result, user: User, wanted: int) -> bool:
    if found.st_uid == user.uid:
        bits = found.st_mode >> 6
    elif found.st_gid in user.gids:
        bits = found.st_mode >> 3
    else:
        bits = found.st_mode
    return bits & wanted == wanted


def _has_access_list(path: Path) -> bool:
    try:
        return _ACCESS_LIST in os.listxattr(path)
    except OSError:
        return False
