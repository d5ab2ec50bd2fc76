"""Find the credentials: environment, files, $CREDENTIALS_DIRECTORY, the profile (docs/reference/credentials.md).

They are never command-line arguments.
"""

import os
import shlex
import stat
import subprocess
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bulkimg.errors import UsageError
from bulkimg.values import expanded


@dataclass(frozen=True, slots=True)
class Session:
    """An existing session. bulkimg neither logs in nor out."""

    uuid: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """An account. bulkimg logs in once for each run, and logs out at its end."""

    name: str
    password: str = field(repr=False)

    @property
    def is_quoted(self) -> bool:
        """Return whether the password is in quotation marks, as `docker --env-file` leaves them."""
        return len(self.password) > 1 and self.password[0] in "\"'" and self.password[0] == self.password[-1]


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key, which signs every request."""

    key_id: str
    secret: str = field(repr=False)


Credentials = Session | Account | AccessKey


def identity_of(credentials: Credentials) -> str:
    """Return `account NAME` or `access key ID`, or "" for a session, which does not show its account."""
    match credentials:
        case Account(name):
            return f"account {name}"
        case AccessKey(key_id):
            return f"access key {key_id}"
    return ""


# Our name of each secret or name: its environment variable, and its key in a profile.
_VARIABLES = {
    "session": "BULKIMG_SESSION",
    "account": "BULKIMG_ACCOUNT",
    "password": "BULKIMG_PASSWORD",
    "access_key_id": "BULKIMG_ACCESS_KEY_ID",
    "access_key_secret": "BULKIMG_ACCESS_KEY_SECRET",
}
NAMES = tuple(_VARIABLES)
CREDENTIAL_VARIABLES = tuple(_VARIABLES.values())
_KINDS: dict[str, tuple[str, ...]] = {  # the parts that make a kind complete, by its secret
    "session": ("session",),
    "password": ("account", "password"),
    "access_key_secret": ("access_key_id", "access_key_secret"),
}
_SECRETS = frozenset(_KINDS)
_NEVER_QUOTED = frozenset(_VARIABLES) - {"password", "account"}  # both may contain any character
_PLAIN_IN_PROFILE = ("account", "access_key_id")  # names, not secrets
PROFILE_KEYS = (
    *_VARIABLES,
    *(f"{name}_{how}" for name in _VARIABLES for how in ("file", "command")),
)


RunCommand = Callable[[Any, str], str]


def find_credentials(environ: Mapping[str, str], profile: Mapping[str, Any]) -> Credentials:
    """Return the one kind of credentials that is set. Raises UsageError for none, an incomplete one, or several."""
    return one_kind(gather(environ, profile))


def missing_parts(names: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the kinds of which a part is named (by our names), and what is missing for the first of them.

    A session is complete; an account needs its password, a key's id its secret, and the other way round.
    """
    kinds = {kind: parts for kind, parts in _KINDS.items() if set(parts) & set(names)}
    missing = [part for part in next(iter(kinds.values()), ()) if part not in names]
    return list(kinds), missing


def account_without_password(found: Mapping[str, str]) -> str:
    """Return the account's name if only its password is missing, else ""."""
    return found["account"] if found.keys() == {"account"} else ""


def gather(environ: Mapping[str, str], profile: Mapping[str, Any], run: RunCommand | None = None) -> dict[str, str]:
    """Return the parts that are set, by our names. `run` runs the profile's commands.

    The first place that has a secret wins as a whole, so a session in the environment is not mixed with a profile's
    account. systemd sets `$CREDENTIALS_DIRECTORY`; it holds files such as `bulkimg.session`.
    """
    place = environ.get("CREDENTIALS_DIRECTORY", "")
    found = {name: value for name in _VARIABLES if (value := _from_environment(name, environ, place))}
    for others in (partial(_from_directory, place), partial(_from_profile, profile, place, run or run_command)):
        if not _SECRETS & found.keys():  # a name may be in one place and its secret in the next
            found = {**others(), **found}
    return found


def one_kind(found: Mapping[str, str]) -> Credentials:
    """Return the one kind of credentials that these parts make. Raises UsageError for none, an incomplete one, or several."""
    kinds = [kind for kind in _KINDS if kind in found]
    if len(kinds) > 1:
        both = " and ".join(_VARIABLES[kind] for kind in kinds)
        raise UsageError(f"{both} are set at the same time; keep only one kind of credential")
    for kind, names in _KINDS.items():
        missing = [_VARIABLES[name] for name in names if name not in found]
        if not missing:
            return _build(kind, found)
        if len(missing) < len(names):
            given = " and ".join(_VARIABLES[name] for name in names if name in found)
            raise UsageError(f"{' and '.join(missing)} is not set, but {given} is; set both")
    raise UsageError(
        "no credentials found; set BULKIMG_SESSION, or BULKIMG_ACCOUNT and BULKIMG_PASSWORD, or BULKIMG_ACCESS_KEY_ID and "
        "BULKIMG_ACCESS_KEY_SECRET (each also as <NAME>_FILE), or give --profile NAME"
    )


def _build(kind: str, found: Mapping[str, str]) -> Credentials:
    if kind == "session":
        return Session(found["session"])
    if kind == "password":
        return Account(found["account"], found["password"])
    return AccessKey(found["access_key_id"], found["access_key_secret"])


