"""This file finds the credentials: environment, files and the profile; never arguments (PRODUCT.md §4)."""

import os
import shlex
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkimg.errors import UsageError


@dataclass(frozen=True, slots=True)
class Session:
    """A session that exists already; we neither log in nor out."""

    uuid: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """Logs in once per run and out at its end."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Signs every request."""

    key_id: str
    secret: str = field(repr=False)


Credentials = Session | Account | AccessKey

# Our name of each secret or name: its environment variable, and its key in a profile.
_VARIABLES = {
    "session": "BULKIMG_SESSION",
    "account": "BULKIMG_ACCOUNT",
    "password": "BULKIMG_PASSWORD",
    "access_key_id": "BULKIMG_ACCESS_KEY_ID",
    "access_key_secret": "BULKIMG_ACCESS_KEY_SECRET",
}
CREDENTIAL_VARIABLES = tuple(_VARIABLES.values())
_KINDS: dict[str, tuple[str, ...]] = {  # by its secret: what makes a kind complete
    "session": ("session",),
    "password": ("account", "password"),
    "access_key_secret": ("access_key_id", "access_key_secret"),
}
_PLAIN_IN_PROFILE = ("account", "access_key_id")  # names, not secrets
PROFILE_KEYS = (
    *_VARIABLES,
    *(f"{name}_{how}" for name in _VARIABLES for how in ("file", "command")),
)


def find_credentials(environ: Mapping[str, str], profile: Mapping[str, Any]) -> Credentials:
    """The one kind of credential that is set. UsageError when there is none, or half of one, or more than one.

    The environment wins over the profile as a whole, so that a session in the environment is not mixed with a
    profile's account.
    """
    found = {name: value for name in _VARIABLES if (value := _from_environment(name, environ))}
    if found and not {"session", "password", "access_key_secret"} & found.keys():
        found = {**_from_profile(profile), **found}  # a name in the environment, its secret in the profile
    return _one_kind(found or _from_profile(profile))


def _one_kind(found: Mapping[str, str]) -> Credentials:
    kinds = [kind for kind in _KINDS if kind in found]
    if len(kinds) > 1:
        both = " and ".join(_VARIABLES[kind] for kind in kinds)
        raise UsageError(f"{both} are set at the same time: unset all but one kind of credential")
    for kind, names in _KINDS.items():
        missing = [_VARIABLES[name] for name in names if name not in found]
        if not missing:
            return _build(kind, found)
        if len(missing) < len(names):
            raise UsageError(f"{' and '.join(missing)} is not set, the other half of the credential is")
    raise UsageError(
        "no credentials: set BULKIMG_SESSION, or BULKIMG_ACCOUNT and BULKIMG_PASSWORD, or BULKIMG_ACCESS_KEY_ID and "
        "BULKIMG_ACCESS_KEY_SECRET (each also as <NAME>_FILE), or give --profile NAME"
    )


def _build(kind: str, found: Mapping[str, str]) -> Credentials:
    if kind == "session":
        return Session(found["session"])
    if kind == "password":
        return Account(found["account"], found["password"])
    return AccessKey(found["access_key_id"], found["access_key_secret"])


def _from_environment(name: str, environ: Mapping[str, str]) -> str | None:
    variable = _VARIABLES[name]
    if value := environ.get(variable):
        return _fit(value, variable)
    if path := environ.get(f"{variable}_FILE"):
        return _fit(_read_private(Path(path), f"{variable}_FILE"), f"{variable}_FILE")
    return None


def _from_profile(profile: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _VARIABLES:
        if name in profile:
            if name not in _PLAIN_IN_PROFILE:
                raise UsageError(f'the profile holds {name} in plain text; use {name}_command = ["…"] or {name}_file')
            found[name] = str(profile[name])
        elif path := profile.get(f"{name}_file"):
            if not isinstance(path, str) or "\0" in path:
                raise UsageError(f"{name}_file in the profile is not a path")
            found[name] = _fit(_read_private(Path(path).expanduser(), f"{name}_file"), f"{name}_file")
        elif command := profile.get(f"{name}_command"):
            found[name] = _fit(_run(command, f"{name}_command"), f"{name}_command")
    return found


def _fit(value: str, source: str) -> str:
    """A credential travels in a header or a signature: one line of printable characters."""
    if not value or not value.isprintable():
        raise UsageError(
            f"{source} is empty or has characters that no credential has (a line break, a control character)"
        )
    return value


def _read_private(path: Path, source: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise UsageError(
                    f"{source}: {path} can be read by others (mode {stat.S_IMODE(mode):04o}); chmod 600 it"
                )
            return file.read(65536).strip()
    except OSError as error:
        raise UsageError(f"{source}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{source}: {path} is not text in UTF-8") from None


def _run(command: Any, source: str) -> str:
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except (TypeError, ValueError):
        words = []
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise UsageError(f'{source} in the profile is not a command: write ["program", "argument"]')
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, timeout=60, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise UsageError(f"{source}: {words[0]} failed: {reason}") from None
    return done.stdout.decode("utf-8", "replace").strip()
