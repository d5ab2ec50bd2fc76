"""Reach a scheduler: the certificates for it, and a connection."""

import asyncio
import ssl
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.comm import CommClosedError
from distributed.comm.addressing import parse_address
from distributed.comm.core import FatalCommClosedError
from distributed.comm.registry import get_backend
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from bulkimg.errors import TargetError, UsageError

CONNECT = 10.0  # seconds to reach the scheduler
_TLS = "Dask's distributed.comm.tls"
_CERTIFICATES = {"ca-file": "tls_ca_file", "client.cert": "tls_client_cert", "client.key": "tls_client_key"}


def security_for(address: str) -> Security | None:
    """Return the certificates of Dask's configuration if the address needs them. Raises UsageError."""
    if not address.startswith("tls://"):
        return None
    try:
        security = Security()
        for name, attribute in _CERTIFICATES.items():
            _check_readable(address, name, getattr(security, attribute))
        found = security.get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise UsageError(
            f"--cluster {address}: the certificates of {_TLS} cannot be used: {first_line(error)}; nothing was sent. Correct them"
        ) from None
    if found is None:
        raise UsageError(
            f"--cluster {address}: no certificate is known for it; nothing was sent. Name the files in {_TLS}: ca-file, "
            "client.cert and client.key, or as DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY"
        )
    return security


def _check_readable(address: str, name: str, path: str | None) -> None:
    if path is None or "\n" in path:  # a certificate itself
        return
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise UsageError(
            f"--cluster {address}: {path}, which {_TLS}.{name} names, cannot be read: {error.strerror}; nothing was sent"
        ) from None


async def reached(address: str, security: Security | None) -> Client:
    """Return a client of the scheduler. Raises TargetError."""
    warnings.filterwarnings("ignore", category=VersionMismatchWarning)  # bulkimg's own version is what has to agree
    try:
        await _knock(address, security or Security())
        client = Client(
            address, asynchronous=True, security=security, timeout=CONNECT, set_as_default=False, name="bulkimg"
        )
        try:
            return await client
        except BaseException:
            await client.close()  # otherwise it warns that nothing has closed it
            raise
    except Exception as error:  # an answer of another program can raise anything
        hint = (
            "check that its certificates are of the same authority"
            if _is_tls(error)
            else "start it, or check the address"
        )
        raise TargetError(
            f"the scheduler at {address} cannot be reached: {_reason(error)}; nothing was sent; {hint}"
        ) from None


async def _knock(address: str, security: Security) -> None:
    """Connect once and hang up. Raises OSError at once where nothing listens: Dask itself tries again for a long time."""
    scheme, rest = parse_address(address)
    connector = get_backend(scheme).get_connector()
    comm: Any = await connector.connect(rest, deserialize=False, **security.get_connection_args("client"))
    comm.abort()


def _is_tls(error: BaseException) -> bool:
    return isinstance(error, FatalCommClosedError) or isinstance(_root(error), ssl.SSLError)


def _reason(error: BaseException) -> str:
    """Return the first line of what is at the bottom of an error."""
    root = _root(error)
    return first_line(root) if isinstance(root, OSError | ImportError) else "what answers there is no Dask scheduler"


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


async def closed(what: Any) -> None:
    """Close a client or cluster, which may have lost its other end."""
    with suppress(OSError, TimeoutError, CommClosedError):
        async with asyncio.timeout(CONNECT):
            await what.close()