def _from_environment(name: str, environ: Mapping[str, str], place: str) -> str | None:
    variable = _VARIABLES[name]
    if value := environ.get(variable):
        return _fit(name, value, variable)
    if path := environ.get(f"{variable}_FILE"):
        source = f"{variable}_FILE"
        return _fit(name, read_private(_path(path, source), source, place), f"{source} {path}")
    return None


def _from_directory(place: str) -> dict[str, str]:
    """Read the files of `$CREDENTIALS_DIRECTORY` that have our names."""
    paths = {name: Path(place) / f"bulkimg.{name}" for name in _VARIABLES} if place else {}
    source = "CREDENTIALS_DIRECTORY"
    return {
        name: _fit(name, read_private(path, source, place), str(path))
        for name, path in paths.items()
        if _is_there(path, source)
    }


def _is_there(path: Path, source: str) -> bool:
    """Return whether a file exists. Raises UsageError where that cannot be known: it may be the credential."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(
            f"{source}: {path} cannot be looked at: {error.strerror}; let this user enter the directory, or unset {source}"
        ) from None
    return True


def _from_profile(profile: Mapping[str, Any], place: str, run: RunCommand) -> dict[str, str]:
    found = {}
    for name in _VARIABLES:
        if name in profile:
            if name not in _PLAIN_IN_PROFILE:
                raise UsageError(
                    f'the profile contains {name} in plain text; use {name}_file or {name}_command = ["…"]'
                )
            found[name] = str(profile[name])
        elif (path := profile.get(f"{name}_file")) is not None:
            if not isinstance(path, str) or "\0" in path or not path.strip():
                raise UsageError(f"{name}_file in the profile is not a path; write the name of a file")
            source = f"{name}_file"
            found[name] = _fit(name, read_private(_path(path, source), source, place), f"{source} {path}")
        elif (command := profile.get(f"{name}_command")) is not None:
            found[name] = _fit(name, run(command, f"{name}_command"), f"{name}_command")
    return found


def _path(text: str, source: str) -> Path:
    try:
        return expanded(text)
    except ValueError as error:
        raise UsageError(f"{source}: {text} {error}") from None


def _fit(name: str, value: str, source: str) -> str:
    """Check that a credential is one line of printable characters: it is sent in a header or a signature."""
    if value.startswith("\ufeff"):
        raise UsageError(f"{source} starts with a byte order mark (UTF-8 with BOM); save it without one")
    if name in _NEVER_QUOTED and value[:1] in "\"'" and value[:1] == value[-1:]:
        raise UsageError(f"{source} is in quotation marks, which would become part of it; remove them")
    if not value or not value.isprintable():
        raise UsageError(
            f"{source} is empty or contains a line break or another control character; write it as one line of plain text"
        )
    return value


def read_private(path: Path, source: str, place: str) -> str:
    """Read a file that not all users can read. Raises UsageError. `place` is `$CREDENTIALS_DIRECTORY`, or "" if there is none."""
    try:
        with open(path, encoding="utf-8", opener=_without_waiting) as file:
            if why := too_open(os.fstat(file.fileno()), path, place):
                raise UsageError(f"{source}: {path} {why}")
            return file.read(65536).strip()
    except OSError as error:
        raise UsageError(f"{source}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{source}: {path} is not UTF-8 text; save it as UTF-8") from None


def _without_waiting(path: str, flags: int) -> int:
    """Open a file. A pipe without a writer reads as empty and does not block."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return descriptor


def too_open(found: os.stat_result, path: Path, place: str) -> str:
    """Return why a credential's file must not be used and what to do, or "".

    systemd and Kubernetes give a service's user its secrets through the group bits: LoadCredential with an access list
    (mode 0440), a Secret with fsGroup. If root owns the file or it is in `$CREDENTIALS_DIRECTORY`, an administrator
    decided so.
    """
    mode = f"mode {stat.S_IMODE(found.st_mode):04o}"
    if found.st_mode & stat.S_IRWXO:
        mounted = "where it is mounted read-only, mount it with mode 0440"
        return f"is readable by all users ({mode}); run chmod 600 on it ({mounted})"
    if found.st_mode & stat.S_IRWXG and found.st_uid != 0 and not _lies_in(path, place):
        return f"is readable by its group ({mode}); run chmod 600 on it"
    return ""


def _lies_in(path: Path, place: str) -> bool:
    return bool(place) and path.resolve().is_relative_to(Path(place).resolve())


def running_once() -> RunCommand:
    """Return a `run_command` that runs each command once, however often it is asked for."""
    printed: dict[str, str] = {}

    def run(command: Any, source: str) -> str:
        words = repr(command)
        if words not in printed:
            printed[words] = run_command(command, source)
        return printed[words]

    return run


def run_command(command: Any, source: str, env: Mapping[str, str] | None = None) -> str:
    """Return what a command prints. Raises UsageError without its words and its messages: they may hold a secret."""
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except (TypeError, ValueError):
        words = []
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise UsageError(f'{source} in the profile is not a command; write ["program", "argument"]')
    try:
        done = subprocess.run(words, capture_output=True, timeout=60, check=True, stdin=subprocess.DEVNULL, env=env)
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"{source}: {words[0]} failed: {_reason(error)}") from None
    return done.stdout.decode("utf-8", "replace").strip()


def _reason(error: Exception) -> str:
    """Describe the error without its own text: that holds the command, and a command may hold a secret."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit code {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer after {error.timeout:g} s"
    return getattr(error, "strerror", None) or type(error).__name__
