"""The practice server. It speaks the image API in both dialects and shares no code with the client that it tests."""

from bulkimg.sandbox.options import Options
from bulkimg.sandbox.server import serve

__all__ = ["Options", "serve"]
