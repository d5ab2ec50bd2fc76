"""Copy a workbook into a private file and compute its digest.

A zip archive is read from several places. The copy makes sure that all of them are of one state of the file, even if a
program saves it meanwhile, and it allows standard input.
"""

import hashlib
import mmap
import tempfile
from typing import BinaryIO, NamedTuple, cast

from bulkimg.errors import StorageError
from bulkimg.manifest.formats import OLD_OFFICE, ZIP, other_format
from bulkimg.manifest.source import open_bytes
from bulkimg.manifest.xlsx.refusal import DAMAGED, TOO_LARGE, refused

LARGEST_FILE = 1 << 30  # bytes
MOST_PARTS = 65_535
_CHUNK = 1 << 20
_ENTRY = b"PK\x01\x02"
_PASSWORD = "EncryptedPackage".encode("utf-16-le")


class Spooled(NamedTuple):
    """A private copy of the whole file, and the sha256 of its bytes."""

    file: BinaryIO
    sha256: str


def spool(name: str) -> Spooled:
    """Copy the file or standard input.

    Raises ManifestRefused for a missing file, StorageError for a full disk, and Unreadable if it is no workbook.
    """
    try:
        file = cast(BinaryIO, tempfile.TemporaryFile(prefix="bulkimg-"))  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise _no_copy(name, error) from None
    try:
        digest = _copy(name, file)
        _refuse_other_formats(file)
        _refuse_many_parts(file)
    except BaseException:
        file.close()
        raise
    return Spooled(file, digest)


def _copy(name: str, file: BinaryIO) -> str:
    digest, size = hashlib.sha256(), 0
    with open_bytes(name) as source:
        while chunk := _read(source):
            size += len(chunk)
            if size > LARGEST_FILE:
                raise refused(TOO_LARGE, "the file is larger than 1 GiB", "split the table into several workbooks")
            digest.update(chunk)
            _write(name, file, chunk)
    return digest.hexdigest()


def _write(name: str, file: BinaryIO, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise _no_copy(name, error) from None


def _no_copy(name: str, error: OSError) -> StorageError:
    why = f"no private copy of the workbook can be made: {error.strerror or error}"
    return StorageError(f"{name}: {why}; free space in the temporary directory, or set TMPDIR to another one")


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(_CHUNK)
    except OSError as error:
        raise refused("UNREADABLE", f"reading failed: {error.strerror}", "get a complete copy of the file") from None


def _refuse_other_formats(file: BinaryIO) -> None:
    file.seek(0)
    head = file.read(_CHUNK)
    if head.startswith(ZIP):
        return
    if not head:
        raise refused("NO_ROWS", "the file is empty", "add a row, or get a complete copy of the file")
    if head.startswith(OLD_OFFICE):
        raise _of_the_old_container(file)
    found = other_format(head, "utf-8") or (
        "is not an Excel workbook (.xlsx)",
        "save it as .xlsx, or name it .csv or .jsonl if it is text",
    )
    raise refused("OTHER_FORMAT", *found)


def _of_the_old_container(file: BinaryIO) -> Exception:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        is_locked = content.find(_PASSWORD) >= 0
    if is_locked:
        return refused("ENCRYPTED", "is protected with a password", "save a copy without the password")
    return refused("OTHER_FORMAT", "is an old Excel workbook (.xls), whatever its name says", "save it as .xlsx")


def _refuse_many_parts(file: BinaryIO) -> None:
    """Refuse an archive whose list of parts alone would fill the memory."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(_ENTRY)
        for _ in range(MOST_PARTS):
            if at < 0:
                return
            at = content.find(_ENTRY, at + len(_ENTRY))
    raise refused(DAMAGED, f"contains more than {MOST_PARTS:,} files")
