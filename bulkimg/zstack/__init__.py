"""The only room with HTTP: the image API of PROTOCOL.md, in both its dialects."""

from bulkimg.zstack.auth import Auth, make_auth
from bulkimg.zstack.client import ImageApi
from bulkimg.zstack.transport import Transport
from bulkimg.zstack.wire import Answer

__all__ = ["Answer", "Auth", "ImageApi", "Transport", "make_auth"]
