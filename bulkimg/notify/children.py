"""Start programs of the user: without our credentials, in a group of their own, killed when their time is over."""

import asyncio
import os
import signal
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

_KEPT = 8192  # bytes of standard error


class Ended(NamedTuple):
    """The end of a program: its exit code (negative for a signal), or None where its time was over."""

    code: int | None
    last_line: str  # of standard error


def environment(more: Mapping[str, str], *, credentials_directory: bool = False) -> dict[str, str]:
    """Return our environment without BULKIMG_ variables, with `more`."""
    left_out = () if credentials_directory else ("CREDENTIALS_DIRECTORY",)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("BULKIMG_") and name not in left_out
    }
    return kept | dict(more)


async def run(words: Sequence[str], given: bytes, env: Mapping[str, str], seconds: float) -> Ended:
    """Run a program with `given` on its standard input. Its standard output is discarded. Raises OSError.

    The pipe is not asyncio's: `wait` would also wait for every process that holds asyncio's pipe open, such as a daemon
    that the program leaves behind.
    """
    loop, said = asyncio.get_running_loop(), bytearray()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    loop.add_reader(reader, _listen, reader, said)
    try:
        try:
            process = await _start(words, given, env, writer)
        finally:
            os.close(writer)
        code = await _end_of(process, seconds)
        _listen(reader, said)
    finally:
        loop.remove_reader(reader)
        os.close(reader)
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return Ended(code, lines[-1].strip()[:300] if lines else "")


async def _start(words: Sequence[str], given: bytes, env: Mapping[str, str], stderr: int) -> Process:
    with tempfile.TemporaryFile() as stdin:
        stdin.write(given)
        stdin.seek(0)
        return await asyncio.create_subprocess_exec(
            *words, stdin=stdin, stdout=DEVNULL, stderr=stderr, env=dict(env), start_new_session=True
        )


async def _end_of(process: Process, seconds: float) -> int | None:
    """Return the exit code, or None where the time was over. Then, or if we are cancelled, its group is killed."""
    try:
        async with asyncio.timeout(seconds):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _listen(reader: int, said: bytearray) -> None:
    """Keep the end of what was written so far."""
    with suppress(BlockingIOError):
        said += (piece := os.read(reader, 65536))
        del said[:-_KEPT]
        if not piece:  # it was closed; otherwise we would be called again and again
            asyncio.get_running_loop().remove_reader(reader)
