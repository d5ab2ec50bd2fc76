"""Write the line of a job for cron."""

import re
import shlex
from pathlib import Path

from bulkimg.errors import UsageError
from bulkimg.schedule.job import Job

LONGEST = 990  # characters of a command; Debian's cron takes 999


def line(job: Job, fields: str, zone: str) -> str:
    """Return the line with comments. With a user it is for /etc/cron.d, without for `crontab -e`.

    Raises UsageError for a command that cron cannot hold.
    """
    where = "for /etc/cron.d" if job.user else "for crontab -e"
    what = (
        f"# The job {job.name}, {where}. Times are in the zone of this machine, {zone or 'whose name is not known'}.\n"
    )
    user = f"{job.user.name} " if job.user else ""
    return f"{what}{fields} {user}{_command(job)}\n"


def runs_dir(job: Job) -> Path:
    return job.runs_dir or job.folder / "runs"


def _command(job: Job) -> str:
    variables = [f"BULKIMG_{name.upper()}_FILE={shlex.quote(str(path))}" for name, path in job.credentials.items()]
    if job.config:
        variables.append(f"XDG_CONFIG_HOME={shlex.quote(str(job.config.parent.parent))}")
    words = [
        *job.program,
        "run",
        str(job.path),
        "--yes",
        "-q",
        *([] if job.runs_dir else ["--runs-dir", str(runs_dir(job))]),
    ]
    command = f"cd {shlex.quote(str(job.folder))} && {' '.join([*variables, *map(shlex.quote, words)])}"
    if "\\" in command:
        raise UsageError(f"{job.path}: crons differ about a backslash in a command; rename what has one")
    found = re.sub("%", r"\%", command)  # cron(5) would begin a new line there
    if len(found) > LONGEST:
        raise UsageError(
            f"{job.path}: the line has {len(found):,} characters, and cron takes {LONGEST}; shorten the paths"
        )
    return found
