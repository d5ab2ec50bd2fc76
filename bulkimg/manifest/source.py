"""This file opens a manifest (plain, gz or standard input; any encoding) and yields its numbered lines in bounded memory."""

import codecs
import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from bulkimg.errors import ManifestRefused
from bulkimg.model import Problem

# A record of the API's longest fields is under 10 kB; a line past this is damage, and is reported without being kept.
MAX_LINE = 1 << 20

# Bytes that the encoding does not know become this, a character that no decoder yields and the row's check refuses.
UNDECODABLE = "\udcff"


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return UNDECODABLE, error.end
    raise error


codecs.register_error("bulkimg-mark", _mark_undecodable)


class Unreadable(Exception):
    """Nothing more can be read from here on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _ReadInto(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class _Hashing(io.RawIOBase):
    """Passes bytes through and keeps their sha256: the manifest's identity, of the bytes as they lie on disk."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # a view is what BufferedReader passes
        count = cast(_ReadInto, self._raw).readinto(buffer) or 0
        self.sha256.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        if sys.stdin is None or self._raw is not sys.stdin.buffer:
            self._raw.close()
        super().close()


class Source:
    """A manifest that is being read once, from its first byte to its last."""

    def __init__(self, name: str, encoding: str, newline: str) -> None:
        """`newline`: "" splits lines at CR, LF and CR LF as editors do, "\\n" at LF only, as JSONL asks."""
        self.name = name
        self._raw = _Hashing(_open(name))
        self._number = 0
        buffered: io.BufferedReader[Any] = io.BufferedReader(self._raw, 1 << 16)
        try:
            self._text = io.TextIOWrapper(
                self._plain(buffered, encoding),
                encoding=self._encoding(encoding),
                errors="bulkimg-mark",
                newline=newline,
            )
        except OSError as error:
            raise _unopened(name, error) from None

    @property
    def sha256(self) -> str:
        """The digest of what has been read so far; of the whole manifest after the last line."""
        return self._raw.sha256.hexdigest()

    def _encoding(self, encoding: str) -> str:
        return "utf-8-sig" if encoding == "utf-8" else encoding

    def _plain(self, buffered: "io.BufferedReader[Any]", encoding: str) -> "io.BufferedReader[Any]":
        """The bytes without gz. The content decides, not the name, so that a pipe can be compressed too."""
        start = buffered.peek(4)[:4]
        if start[:2] == b"\x1f\x8b":
            return cast("io.BufferedReader[Any]", gzip.GzipFile(fileobj=buffered))  # its read1 gives what there is
        if self.name.endswith(".gz") and start:
            raise Unreadable(self._cut("GZ_DAMAGED", "the name ends in .gz, but this is not gzip data", "rename it"))
        if encoding == "utf-8" and start[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            raise Unreadable(
                self._cut("ENCODING", "begins with the byte order mark of UTF-16", "give --encoding utf-16")
            )
        return buffered

    def lines(self) -> Iterator[tuple[int, str | None]]:
        """(number from 1, text with its line end); the text is None where the line is longer than MAX_LINE."""
        while True:
            line = self._readline()
            if not line:
                return
            self._number += 1
            if len(line) < MAX_LINE or line[-1] in "\r\n":
                yield self._number, line
                continue
            while line and line[-1] not in "\r\n":
                line = self._readline()
            yield self._number, None

    def _readline(self) -> str:
        try:
            return self._text.readline(MAX_LINE)
        except EOFError:
            raise Unreadable(self._cut("GZ_DAMAGED", "the gzip data ends too early: the file is truncated")) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise Unreadable(self._cut("GZ_DAMAGED", f"the gzip data is damaged: {error}")) from None
        except OSError as error:
            raise Unreadable(self._cut("UNREADABLE", f"reading failed: {error.strerror}")) from None
        except UnicodeError as error:
            raise Unreadable(
                self._cut("ENCODING", f"cannot be decoded: {error}", "give the right --encoding")
            ) from None

    def _cut(self, code: str, message: str, fix: str = "get a whole copy of the file") -> Problem:
        return Problem(self._number + 1, "", "", code, message, fix, fatal=True)

    def close(self) -> None:
        self._text.close()


def _open(name: str) -> BinaryIO:
    if name == "-":
        if sys.stdin is None:
            raise ManifestRefused("-: standard input is closed")
        return sys.stdin.buffer
    try:
        return Path(name).open("rb", buffering=0)
    except (OSError, ValueError) as error:
        raise _unopened(name, error) from None


def _unopened(name: str, error: Exception) -> ManifestRefused:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ManifestRefused(f"{name}: cannot be read: {reason}")
