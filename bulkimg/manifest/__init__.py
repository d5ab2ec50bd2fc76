"""Read a manifest into rows (`Manifest`). A bad record is a Problem with its line, never an exception."""

from bulkimg.manifest.reader import Manifest

__all__ = ["Manifest"]
