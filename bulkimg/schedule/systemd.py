"""Write the units of a job: a service that is closed to all that it does not need, and its timer."""

import re
from collections.abc import Iterator
from pathlib import Path

from bulkimg.errors import UsageError
from bulkimg.schedule.job import Job

STATE = "/var/lib/bulkimg"  # StateDirectory= is below /var/lib
# What the service does not need (systemd.exec(5)); `systemd-analyze security` rates it.
_HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateDevices=yes
ProtectSystem=strict
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077
"""


def unit_name(job: Job) -> str:
    return f"bulkimg-{job.name}"


def state_directory(job: Job) -> Path:
    """Return the directory that systemd makes for the job's runs, unless the job names another."""
    return Path(STATE) / job.name


def service(job: Job) -> str:
    """Return the text of the service. Raises UsageError for a path that a unit cannot hold."""
    assert job.user is not None
    return "".join(f"{line}\n" for line in _service(job, job.user.name)) + _HARDENING


def _service(job: Job, user: str) -> Iterator[str]:
    yield f"# The job {job.name} once. By hand: systemctl start {unit_name(job)}.service"
    yield from _encrypted(job)
    yield "[Unit]"
    yield f"Description=bulkimg job {job.name}"
    yield "Wants=network-online.target"
    yield "After=network-online.target"
    yield ""
    yield "[Service]"
    yield "Type=oneshot"
    yield f"User={user}"
    runs = [] if job.runs_dir else ["--runs-dir", str(state_directory(job) / "runs")]
    command = [*job.program, "run", str(job.path), "--yes", *runs]
    if "$" in command[0]:
        raise UsageError(f"{command[0]}: a unit cannot start a program with $ in its path; install bulkimg elsewhere")
    yield f"ExecStart={' '.join(word(text) for text in command)}"
    yield f"WorkingDirectory={_percent(str(job.folder))}"
    for name, path in job.credentials.items():
        yield f"LoadCredential=bulkimg.{name}:{_percent(str(path))}"
    if job.config:
        yield f"Environment={word(f'XDG_CONFIG_HOME={job.config.parent.parent}')}"
    if not job.runs_dir:
        yield f"StateDirectory=bulkimg/{job.name}"
        yield "StateDirectoryMode=0700"
    for path in job.written_paths:
        yield f"ReadWritePaths={word(str(path))}"
    yield f"ProtectHome={'read-only' if job.needs('/home', '/root', '/run/user') else 'yes'}"
    yield f"PrivateTmp={'no' if job.needs('/tmp', '/var/tmp') else 'yes'}"  # noqa: S108 - looks, writes nothing
    yield "# A run has no longest time. When it is stopped, rows in flight end first, and the run can be resumed."
    yield "TimeoutStartSec=infinity"
    yield "TimeoutStopSec=2min"
    yield "KillMode=mixed"


def _encrypted(job: Job) -> Iterator[str]:
    """Say how each credential is kept encrypted."""
    for name, path in job.credentials.items():
        kept = f"/etc/credstore.encrypted/bulkimg.{name}"
        yield f"# Encrypted instead: systemd-creds encrypt --name=bulkimg.{name} {path} {kept}"
        yield f"#   and LoadCredentialEncrypted=bulkimg.{name}:{kept} in place of its LoadCredential="


def timer(job: Job, calendar: str) -> str:
    """Return the text of the timer. `calendar` is as systemd reads it."""
    return f"""\
# When the job {job.name} starts. The next times: systemctl list-timers {unit_name(job)}.timer
[Unit]
Description=Times of the bulkimg job {job.name}

[Timer]
OnCalendar={calendar}
# A start that was missed because the machine was off is made up for.
Persistent=true
RandomizedDelaySec=5min

[Install]
WantedBy=timers.target
"""


def word(text: str) -> str:
    """Quote one word of a unit (systemd.syntax(7), systemd.service(5))."""
    escaped = _percent(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return escaped if re.fullmatch(r"[A-Za-z0-9_/.,:=+@%-]+", escaped, re.ASCII) else f'"{escaped}"'


def _percent(text: str) -> str:
    return text.replace("%", "%%")
