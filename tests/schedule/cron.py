"""Debian's cron, really started: in a mount namespace of its own, with a crontab and a sendmail that are ours.

Cron's places are fixed: /var/spool/cron/crontabs, /run/crond.pid, /usr/sbin/sendmail. The namespace has its own of each, and
the machine keeps what it has. It ends with its process.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CRON = shutil.which("cron") or shutil.which("cron", path="/usr/sbin:/usr/local/sbin")
_MAIL_BEGINS = "From: root (Cron Daemon)"

_SCRIPT = r"""
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/spool /mnt/up /mnt/work /mnt/run
mkdir -p /mnt/spool/cron/crontabs
install -m 600 "$PLACE/crontab" /mnt/spool/cron/crontabs/root
printf '#!/bin/sh\ncat >> "%s/mail"\n' "$PLACE" > /mnt/up/sendmail
chmod 755 /mnt/up/sendmail
mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir=/mnt/up,workdir=/mnt/work /usr/sbin
mount --bind /mnt/run /run
mount --bind /mnt/spool /var/spool
exec "$CRON" -f -L 7
"""


def why_not() -> str:
    """Return why cron cannot be started here, or ""."""
    if CRON is None:
        return "cron is absent"
    if os.geteuid() != 0:
        return "cron needs root"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        check=False,
    )
    return "" if done.returncode == 0 else "mounts are not allowed here"


@contextmanager
def running_cron(place: Path, crontab: str) -> Iterator[Path]:
    """Run cron with a crontab of root. Yields the file that collects its mail."""
    assert CRON
    (place / "crontab").write_text(crontab)
    mail = place / "mail"
    mail.touch()
    with (place / "cron.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PLACE": str(place), "CRON": CRON},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield mail
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def letters(mail: Path) -> list[str]:
    """Return the bodies of what cron mailed."""
    found = mail.read_text("utf-8").split(_MAIL_BEGINS)[1:]
    return [letter.partition("\n\n")[2].strip() for letter in found]


def wait_until(seen: object, seconds: float = 130.0) -> None:
    """Wait until a condition holds."""
    assert callable(seen)
    end = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
