"""Start bulkimg processes for the battery: as a new process, or warm, forked from a process that has imported it.

Interpreter and imports take half a second, a fork takes ten milliseconds, and the battery kills thousands of processes.
A warm process runs the same `bulkimg.cli.main.main`; only the start of the interpreter is skipped.
"""

import contextlib
import enum
import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tests.conftest import ROOT

Limits = Mapping[int, int]  # resource.RLIMIT_… → its value
NO_LIMITS: Limits = {}
NO_ENV: Mapping[str, str] = {}
WARM_MODULES = (
    "aiohttp", "uvloop", "bulkimg.cli.main", "bulkimg.cli.run", "bulkimg.cli.resume", "bulkimg.cli.runs",
    "bulkimg.cli.status", "bulkimg.cli.retry", "bulkimg.cli.execute", "bulkimg.engine", "bulkimg.zstack",
)  # fmt: skip
_CAUGHT = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGCHLD,
    signal.SIGUSR1,
)


class Pause(enum.Enum):
    """Where a warm process waits for its parent, which may then attach a tracer to the waiting thread."""

    START = "before the command"
    RUN_DIR = "before the run's directory is made"
    LEDGER_THREAD = "as the thread that writes the ledger begins"


@dataclass(frozen=True)
class Ran:
    """A process that has ended. The code is `subprocess`'s, negative for a signal."""

    code: int
    out: str
    err: str
    seconds: float = 0.0

    @property
    def traceback(self) -> bool:
        return "Traceback" in self.err or "Traceback" in self.out

    @property
    def sentence(self) -> str:
        """The last error message of the command, or ""."""
        said = [line for line in self.err.splitlines() if line.startswith("bulkimg: ")]
        return said[-1] if said else ""


@dataclass(frozen=True)
class Tool:
    """bulkimg in a folder of its own, with a clean environment that names the server."""

    place: Path
    server_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_env(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        ours = {
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(self.place / "config"),
            "BULKIMG_PROGRESS": "none",
            "BULKIMG_SURVEY": "false",
        }
        return {**kept, **ours, **self.server_env}

    @property
    def runs_dir(self) -> Path:
        return self.place / "runs"

    def run(
        self,
        *args: str,
        prefix: Sequence[str] = (),
        limits: Limits = NO_LIMITS,
        env: Mapping[str, str] = NO_ENV,
        timeout: float = 120,
    ) -> Ran:
        """Run a new process to its end."""
        begun = time.monotonic()
        process = self.start(*args, prefix=prefix, limits=limits, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            return Ran(process.returncode, out, err + "\n(ended by the battery: it took too long)", timeout)
        return Ran(process.returncode, out, err, time.monotonic() - begun)

    def start(
        self,
        *args: str,
        prefix: Sequence[str] = (),
        limits: Limits = NO_LIMITS,
        env: Mapping[str, str] = NO_ENV,
        stdout: int = subprocess.PIPE,
    ) -> "subprocess.Popen[str]":
        """Start a new process and return."""
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "bulkimg", *args],
            cwd=self.place,
            env={**self.whole_env, **env},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: set_limits(limits)) if limits else None,  # noqa: PLW1509 - one thread here
        )

    def warm(self, *args: str, pause: Pause | None = None, limits: Limits = NO_LIMITS) -> "Warm":
        """Fork the same command and return."""
        return warm_start(self.place, self.whole_env, args, pause=pause, limits=limits)

    def warm_run(self, *args: str, limits: Limits = NO_LIMITS, timeout: float = 120) -> Ran:
        """Fork the same command and wait for it."""
        return self.warm(*args, limits=limits).ended(timeout)

    def run_dirs(self) -> list[Path]:
        """Return the run directories, oldest first, also those without a ledger."""
        return sorted(path for path in self.runs_dir.iterdir() if path.is_dir()) if self.runs_dir.is_dir() else []


class Warm:
    """A forked bulkimg process: wait for it, send it signals, read its output."""

    def __init__(self, pid: int, out: Path, err: Path, told: int | None, go: int | None) -> None:
        self.pid = pid
        self.started = time.monotonic()
        self._out = out
        self._err = err
        self._told = told
        self._go = go
        self._code: int | None = None

    def paused(self) -> tuple[int, str] | None:
        """Wait until the pause.

        Returns (thread id, run directory, if it has one), or None if the process ended before it.
        """
        assert self._told is not None
        told = os.read(self._told, 4096)
        if not told:
            return None
        thread, run_dir = json.loads(told)
        return int(thread), str(run_dir)

    def go_on(self) -> None:
        """End the pause."""
        assert self._go is not None
        with contextlib.suppress(BrokenPipeError):  # it has died meanwhile
            os.write(self._go, b".")

    def send(self, number: int) -> None:
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> Ran:
        self.send(signal.SIGKILL)
        return self.ended()

    def poll(self) -> int | None:
        """Return the exit code if the process has ended, negative for a signal."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._note(status)
        return self._code

    def wait(self, timeout: float = 120) -> int:
        """Wait and return the exit code. Raises TimeoutError if it takes longer; the process then continues."""
        until = time.monotonic() + timeout
        nap = 0.001
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise TimeoutError(f"process {self.pid} has not ended within {timeout:.0f} s")
            time.sleep(nap)
            nap = min(nap * 1.5, 0.02)
        return code

    def ended(self, timeout: float = 120) -> Ran:
        """Wait and read the output. A process that takes longer is killed, and its error output says so."""
        note = ""
        try:
            code = self.wait(timeout)
        except TimeoutError:
            self.send(signal.SIGKILL)
            code = self.wait(10)
            note = "\n(ended by the battery: it took too long)"
        return Ran(code, _said(self._out), _said(self._err) + note, time.monotonic() - self.started)

    def _note(self, status: int) -> None:
        self._code = os.waitstatus_to_exitcode(status)
        for descriptor in (self._told, self._go):
            if descriptor is not None:
                os.close(descriptor)
        self._told = self._go = None


def _said(path: Path) -> str:
    """Return the file's text, or "" if the child did not live long enough to open it."""
    return path.read_text("utf-8", "replace") if path.exists() else ""


