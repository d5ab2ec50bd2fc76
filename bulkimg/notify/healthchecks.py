"""Ping a check of healthchecks (https://healthchecks.io or one's own): it raises the alarm when a job is silent."""

from urllib.parse import urlsplit

from bulkimg.notify.message import Message
from bulkimg.notify.post import Patience, post


def is_ping_url(url: str) -> bool:
    """Return whether `/start` can be appended to the address."""
    parts = urlsplit(url)
    return not parts.query and not parts.fragment


async def ping(url: str, signal: str, run: str, message: Message | None, patience: Patience) -> str:
    """Send `start`, an exit code or `log`. `run` ties a start to its end. Returns "" or why it was not accepted."""
    body = message.text.encode() if message else b""
    return await post(
        f"{url.rstrip('/')}/{signal}?rid={run}", body, lambda: {"Content-Type": "text/plain; charset=utf-8"}, patience
    )
