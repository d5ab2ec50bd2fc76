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

from tests.conftest import Cli, Running
from tests.warm import Warm

EVERY = 0.01  # seconds between two samples
MOST = 60  # seconds: longer is a hang


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
    program: Sequence[str] = (),
    cold: bool = False,
    kill_when: Callable[[], bool] | None = None,
    umask: int = -1,
    **environment: str,
) -> Seen:
    """Run bulkimg to its end, or kill it as soon as a condition is true.

    `cold`: use a new process, for its memory or for its command line as others see it. `program` is what Python runs
    instead.
    """
    seen = Seen()
    begun = time.monotonic()
    process: Running
    if program:
        process = _python(cli, [*program, *arguments], umask, environment)
    else:
        process = Cli(cli.place, {**cli.environment, **environment}).start(*arguments, umask=umask, cold=cold)
    sampler = threading.Thread(target=_sample, args=(process, seen, arguments))
    sampler.start()
    try:
        if kill_when is not None:
            while process.poll() is None and not kill_when() and time.monotonic() - begun < MOST:
                time.sleep(EVERY)
            process.kill()
        seen.out, seen.err = (said.encode() for said in process.communicate(timeout=MOST))
    finally:
        process.kill()
        seen.code = process.wait()
        sampler.join()
    seen.seconds = time.monotonic() - begun
    return seen


def _python(cli: Cli, words: Sequence[str], umask: int, environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=cli.place,
        env=cli.env(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        umask=umask,
        text=True,
    )


def some_rows_are_settled(cli: Cli) -> bool:
    """Return whether a run in the folder has written outcomes: the moment to kill it."""
    return any(len(path.read_bytes().splitlines()) > 5 for path in cli.place.glob("runs/*/results.jsonl"))


def _sample(process: Running, seen: Seen, arguments: Sequence[str]) -> None:
    """Sample the process. A fork has the command line of its parent, so only its own arguments count."""
    is_fork = isinstance(process, Warm)
    if is_fork:
        seen.command_lines.add(b"\0".join(word.encode() for word in arguments))
    place = Path("/proc") / str(process.pid)
    while process.returncode is None:
        with contextlib.suppress(OSError):
            command_line = (place / "cmdline").read_bytes()
            status = (place / "status").read_text()
            limits = (place / "limits").read_text()
            if is_fork or b"bulkimg" in command_line:
                seen.command_lines |= set() if is_fork else {command_line}
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
