"""Choose a manifest's encoding: its byte order mark, our own columns, then what was asked for (docs/reference/manifest.md)."""

import codecs
import io
from dataclasses import dataclass
from typing import Any

UNDECODABLE = (
    "\udcff"  # stands for bytes that are not of the encoding; no decoder returns it, and the row's check refuses it
)
OUR_COLUMNS = frozenset({"_status", "_line"})  # of failed.csv, unprocessed.csv and undo.csv, which are UTF-8
_SHOWN = 40  # characters of a line in a message

# Longer marks first: UTF-32's begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError):
        return UNDECODABLE, error.end
    raise error


codecs.register_error("bulkimg-mark", _mark_undecodable)


@dataclass(frozen=True, slots=True)
class Choice:
    """The encoding to read in. `contradicted_by_utf8`: refuse the file if all of it is UTF-8 beyond ASCII."""

    encoding: str
    contradicted_by_utf8: bool = False


def choose(start: bytes, asked: str, *, configured: bool) -> Choice:
    """Choose the encoding of a file that begins with these bytes.

    `configured`: `asked` comes from the environment, job file or profile.
    """
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return Choice(encoding)
    if _is_ascii_superset(asked) and has_our_columns(start) and (configured or _may_be_utf8(start)):
        return Choice("utf-8-sig")
    if asked == "utf-8":
        return Choice("utf-8-sig")
    return Choice(asked, contradicted_by_utf8=configured and _is_ascii_superset(asked))


def has_our_columns(start: bytes) -> bool:
    """Return whether the first line with text names a column that only our own files have."""
    header = next((line for line in start.splitlines() if line.strip(b" \t,;|")), b"")
    for delimiter in b",;\t|":
        names = {name.strip(b' \t"').decode("latin-1") for name in header.split(bytes([delimiter]))}
        if names & OUR_COLUMNS:
            return True
    return False


def _is_ascii_superset(encoding: str) -> bool:
    """Return whether ASCII text has the same bytes in the encoding. UTF-16 and EBCDIC cannot look like UTF-8."""
    try:
        return "uuid,name".encode(encoding) == b"uuid,name" and not encoding.startswith("utf")
    except (LookupError, UnicodeError):
        return False


def _may_be_utf8(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


class Utf8Watch(io.RawIOBase):
    """Pass bytes through and note whether all of them are UTF-8, and the first line that is not ASCII."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_utf8 = True
        self._line = 1
        self._rest = b""  # the present line, as far as it was read
        self.number = 0  # of the first line that is not ASCII
        self.sample = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._raw.readinto(buffer) or 0
        data = bytes(memoryview(buffer)[:count])
        if self._is_utf8:
            try:
                self._decoder.decode(data, final=not data)
            except UnicodeDecodeError:
                self._is_utf8 = False
        if not self.number:
            self._look(data)
        return count

    def _look(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        for line in lines:
            if not line.isascii():
                self.number, self.sample = self._line, line.rstrip(b"\r")
                return
            self._line += 1
        self._line -= 1
        self._rest = lines[-1][-4096:]

    def contradiction(self, asked: str) -> tuple[int, str, str] | None:
        """Return (line, as UTF-8, as the asked encoding) if everything read is UTF-8 and not ASCII, else None."""
        if not self._is_utf8 or not self.number:
            return None
        return self.number, _reading(self.sample, "utf-8"), _reading(self.sample, asked)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _reading(line: bytes, encoding: str) -> str:
    """Return the part of the line around its first character that is not ASCII."""
    first = next(at for at, byte in enumerate(line) if byte > 0x7F)
    text = line[max(0, first - 10) : first + 2 * _SHOWN].decode(encoding, "replace")
    return text[:_SHOWN]
