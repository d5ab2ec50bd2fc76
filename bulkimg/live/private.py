"""Keep what only this user may read: the cookie's value across restarts, and the file that opens the browser.

An address with a token must not be an argument of the browser: arguments are visible to every user of the machine.
"""

import os
import secrets
import stat
import tempfile
import time
from contextlib import suppress
from html import escape
from pathlib import Path

from bulkimg.live.doors import TOKEN_BYTES

KEPT = 24 * 3600.0  # seconds after which a cookie of a port is not used again


def place() -> Path:
    """Return a folder of this user's own, in memory if possible."""
    memory = Path("/dev/shm")  # noqa: S108 - refused below if it is not ours alone
    folder = (memory if memory.is_dir() else Path(tempfile.gettempdir())) / f"bulkimg-ui-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder of this user alone")
    return folder


def cookie_of(port: int) -> str:
    """Return the cookie's value of a port: the one of the last `bulkimg ui` there, so that open pages continue, or a new one."""
    new = secrets.token_urlsafe(TOKEN_BYTES)
    with suppress(OSError, ValueError):
        path = place() / str(port)
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < KEPT and len(kept := path.read_text("ascii")) == len(new):
                return kept
            path.unlink()
        _write(path, new)
    return new


def redirect(url: str) -> Path:
    """Write a file that sends the browser to an address. Only this user can read it; remove it at the end."""
    path = place() / f"open-{secrets.token_hex(8)}.html"
    _write(
        path,
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={escape(url)}"><title>bulkimg</title>\n',
    )
    return path


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii", errors="xmlcharrefreplace") as file:
        file.write(text)
