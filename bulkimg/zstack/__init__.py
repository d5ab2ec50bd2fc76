"""Speak the image API of docs/dev/protocol.md in both its dialects; the only package that talks to the server."""

from bulkimg.zstack.auth import Auth, log_out, make_auth
from bulkimg.zstack.client import ImageApi
from bulkimg.zstack.http import HttpClient, read_authority
from bulkimg.zstack.transport import Client, Transport
from bulkimg.zstack.wire import Answer

__all__ = [
    "Answer",
    "Auth",
    "Client",
    "HttpClient",
    "ImageApi",
    "Transport",
    "log_out",
    "make_auth",
    "read_authority",
]
