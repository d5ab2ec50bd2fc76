"""Open the parts of a workbook: files in a zip archive that point to each other by relationships.

Names of parts are free. So they are looked up by relationships, as a spreadsheet program does it.
"""

import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

from bulkimg.manifest.xlsx.markup import Element, elements
from bulkimg.manifest.xlsx.refusal import DAMAGED, TOO_LARGE, refused
from bulkimg.manifest.xlsx.spool import spool

MAX_UNPACKED = 1 << 30  # bytes of all parts that are read
MAX_LIST = 1 << 26  # bytes of a part that lists sheets, relations or styles
MAX_RATIO = 100  # how many times larger a part may be than its compressed bytes; for a full sheet it is about 10
RATIO_FROM = 16 << 20  # bytes of a part from which its ratio counts: small ones do no harm
CHUNK = 1 << 16
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, OSError, OverflowError)  # fmt: skip


class Relation(NamedTuple):
    """A pointer from one part to another. `kind` is the last word of its type, such as worksheet."""

    kind: str
    part: str


class Package:
    """An open archive."""

    def __init__(self, name: str) -> None:
        """Open a file, or standard input. Raises what `spool` raises."""
        file, self.sha256 = spool(name)
        self._file = file
        self._taken = 0
        try:
            self._zip = zipfile.ZipFile(file)
            self._parts = self._by_name()
        except _BROKEN as error:
            self.close()
            raise _damaged(error) from None
        except BaseException:
            self.close()
            raise

    def _by_name(self) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            name = _normal(info.filename)
            if name in found:
                raise refused(DAMAGED, f"contains two files with the name {info.filename[:80]!r}")
            found[name] = info
        return found

    def __contains__(self, part: str) -> bool:
        return _normal(part) in self._parts

    def elements(self, part: str) -> Iterator[Element]:
        """Yield the start tags of a part that is a list. Raises what `chunks` raises."""
        return elements(part, self.chunks(part, MAX_LIST))

    def chunks(self, part: str, most: int = MAX_UNPACKED) -> Iterator[bytes]:
        """Yield the bytes of a part. Raises Unreadable if it is missing, damaged or too large."""
        info = self._parts.get(_normal(part))
        if info is None:
            raise refused(DAMAGED, f"has no part {part[:80]!r}")
        if info.flag_bits & 1:
            raise refused("ENCRYPTED", "is a zip archive with a password", "save a copy without the password")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refused(DAMAGED, f"{part[:80]} is compressed in a way that spreadsheet programs do not use")
        self._refuse_too_large(info, info.file_size, most)
        read = 0
        try:
            with self._zip.open(info) as file:
                while chunk := file.read(CHUNK):
                    read += len(chunk)
                    self._taken += len(chunk)
                    self._refuse_too_large(info, read, most)
                    yield chunk
        except _BROKEN as error:
            raise _damaged(error) from None

    def _refuse_too_large(self, info: zipfile.ZipInfo, size: int, most: int) -> None:
        if max(self._taken, size) > MAX_UNPACKED:
            raise refused(TOO_LARGE, "unpacks to more than 1 GiB", "split the table into several workbooks")
        if size > most:
            raise refused(TOO_LARGE, f"{info.filename[:80]} unpacks to more than {most >> 20} MiB")
        if size > RATIO_FROM and size > MAX_RATIO * info.compress_size:
            raise refused(TOO_LARGE, f"{info.filename[:80]} unpacks to more than {MAX_RATIO} times its size")

    def relations(self, part: str) -> dict[str, Relation]:
        """Return the relations of a part by id, or of the whole package for "". A part without any has none."""
        directory, name = posixpath.split(part)
        file = posixpath.join(directory, "_rels", f"{name}.rels")
        if file not in self:
            return {}
        return {
            found.attributes.get("Id", ""): Relation(
                found.attributes.get("Type", "").rpartition("/")[2],
                _resolved(directory, found.attributes.get("Target", "")),
            )
            for found in self.elements(file)
            if found.name == f"{_RELATIONS} Relationship" and found.attributes.get("TargetMode") != "External"
        }

    def close(self) -> None:
        """Close the private copy, which removes it."""
        self._file.close()


def _normal(name: str) -> str:
    """Return the name as it is compared: in any case, with either slash."""
    return name.replace("\\", "/").lstrip("/").casefold()


def _resolved(directory: str, target: str) -> str:
    return posixpath.normpath(posixpath.join("/", directory, unquote(target.replace("\\", "/")))).lstrip("/")


def _damaged(error: Exception) -> Exception:
    return refused(DAMAGED, f"the workbook is damaged or truncated: {error}", "get a complete copy of the file")
