"""Fork bulkimg commands from a process that has imported everything: 20 ms instead of half a second each.

A fork runs the same `bulkimg.cli.main.main` with its own streams, folder and environment, and gets real signals; only
the start of the interpreter is skipped. Tests of start-up, imports, encodings and limits use new processes.
"""

import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, NoReturn

from pydantic import BaseModel

ROOT = Path(__file__).parent.parent
MODULES = (
    "aiohttp", "aiohttp.web", "uvloop", "rich.progress", "rich.console", "bulkimg.engine", "bulkimg.zstack",
    "bulkimg.report.plan_page", "bulkimg.report.run_page",
    *(f"bulkimg.cli.{path.stem}" for path in (ROOT / "bulkimg" / "cli").glob("*.py") if path.stem != "__init__"),
)  # fmt: skip
# The interpreter or the linker reads these at its start: a fork would have its parent's.
COLD = ("PYTHON", "LC_", "LANG", "LD_", "FAKETIME", "MALLOC", "GLIBC")


def fits(environment: Mapping[str, str]) -> bool:
    """Return whether a fork can have these variables, besides those that every command has."""
    return not any(name.startswith(COLD) for name in environment)


@dataclass(frozen=True)
class Order:
    """A command and how to start it."""

    words: Sequence[str]
    place: str
    env: Mapping[str, str]
    group: bool = False  # in a process group of its own
    session: bool = False  # in a session of its own
    umask: int = -1  # -1: that of the tests
    ignored: Sequence[int] = ()  # signals that the starting process ignores


class Forge:
    """The process that forks. There is one for each process of tests. Any number of commands run at a time."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {name: value for name, value in os.environ.items() if name == "LANG" or fits({name: value})}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from tests.warm import serve; serve(int(sys.argv[1]))",
                str(theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={**kept, "PYTHONPATH": str(ROOT)},
        )
        theirs.close()

    def start(self, order: Order, stdin: int, stdout: int, stderr: int) -> "Warm":
        """Start a command. The descriptors are as in `subprocess`, with PIPE and DEVNULL."""
        given: list[int] = []
        pipes: list[IO[str] | None] = []
        for asked, is_input in ((stdin, True), (stdout, False), (stderr, False)):
            theirs, ours = _stream(asked, is_input)
            given.append(theirs)
            pipes.append(ours)
        report, told = os.pipe()
        with tempfile.TemporaryFile() as written:
            written.write(json.dumps(asdict(order)).encode())
            written.seek(0)
            socket.send_fds(self._ours, [b"a command"], [*given, told, written.fileno()])
        for asked, descriptor in zip((stdin, stdout, stderr), given, strict=True):
            if descriptor != asked:
                os.close(descriptor)
        os.close(told)
        return Warm(order.words, report, *pipes)

    def fileno(self) -> int:
        """Return the descriptor that takes orders, for a process that inherits it."""
        return self._ours.fileno()

    def close(self) -> None:
        """End the process and every command that still runs."""
        self._ours.shutdown(socket.SHUT_RDWR)  # also for a process that has inherited it
        self._ours.close()
        self._process.wait(30)


def _stream(asked: int, is_input: bool) -> tuple[int, IO[str] | None]:
    """Return the descriptor for the command, and our end if it is a pipe."""
    if asked == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDONLY if is_input else os.O_WRONLY), None
    if asked != subprocess.PIPE:
        return asked, None
    reader, writer = os.pipe()
    if is_input:
        return reader, os.fdopen(writer, "w", encoding="utf-8")
    return writer, os.fdopen(reader, encoding="utf-8")


class Warm:
    """A forked command that can be waited for and gets signals like a `subprocess.Popen`."""

    def __init__(
        self,
        words: Sequence[str],
        report: int,
        stdin: IO[str] | None,
        stdout: IO[str] | None,
        stderr: IO[str] | None,
    ) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.returncode: int | None = None
        self._words = list(words)
        self._report = os.fdopen(report, "rb", buffering=0)
        self.pid = int.from_bytes(self._told(60), "big")

    def _told(self, timeout: float | None) -> bytes:
        """Return the process's next message: the pid, then the exit code."""
        if not select.select([self._report], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self._words, timeout or 0)
        said = self._report.read(4)
        assert said, "the forge has ended"
        return said

    def poll(self) -> int | None:
        """Return the exit code if the command has ended, negative for a signal."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait and return the exit code.

        Raises `subprocess.TimeoutExpired` if it takes longer; the command continues.
        """
        if self.returncode is None:
            self.returncode = int.from_bytes(self._told(timeout), "big", signed=True)
            self._report.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]:
        """Read both outputs to their end, and wait."""
        deadline = None if timeout is None else time.monotonic() + timeout
        said: dict[IO[str], bytes] = {pipe: b"" for pipe in (self.stdout, self.stderr) if pipe and not pipe.closed}
        open_ones: list[IO[str]] = list(said)
        while open_ones:
            ready, _, _ = select.select(open_ones, [], [], _left(deadline))
            if not ready:
                raise subprocess.TimeoutExpired(self._words, timeout or 0)
            for pipe in ready:
                said[pipe] += (piece := os.read(pipe.fileno(), 65536))
                if not piece:
                    open_ones.remove(pipe)
        self.wait(_left(deadline))
        for pipe in said:
            pipe.close()
        out, err = (said[pipe].decode() if pipe in said else "" for pipe in (self.stdout, self.stderr))
        return out, err


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0)


