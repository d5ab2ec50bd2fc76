"""Control a running run over a socket in its directory: one request for each connection, one JSON line each way.

Only the owner can read the directory and the socket. A user who can open the socket could also kill the process.
"""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from bulkimg.errors import RunRefused, StorageError, UsageError
from bulkimg.values import parse_rate

NAME = "ctl.sock"
PATIENCE = 5.0  # seconds for one request or answer
LONGEST = 4096  # most bytes of a request
MOST_ROWS = 1000  # most rows in flight, as for --concurrency

Order = tuple[str, Any]
Handler = Callable[[list[Order]], Awaitable[dict[str, Any]]]


def parse_orders(words: list[str]) -> list[Order]:
    """Parse `rate=5/s`, `concurrency=8`, `pause`, `go`, `stop`, `status`. Raises UsageError for anything else."""
    orders: list[Order] = []
    for word in words:
        name, equals, value = word.partition("=")
        try:
            if name == "rate" and equals:
                orders.append((name, parse_rate(value)))
            elif name == "concurrency" and equals:
                orders.append((name, _rows(value)))
            elif word in ("pause", "go", "stop", "status"):
                orders.append((word, None))
            else:
                raise ValueError("is not one of rate=N/s, concurrency=N, pause, go, stop, status")
        except ValueError as why:
            raise UsageError(f"{word!r} {why}") from None
    return orders


def _rows(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_ROWS):
        raise ValueError(f"is not a number of rows: write 1 to {MOST_ROWS}")
    return int(text)


@asynccontextmanager
async def listening(directory: Path, handle: Handler) -> AsyncIterator[str]:
    """Take orders for the run within the block. Gives "", or why it cannot: a run without a socket still works."""
    path = directory / NAME
    try:
        listener = _bind(path)
    except OSError as error:
        yield f"{path}: {error.strerror}"
        return
    try:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asyncio.timeout(PATIENCE):
                    line = await reader.readuntil(b"\n")
                writer.write(await _answered(line, handle))  # however long the ledger takes
                async with asyncio.timeout(PATIENCE):
                    await writer.drain()
            except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                pass  # the client left, sends nothing or does not stop sending: no one waits for an answer
            finally:
                writer.close()

        server = await asyncio.start_unix_server(answer, sock=listener, limit=LONGEST)
        async with server:
            yield ""
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


async def _answered(line: bytes, handle: Handler) -> bytes:
    try:
        found: dict[str, Any] = {"status": await handle(parse_orders(_words(line)))}
    except UsageError as error:
        found = {"error": str(error)}
    except StorageError as error:
        found = {"failed": f"the run has obeyed, and ends: {error}"}
    return json.dumps(found).encode() + b"\n"


def _words(line: bytes) -> list[str]:
    try:
        words = json.loads(line)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError("a request must be one line with a JSON list of strings")
    return words


def ask(directory: Path, words: list[str]) -> dict[str, Any]:
    """Send orders to the run in that directory.

    Returns its status once it has obeyed. Raises RunRefused if no process runs, or if it does not answer, and StorageError
    if its ledger fails.
    """
    gone = RunRefused(f"run {directory.name} takes no orders: no process carries it out, or none that can be told")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        try:
            with _short(directory) as name:
                connection.connect(name)
            connection.sendall(json.dumps(words).encode() + b"\n")
            with connection.makefile("rb") as file:
                line = file.readline()
        except TimeoutError:
            raise RunRefused(
                f"run {directory.name} has not answered for {PATIENCE:g} s, so it may have obeyed or not: its process is "
                f"stopped, or its disk is slow; look with bulkimg ctl {directory.name} status"
            ) from None
        except OSError:
            raise gone from None
    if not line:
        raise gone
    answer = json.loads(line)
    if "failed" in answer:
        raise StorageError(str(answer["failed"]))
    if "error" in answer:
        raise UsageError(str(answer["error"]))
    status: dict[str, Any] = answer["status"]
    return status


def _bind(path: Path) -> socket.socket:
    with suppress(FileNotFoundError):
        path.unlink()  # left by a dead process: this process holds the run
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path.parent) as name:
            listener.bind(name)
        path.chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener


@contextmanager
def _short(directory: Path) -> Iterator[str]:
    """Return a path of the socket that is short enough: the system allows 107 bytes (unix(7))."""
    full = str(directory / NAME)
    if len(os.fsencode(full)) <= 100:
        yield full
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)
