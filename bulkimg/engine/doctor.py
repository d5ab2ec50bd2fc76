"""Check a server for `bulkimg doctor`: reachable, TLS, login, images, clock. It sends no change."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from bulkimg.credentials import AccessKey, Account, Credentials
from bulkimg.engine.look import reading
from bulkimg.errors import BulkimgError, LoginRefused, TargetError
from bulkimg.model import TAGS
from bulkimg.planner import CannotRead, Reader
from bulkimg.settings import Settings
from bulkimg.words import count
from bulkimg.zstack import read_authority

SKEW = 60.0  # seconds between the two clocks that cause a warning
SOON = 30 * 86400.0  # seconds to the end of a certificate that cause a warning


class Check(NamedTuple):
    """One line of the report. `hint` is what to do if the result is not ok."""

    name: str
    result: Literal["ok", "warn", "fail", "skipped"]
    message: str
    hint: str = ""


async def examine(settings: Settings, credentials: Credentials) -> AsyncIterator[Check]:
    """Yield the checks of a server in order. After a failure, the checks that need it are left out."""
    yield await _tls(settings)
    try:
        async with reading(settings, credentials, lambda event: None) as reader:
            checks = [check async for check in _images(reader)]  # only now is a session known to be accepted
            yield Check("login", "ok", _who(credentials))
            for check in checks:
                yield check
            yield _clock(reader.server_date, time.time())
    except LoginRefused as error:
        yield Check("login", "fail", *_parts(error))
    except (TargetError, CannotRead) as error:
        yield Check("server", "fail", *_parts(error))
        return
    yield _dialect(settings)


def _parts(error: Exception) -> tuple[str, str]:
    what, _, to_do = str(error).partition("; ")
    return what, to_do


def _who(credentials: Credentials) -> str:
    if isinstance(credentials, Account):
        return f"as account {credentials.name}"
    if isinstance(credentials, AccessKey):
        return f"with access key {credentials.key_id}"
    return "with a session"


async def _tls(settings: Settings) -> Check:
    """Check whether the connection is encrypted, and how long its certificate is still valid."""
    url = urlsplit(settings.endpoint or "")
    if url.scheme != "https":
        if settings.is_readable_on_the_way:
            return Check("tls", "warn", "plain http: others on the network can read what is sent", "use https")
        return Check("tls", "ok", "plain http on this machine")
    context = ssl.create_default_context(cadata=read_authority(settings.ca_file))
    try:
        async with asyncio.timeout(settings.timeout):
            _, writer = await asyncio.open_connection(url.hostname, url.port or 443, ssl=context)
    except ssl.SSLCertVerificationError as error:
        return Check(
            "tls",
            "fail",
            f"the certificate is not accepted: {error.verify_message}",
            "name its authority with --ca-file",
        )
    except (OSError, TimeoutError) as error:
        return Check("tls", "fail", f"no connection: {error or 'timed out'}", "check the endpoint and the network")
    certificate = writer.get_extra_info("peercert") or {}
    writer.close()
    left = ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time() if "notAfter" in certificate else SOON
    days = count(int(left // 86400), "day")
    if left < SOON:
        return Check("tls", "warn", f"the certificate ends in {days}", "renew it")
    return Check("tls", "ok", f"the certificate is valid for {days}")


async def _images(reader: Reader) -> AsyncIterator[Check]:
    """Check how many images this account sees, and whether it may read their tags."""
    seen, first = 0, ""
    async for page in reader.pages([], ["uuid"]):
        seen += len(page)
        first = first or str(page[0]["uuid"])
    if not seen:
        yield Check("images", "warn", "this account sees no image", "check the account, or the endpoint")
        return
    yield Check("images", "ok", f"this account sees {count(seen, 'image')}")
    try:
        await reader.images([first], TAGS)
        broken = reader.unreadable
    except BulkimgError as error:
        broken = {"tags": str(error)}
    for kind, why in broken.items():
        yield Check("tags", "warn", f"{kind} cannot be read: {why}", "rows that set them are sent without a diff")
    if not broken:
        yield Check("tags", "ok", "system and user tags can be read")


def _clock(header: str, now: float) -> Check:
    """Compare the server's clock with the local one.

    Signatures carry a date, and a server refuses old ones (docs/dev/protocol.md §4).
    """
    try:
        apart = parsedate_to_datetime(header).timestamp() - now
    except ValueError:
        return Check("clock", "skipped", "the server's answers have no date")
    said = f"the server's clock is {abs(apart):.0f} s {'ahead' if apart > 0 else 'behind'}"
    if abs(apart) > SKEW:
        return Check("clock", "warn", said, "set the clocks by NTP; access keys are refused when they differ too much")
    return Check("clock", "ok", "the server's clock and ours agree")


def _dialect(settings: Settings) -> Check:
    if settings.action_key == "auto":
        return Check("dialect", "ok", "found by the first change of a run (reading does not show it)")
    return Check("dialect", "ok", f"fixed to {settings.action_key} by --action-key")
