"""Give shells a `bulkimg` that a warm process forks: 40 ms instead of half a second for each command of a page.

The program in the shell passes its streams, folder, environment and signals on, and ends as the fork ends. It starts an
interpreter instead where a fork would differ: other variables that an interpreter reads, or a command of another
command, which has no way to the warm process.
"""

import os
import shutil
import sys
from pathlib import Path

from tests.warm import COLD, Forge

_PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys

FORGE, NUMBER, COLD, KNOWN = {forge!r}, {number!r}, {cold!r}, {known!r}
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def is_warm():
    try:
        is_here = os.fstat(FORGE).st_ino == NUMBER
    except OSError:
        return False
    return is_here and {{name: value for name, value in os.environ.items() if name.startswith(COLD)}} == KNOWN


def order():
    os.umask(umask := os.umask(0))
    ignored = [int(number) for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    written = os.memfd_create("order")
    words = {{"words": sys.argv[1:], "place": os.getcwd(), "env": dict(os.environ), "umask": umask, "ignored": ignored}}
    os.write(written, json.dumps(words).encode())
    os.lseek(written, 0, os.SEEK_SET)
    return written


def fork():
    report, told = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    with socket.socket(fileno=os.dup(FORGE)) as way:
        socket.send_fds(way, [b"a command"], [0, 1, 2, told, order()])
    os.close(told)
    pid = int.from_bytes(os.read(report, 4), "big")
    for number in PASSED_ON:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    code = int.from_bytes(os.read(report, 4), "big", signed=True)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


fork() if is_warm() else os.execv({python!r}, [{python!r}, {program!r}, *sys.argv[1:]])
"""


def write_program(forge: Forge, place: Path, environment: dict[str, str]) -> int:
    """Write `bulkimg` into a folder for the front of PATH. Returns the descriptor that the shell has to inherit.

    SIGKILL ends the program and not its fork: a shell that sends it needs the real one.
    """
    descriptor = forge.fileno()
    known = {name: value for name, value in environment.items() if name.startswith(COLD)}
    found = shutil.which("bulkimg", path=str(Path(sys.executable).parent))
    assert found is not None
    path = place / "bulkimg"
    path.write_text(
        _PROGRAM.format(
            python=sys.executable,
            forge=descriptor,
            number=os.fstat(descriptor).st_ino,
            cold=COLD,
            known=known,
            program=found,
        ),
        "utf-8",
    )
    path.chmod(0o755)
    return descriptor
