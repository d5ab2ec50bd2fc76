"""Run a bulkimg process and sample its command line and its peak memory until it ends."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import Cli

EVERY = 0.01  # seconds between two samples
MOST = 30  # seconds: longer is a hang


@dataclass
class Seen:
    """What other users of the machine can see of a process, and what it wrote."""

    code: int | None = None
    out: bytes = b""
    err: bytes = b""
    command_lines: set[bytes] = field(default_factory=set)
    limits: str = ""
    peak: int = 0  # peak resident bytes (VmHWM)
    seconds: float = 0.0


def watch(
    cli: Cli,
    *arguments: str,
    program: Sequence[str] = ("-m", "bulkimg"),
    kill_when: Callable[[], bool] | None = None,
    umask: int = -1,
    **environment: str,
) -> Seen:
    """Run bulkimg to its end, or kill it as soon as a condition is true."""
    seen = Seen()
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=cli.place,
        env=cli.env(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        umask=umask,
    ) as process:
        sampler = threading.Thread(target=_sample, args=(process, seen))
        sampler.start()
        try:
            if kill_when is not None:
                while process.poll() is None and not kill_when() and time.monotonic() - begun < MOST:
                    time.sleep(EVERY)
                process.kill()
            seen.out, seen.err = process.communicate(timeout=MOST)
        finally:
            process.kill()
            seen.code = process.wait()
            sampler.join()
    seen.seconds = time.monotonic() - begun
    return seen


def some_rows_are_settled(cli: Cli) -> bool:
    """Return whether a run in the folder has written outcomes: the moment to kill it."""
    return any(len(path.read_bytes().splitlines()) > 5 for path in cli.place.glob("runs/*/results.jsonl"))


def _sample(process: "subprocess.Popen[bytes]", seen: Seen) -> None:
    place = Path("/proc") / str(process.pid)
    while process.returncode is None:
        with contextlib.suppress(OSError):
            command_line = (place / "cmdline").read_bytes()
            status = (place / "status").read_text()
            limits = (place / "limits").read_text()
            if b"bulkimg" in command_line and command_line:
                seen.command_lines.add(command_line)
                seen.peak = max(seen.peak, _peak(status))
                seen.limits = limits or seen.limits
        time.sleep(EVERY)


def _peak(status: str) -> int:
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 if sizes else 0


def limit_of(seen: Seen, name: str) -> Any:
    """Return the soft limit of /proc/PID/limits that begins with `name`."""
    (line,) = [line for line in seen.limits.splitlines() if line.startswith(name)]
    return line.removeprefix(name).split()[0]
