"""Send a message through apprise, in a process of its own that does not have our credentials."""

import importlib.util
import json
import sys
from pathlib import Path

from bulkimg.notify.children import environment, run
from bulkimg.notify.message import Message

_CHILD = Path(__file__).with_name("apprise_child.py")
START_UP = 10.0  # seconds to import apprise


def is_installed() -> bool:
    return importlib.util.find_spec("apprise") is not None


async def send(addresses: str, message: Message, seconds: float) -> str:
    """Send the message to every address. Returns "" or why it was not accepted.

    The addresses go through standard input: other users can read a command line.
    """
    given = {"addresses": addresses.split("\n"), "title": message.title, "body": message.text}
    try:
        ended = await run(
            [sys.executable, "-P", str(_CHILD)], json.dumps(given).encode(), environment({}), seconds + START_UP
        )
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
