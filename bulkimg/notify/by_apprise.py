"""Send a message through apprise, in a process of its own that does not have our credentials."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bulkimg.notify.children import environment, run
from bulkimg.notify.message import Message

_CHILD = Path(__file__).with_name("apprise_child.py")
_WORDS = (sys.executable, "-P", str(_CHILD))
START_UP = 10.0  # seconds to import apprise


class NotChecked(Exception):
    """The addresses could not be checked. The text says why."""


def is_installed() -> bool:
    return importlib.util.find_spec("apprise") is not None


def first_unknown(groups: Sequence[str]) -> list[int]:
    """Return the position (from 1) of the first address of each group that apprise does not know, or 0. Sends nothing.

    One process checks all groups, because its start takes most of the time. Raises NotChecked.
    """
    given = json.dumps({"check": [addresses.split("\n") for addresses in groups]}).encode()
    try:
        done = subprocess.run(
            _WORDS, input=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment({}),
            timeout=START_UP, start_new_session=True, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotChecked(f"apprise did not answer within {START_UP:g} s") from None
    except OSError as error:
        raise NotChecked(f"apprise cannot be started: {error.strerror}") from None
    found = _numbers(done.stdout)
    if done.returncode or found is None or len(found) != len(groups):
        raise NotChecked(f"apprise failed (exit code {done.returncode})")
    return found


def _numbers(said: bytes) -> list[int] | None:
    """Return the list of numbers on the last line, or None. Lines before it are apprise's own."""
    lines = said.strip().split(b"\n")
    try:
        found = json.loads(lines[-1])
    except ValueError:
        return None
    return found if isinstance(found, list) and all(type(number) is int for number in found) else None


async def send(addresses: str, message: Message, seconds: float) -> str:
    """Send the message to every address. Returns "" or why it was not accepted.

    The addresses go through standard input: other users can read a command line.
    """
    given = {"addresses": addresses.split("\n"), "title": message.title, "body": message.text}
    try:
        ended = await run(_WORDS, json.dumps(given).encode(), environment({}), seconds + START_UP)
    except OSError as error:
        return f"apprise cannot be started: {error.strerror}"
    if ended.code is None:
        return f"apprise did not end within {seconds + START_UP:g} s and was stopped"
    return {
        0: "",
        3: "apprise does not know such an address",
        4: "apprise could not deliver it; the address or its service refuses",
        5: "apprise is not installed",
    }.get(ended.code, f"apprise failed (exit code {ended.code})")
