"""The practice server: speaks the image API in both dialects, and knows nothing of the client it tests."""

from bulkimg.sandbox.options import Options
from bulkimg.sandbox.server import serve

__all__ = ["Options", "serve"]