def preload() -> None:
    """Import what a command imports, so that forks need not."""
    for name in WARM_MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def warm_start(
    place: Path,
    env: Mapping[str, str],
    args: Sequence[str],
    *,
    pause: Pause | None = None,
    limits: Limits = NO_LIMITS,
) -> Warm:
    """Fork a bulkimg process with its standard streams in files of `place`.

    The caller has one thread and no event loop.
    """
    assert threading.active_count() == 1, "a fork would copy one thread of several"
    preload()
    out, err = place / "out.txt", place / "err.txt"
    told = go = None
    child_ends: tuple[int, int] | None = None
    if pause:
        told, tell = os.pipe()
        wait_for, go = os.pipe()
        child_ends = (tell, wait_for)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_bulkimg(place, env, args, (out, err), (pause, *child_ends) if pause and child_ends else None, limits)
    for descriptor in child_ends or ():
        os.close(descriptor)
    return Warm(pid, out, err, told, go)


def _be_bulkimg(
    place: Path,
    env: Mapping[str, str],
    args: Sequence[str],
    streams: tuple[Path, Path],
    pause: tuple[Pause, int, int] | None,
    limits: Limits,
) -> NoReturn:
    """Run bulkimg in the forked child. It never returns into the battery's own code."""
    code = 1
    try:
        _default_signals()
        os.chdir(place)
        os.environ.clear()
        os.environ.update(env)
        _redirect(*streams)
        kept = pause[1:] if pause else ()
        _close_all_but(kept)
        set_limits(limits)
        sys.argv = ["bulkimg", *args]
        if pause:
            _pause_at(*pause)
        code = _main()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _main() -> int:
    """Return the exit code that `python -m bulkimg` would have."""
    from bulkimg.cli.main import main  # the child alone needs it

    try:
        main()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:  # what the interpreter would print
        traceback.print_exc()
        return 1


def _default_signals() -> None:
    """Set signals as the interpreter does: INT raises, PIPE is ignored, all others have their default."""
    for number in _CAUGHT:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _redirect(out: Path, err: Path) -> None:
    """Redirect the standard streams to files of our own."""
    for number, path, flags in ((0, Path(os.devnull), os.O_RDONLY), (1, out, _WRITE), (2, err, _WRITE)):
        descriptor = os.open(path, flags, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False))  # noqa: SIM115 - a descriptor
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False))  # noqa: SIM115
    sys.stderr = io.TextIOWrapper(open(2, "wb", closefd=False), "utf-8", "backslashreplace", None, True)  # noqa: SIM115


_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def _close_all_but(kept: Sequence[int]) -> None:
    """Close files as an exec would: the battery's pipes must not stay open in a process that will be killed."""
    low = 3
    for descriptor in [*sorted(kept), 1 << 16]:
        os.closerange(low, descriptor)
        low = descriptor + 1


def set_limits(limits: Limits) -> None:
    """Set hard and soft limits of this process."""
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def _pause_at(pause: Pause, tell: int, wait_for: int) -> None:
    """Make the process report the thread and the run directory, and wait, when it comes to the pause.

    Audit events and the profile hook show the moment; nothing of bulkimg is changed.
    """
    made: list[str] = []

    def report(thread: int) -> None:
        os.write(tell, json.dumps([thread, made[-1] if made else ""]).encode())
        os.read(wait_for, 1)

    def on_event(event: str, args: tuple[Any, ...]) -> None:
        if event == "os.mkdir" and Path(args[0]).parent.name == "runs" and not made:
            made.append(os.path.abspath(args[0]))  # noqa: PTH100 - resolves no link
            if pause is Pause.RUN_DIR:
                report(os.getpid())

    def on_thread(_frame: Any, _event: str, _arg: Any) -> None:
        sys.setprofile(None)
        if threading.current_thread().name == "bulkimg-ledger":
            report(threading.get_native_id())

    if pause is Pause.START:
        report(os.getpid())
        return
    sys.addaudithook(on_event)
    if pause is Pause.LEDGER_THREAD:
        threading.setprofile(on_thread)


class Tracer:
    """strace on one paused thread, or on a process and the threads that it will start."""

    def __init__(self, thread: int, options: Sequence[str], log: Path) -> None:
        self._process = subprocess.Popen(
            ["strace", "-o", str(log), *options, "-p", str(thread)], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        self.said = self._process.stderr.readline()
        while "resolved into" in self.said:
            self.said = self._process.stderr.readline()
        self.attached = "attached" in self.said

    def ended(self) -> None:
        """Wait until strace has written everything. It ends with the thread."""
        assert self._process.stderr is not None
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stderr.close()


@contextlib.contextmanager
def traced(
    warm: Warm, options: Callable[[str], Sequence[str]], log: Path, *, run_dir: str = ""
) -> Iterator[Tracer | None]:
    """Attach at the pause with the options for the run directory. Returns None if the process never came there."""
    found = warm.paused()
    if found is None:
        yield None
        return
    thread, made = found
    tracer = Tracer(thread, options(run_dir or made), log)
    if not tracer.attached:
        warm.kill()
        tracer.ended()
        raise RuntimeError(f"strace: {tracer.said}")
    warm.go_on()
    try:
        yield tracer
    finally:
        if warm.poll() is None:
            warm.kill()
        tracer.ended()
