"""Open a manifest (plain, gz or standard input; any encoding) and yield its numbered lines in bounded memory."""

import gzip
import hashlib
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from bulkimg.errors import ManifestRefused
from bulkimg.manifest.encoding import Utf8Watch, choose
from bulkimg.manifest.formats import GZIP, other_format
from bulkimg.model import Problem
from bulkimg.settings import Settings

# The longest record of the API's fields is under 10 kB. A longer line is damage; it is reported and not kept.
MAX_LINE = 1 << 20
PEEKED = 1 << 16  # bytes that show encoding and format
LONGEST_MAGIC = 16  # bytes that show another file format


class Unreadable(Exception):
    """The manifest cannot be read from here on."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _ReadInto(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class _Hashing(io.RawIOBase):
    """Compute the sha256 of the bytes that pass through: the manifest's identity, as it is on disk."""

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
        self._raw.close()
        super().close()


class _Headed(io.RawIOBase):
    """Pass bytes through after reading a `head`: at least the first line, even if a pipe gives few."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._read: Callable[[int], bytes] = getattr(raw, "read1", raw.read)  # what is there, without waiting for more
        head = b""
        while len(head) < PEEKED and (len(head) < LONGEST_MAGIC or b"\n" not in head):
            part = self._read(PEEKED - len(head))
            if not part:
                break
            head += part
        self.head = head
        self._left = memoryview(head)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self._left:
            part = self._left[: len(view)]
            self._left = self._left[len(part) :]
        else:
            part = memoryview(self._read(len(view)) or b"")
        view[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._raw.close()
        super().close()


class Source:
    """A manifest that is read once, from its first byte to its last."""

    def __init__(self, name: str, settings: Settings, newline: str) -> None:
        """Open the manifest.

        `newline` is "" to split lines at CR, LF and CR LF like editors, or "\\n" for LF only, as in JSONL.
        """
        self.name = name
        self._raw = _Hashing(open_bytes(name))
        self._number = 0
        try:
            plain = self._plain(_Headed(self._raw))
            if foreign := other_format(plain.head, settings.encoding):
                raise Unreadable(Problem(1, "", "", "OTHER_FORMAT", *foreign, fatal=True))
            choice = choose(plain.head, settings.encoding, configured=settings.encoding_is_configured)
            self._watch = Utf8Watch(plain) if choice.contradicted_by_utf8 else None
            self.encoding = choice.encoding
            buffered = io.BufferedReader(self._watch or plain, PEEKED)
            self._text = io.TextIOWrapper(buffered, encoding=choice.encoding, errors="bulkimg-mark", newline=newline)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Unreadable(self._cut("GZ_DAMAGED", f"the gzip data is damaged: {error}")) from None
        except OSError as error:
            raise _unopened(name, error) from None

    @property
    def sha256(self) -> str:
        """The digest of what was read so far; after the last line, of the whole manifest."""
        return self._raw.sha256.hexdigest()

    def contradiction(self) -> Problem | None:
        """Return why a file that was read in a configured encoding and is UTF-8 is refused.

        Call it after the last line.
        """
        found = self._watch.contradiction(self.encoding) if self._watch else None
        if found is None:
            return None
        line, as_utf8, as_asked = found
        message = (
            f"the file is valid UTF-8, but the configured encoding is {self.encoding}: "
            f"it reads {as_utf8!r} as UTF-8 and {as_asked!r} as {self.encoding}"
        )
        fix = f"choose one with --encoding utf-8 or --encoding {self.encoding}"
        return Problem(line, "", "", "ENCODING", message, fix, fatal=True)

    def _plain(self, packed: "_Headed") -> "_Headed":
        """Return the decompressed bytes. The content decides and not the name, so that a pipe can be compressed too."""
        if packed.head.startswith(GZIP):
            return _Headed(gzip.GzipFile(fileobj=io.BufferedReader(packed, PEEKED)))
        if self.name.lower().endswith(".gz") and packed.head:
            raise Unreadable(self._cut("GZ_DAMAGED", "the name ends in .gz, but this is not gzip data", "rename it"))
        return packed

    def lines(self) -> Iterator[tuple[int, str | None]]:
        """Yield (line number from 1, text with its line end). The text is None if the line is longer than MAX_LINE."""
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

    def _cut(self, code: str, message: str, fix: str = "get a complete copy of the file") -> Problem:
        return Problem(self._number + 1, "", "", code, message, fix, fatal=True)

    def close(self) -> None:
        self._text.close()


def open_bytes(name: str) -> BinaryIO:
    """Open a file, or standard input, without a buffer. Raises ManifestRefused if it cannot be opened."""
    if name == "-":
        if sys.stdin is None:
            raise ManifestRefused("-: standard input is closed; redirect a manifest to it, or name a file")
        # Unbuffered: a buffer would read beyond the end that a person types, and take the answer to a question for
        # rows.
        return open(0, "rb", buffering=0, closefd=False)
    try:
        return Path(name).open("rb", buffering=0)
    except (OSError, ValueError) as error:
        raise _unopened(name, error) from None


def _unopened(name: str, error: Exception) -> ManifestRefused:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return ManifestRefused(f"{name}: cannot be read: {reason}")
