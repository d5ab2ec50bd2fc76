"""Fork bulkimg commands from a process that has imported everything: 20 ms instead of half a second each.

A fork runs the same `bulkimg.cli.main.main` with its own streams, folder and environment; only the start of the
interpreter is skipped. `Cli.start` and the tests of start-up, encodings and limits use new processes.
"""

import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

ROOT = Path(__file__).parent.parent
MODULES = (
    "aiohttp", "aiohttp.web", "uvloop", "rich.progress", "rich.console", "bulkimg.engine", "bulkimg.zstack",
    *(f"bulkimg.cli.{path.stem}" for path in (ROOT / "bulkimg" / "cli").glob("*.py") if path.stem != "__init__"),
)  # fmt: skip
# The interpreter or the linker reads these at its start: a fork would have its parent's.
COLD = ("PYTHON", "LC_", "LANG", "LD_", "FAKETIME", "MALLOC", "GLIBC")


def fits(environment: Mapping[str, str]) -> bool:
    """Return whether a fork can have these variables, besides those that every command has."""
    return not any(name.startswith(COLD) for name in environment)


class Forge:
    """The process that forks. There is one for each process of tests."""

    def __init__(self) -> None:
        self.turn = threading.Lock()  # one command at a time; if it is busy, the caller starts a new process
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from tests.warm import serve; serve(int(sys.argv[1]))",
                str(theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        theirs.close()

    def run(
        self, words: Sequence[str], place: Path, env: Mapping[str, str], streams: Sequence[BinaryIO], timeout: float
    ) -> int:
        """Run one command and return its exit code.

        Ends it and raises `subprocess.TimeoutExpired` if it takes longer.
        """
        asked = json.dumps({"words": list(words), "place": str(place), "env": dict(env)}).encode()
        path = place / f".asked-{os.getpid()}"
        path.write_bytes(asked)
        socket.send_fds(self._ours, [str(path).encode()], [stream.fileno() for stream in streams])
        pid = int(self._received(30))
        path.unlink()
        try:
            return int(self._received(timeout))
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._received(30)
            raise subprocess.TimeoutExpired(list(words), timeout) from None

    def _received(self, timeout: float) -> bytes:
        self._ours.settimeout(timeout)
        said = self._ours.recv(64)
        assert said, "the forge has ended"
        return said

    def close(self) -> None:
        self._ours.close()
        self._process.wait(30)


def serve(end: int) -> None:
    """Fork a command for each request until the other end closes. Writes its pid, then its exit code."""
    for name in MODULES:
        importlib.import_module(name)
    with socket.socket(fileno=end) as pipe:
        while True:
            path, streams, _, _ = socket.recv_fds(pipe, 4096, 3)
            if not path:
                return
            asked = json.loads(Path(path.decode()).read_text())
            pid = os.fork()
            if pid == 0:
                _become(asked, streams, pipe)
            for stream in streams:
                os.close(stream)
            pipe.send(str(pid).encode())
            _, status = os.waitpid(pid, 0)
            pipe.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(asked: dict[str, Any], streams: Sequence[int], pipe: socket.socket) -> NoReturn:
    code = 1
    try:
        pipe.close()
        os.chdir(asked["place"])
        os.environ.clear()
        os.environ.update(asked["env"])
        time.tzset()
        random.seed()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
        sys.argv = ["bulkimg", *asked["words"]]
        from bulkimg.cli.main import main  # imported already, by serve

        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)
