"""Redact credentials in what a server said, before any of it is written down or shown.

A server or a proxy may echo a password, a session or a signature in any of its usual encodings. Answers are judged as they
came: a value may happen to be a password (Linux, 0000). Redacted is what outcomes, plans and errors keep of them.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from pydantic_core import to_json

from bulkimg.model import HIDDEN
from bulkimg.zstack.wire import Answer

SHORTEST = 4  # characters of a secret, or of the beginning of one at the end of a text: shorter ones are everywhere
_HIDDEN = HIDDEN.encode()


class Redactor:
    """Knows the secrets of one connection."""

    def __init__(self) -> None:
        self._secrets: set[bytes] = set()  # in lower case
        self._pattern: re.Pattern[bytes] | None = None

    def add_secret(self, *secrets: str, pattern: bytes | None = None) -> None:
        """Redact these texts from now on. `pattern`: for what is another one with every request, such as a signature."""
        for secret in secrets:
            if len(secret) >= SHORTEST:
                self._secrets.update(code.lower() for code in encodings(secret))
        if pattern:
            self._pattern = re.compile(pattern)

    def raw(self, raw: bytes) -> bytes:
        """Return the same bytes without secrets; the same object where there are none.

        Where a secret shows only once escapes are undone, they stay undone: such a text is worth no more than that.
        """
        found = self._replaced(raw)
        for escape, undo in _UNDO:
            if escape in found and (undone := undo(found)) != (hidden := self._replaced(undone)):
                found = hidden
        return found

    def text(self, text: str) -> str:
        """Return a text without secrets. One that was cut off at its end is redacted too."""
        raw = text.encode("utf-8", "surrogatepass")
        found = self._without_beginning(self.raw(raw))
        return text if found is raw else found.decode("utf-8", "replace")

    def value(self, value: Any) -> Any:
        """Return a JSON value whose texts hold no secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        return value

    def answer(self, answer: Answer) -> Answer:
        """Return an answer whose body and location hold no secrets."""
        location = self.text(answer.location) if answer.location else ""
        return answer._replace(raw=self.raw(answer.raw), location=location)

    def _replaced(self, raw: bytes) -> bytes:
        folded = raw.lower()
        for secret in self._secrets:
            if secret in folded:
                raw = re.sub(re.escape(secret), _HIDDEN, raw, flags=re.IGNORECASE)
        return self._pattern.sub(_HIDDEN, raw) if self._pattern else raw

    def _without_beginning(self, raw: bytes) -> bytes:
        """Return the bytes without the beginning of a secret at their end, which a cut may have left."""
        folded = raw.lower()
        for secret in self._secrets:
            at = folded.rfind(secret[:SHORTEST])
            if at >= 0 and len(secret) > len(folded) - at and secret.startswith(folded[at:]):
                return raw[:at] + _HIDDEN
        return raw


def _unescape(raw: bytes) -> bytes:
    # However often it was escaped: a text that is itself full of \uXXXX stands in JSON with two of these strokes each.
    return re.sub(rb"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)).encode("utf-8", "replace"), raw)


_UNDO: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = ((b"\\u", _unescape), (b"%", unquote_to_bytes))


def encodings(secret: str) -> set[bytes]:
    """The secret as it is, and as a server or a proxy may write it in a message: hashed, quoted, in hexadecimal, in base64."""
    raw = secret.encode()
    return {
        raw,
        hashlib.sha512(raw).hexdigest().encode(),
        quote(raw, safe="").encode(),
        # Also in capitals: what is not ASCII has no case to look past in bytes.
        *(form(text) for text in (secret, secret.upper()) for form in (str.encode, _json, _ascii_json)),
        raw.hex().encode(),
        *_base64(raw),
    }


def _json(text: str) -> bytes:
    return to_json(text)[1:-1]


def _ascii_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()


def _base64(raw: bytes) -> set[bytes]:
    """Inside a longer text it may begin at any of three places; what shares a letter with its neighbours is left out."""
    found = set()
    for ahead in range(3):
        code = base64.b64encode(bytes(ahead) + raw)
        core = code[4 if ahead else 0 : len(code) - (4 if (ahead + len(raw)) % 3 else 0)]
        if len(core) >= 8:
            found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return found