def serve(end: int) -> None:
    """Fork a command for each order until the other end closes. Writes its pid, and its exit code when it has ended."""
    for name in MODULES:
        importlib.import_module(name)
    _compile_templates()
    _make_commands()
    gc.collect()
    gc.freeze()  # so that garbage collection in a fork does not touch, and so copy, the imported objects
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    reports: dict[int, int] = {}
    with socket.socket(fileno=end) as orders:
        while True:
            ready, _, _ = select.select([orders.fileno(), woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                _tell(reports)
            if orders.fileno() in ready and not _forked(orders, reports):
                break
    for pid in reports:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _compile_templates() -> None:
    """Compile the pages' templates once for all forks."""
    from bulkimg.report.render import _environment

    environment = _environment()
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)


def _make_commands() -> None:
    """Make the commands, the parsers of their options and the models of their documents once for all forks."""
    from bulkimg.cli.main import COMMANDS, command_called
    from bulkimg.report import documents

    for name in COMMANDS:
        for option in command_called(name).params:
            option.get_runtime_param()
    for model in vars(documents).values():
        if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == documents.__name__:
            model.model_rebuild()


def _tell(reports: dict[int, int]) -> None:
    """Report every command that has ended."""
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        _say(reports[pid], os.waitstatus_to_exitcode(status))
        os.close(reports.pop(pid))


def _say(report: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the other end does not wait any more
        os.write(report, number.to_bytes(4, "big", signed=True))


def _forked(orders: socket.socket, reports: dict[int, int]) -> bool:
    """Execute one order. Returns False if there are no more."""
    said, descriptors, _, _ = socket.recv_fds(orders, 64, 5)
    if not said:
        return False
    *streams, report, written = descriptors
    with os.fdopen(written, "rb") as file:
        order = Order(**json.load(file))
    pid = os.fork()
    if pid == 0:
        _become(order, streams)
    for stream in streams:
        os.close(stream)
    reports[pid] = report
    _say(report, pid)
    return True


def _become(order: Order, streams: Sequence[int]) -> NoReturn:
    code = 1
    try:
        _begin(order)
        _take(streams)
        from bulkimg.cli.main import main  # imported already, by serve

        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(_flushed(code))


def _flushed(code: int) -> int:
    """Return the exit code after the last flush: as in the interpreter, 120 and a message if the flush fails."""
    try:
        sys.stdout.flush()
    except Exception as error:
        with suppress(Exception):
            sys.stderr.write(f"Exception ignored in: {sys.stdout!r}\n{error!r}\n")
        return 120
    return code


def _begin(order: Order) -> None:
    """Set what an exec and a start-up would set: signals, folder, environment, command line."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in order.ignored:
        signal.signal(number, signal.SIG_IGN)
    if order.session:
        os.setsid()
    elif order.group:
        os.setpgid(0, 0)
    if order.umask >= 0:
        os.umask(order.umask)
    os.chdir(order.place)
    os.environ.clear()
    os.environ.update(order.env)
    time.tzset()
    random.seed()
    sys.argv = ["bulkimg", *order.words]


def _take(streams: Sequence[int]) -> None:
    """Open the standard streams as the interpreter does, and close every other descriptor as an exec would."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1 << 16)
    encoding, errors = sys.stdin.encoding, sys.stdin.errors
    sys.stdin = os.fdopen(0, "r", -1, encoding, errors, closefd=False)
    sys.stdout = os.fdopen(1, "w", -1, encoding, errors, closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding, "backslashreplace", closefd=False)
