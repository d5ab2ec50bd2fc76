"""A file → rows. `read_manifest` is the door; every bad record is a Problem with its line, never an exception."""

from bulkimg.manifest.columns import Columns
from bulkimg.manifest.reader import Manifest, read_manifest

__all__ = ["Columns", "Manifest", "read_manifest"]
