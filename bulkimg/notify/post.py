"""Send one POST to an address that the user named: tried a few times, bounded in time, no redirect, no proxy.

No text of this module names the address, because it is a secret.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp

from bulkimg import __version__

USER_AGENT = f"bulkimg/{__version__}"
_TRY_AGAIN = frozenset({408, 425, 429})  # and 5xx


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try: seconds for one try, and the pauses between two tries."""

    timeout: float
    pauses: tuple[float, ...] = (1.0, 2.0)

    @property
    def once(self) -> "Patience":
        """Return the same with one try only."""
        return Patience(self.timeout, ())


async def post(url: str, body: bytes, headers: Callable[[], Mapping[str, str]], patience: Patience) -> str:
    """Send the body. Returns "" or why it was not accepted. `headers` are made anew for each try."""
    why, tries = "", 0
    connector = aiohttp.TCPConnector(force_close=True, limit=1)
    timeout = aiohttp.ClientTimeout(total=patience.timeout)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        for pause in (*patience.pauses, None):
            why, again = await _once(session, url, body, headers(), patience.timeout)
            tries += 1
            if not why or not again or pause is None:
                break
            await asyncio.sleep(pause)
    return f"{why} ({tries} tries)" if why and tries > 1 else why


async def _once(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str], seconds: float
) -> tuple[str, bool]:
    """Return why it was not accepted, or "", and whether to try again."""
    try:
        async with session.post(
            url, data=body, headers={"User-Agent": USER_AGENT, **headers}, allow_redirects=False
        ) as answer:
            return _judged(answer.status)
    except TimeoutError:
        return f"no answer within {seconds:g} s", True
    except aiohttp.ClientConnectorCertificateError:  # a ValueError too, as are other errors of TLS
        return "the TLS certificate is not trusted", False
    except (aiohttp.ClientSSLError, ssl.SSLError):
        return "no TLS connection could be made", True
    except aiohttp.ClientConnectorDNSError:
        return "the host name is not known", True
    except aiohttp.ClientConnectorError as error:
        why = os.strerror(error.os_error.errno) if error.os_error.errno else "the host does not answer"
        return f"no connection could be made: {why}", True  # the error's own text names the host
    except (aiohttp.InvalidURL, ValueError):
        return "the address is not a URL", False
    except (aiohttp.ClientError, OSError):
        return "the connection broke before an answer came", True


def _judged(status: int) -> tuple[str, bool]:
    if 200 <= status < 300:
        return "", False
    if 300 <= status < 400:
        return f"answered {status}, a redirect, which is not followed; name the final address", False
    return f"answered {status}", status >= 500 or status in _TRY_AGAIN
