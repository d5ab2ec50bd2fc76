"""Unique random secrets, every form in which they could be written, and the search for them in every written byte."""

import base64
import hashlib
import json
import secrets
import sqlite3
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

SHORTEST = 12  # bytes; a shorter form could occur by chance
LONGEST = 40  # bytes; the beginning of a form is a leak too, if a message was cut in it


def new_session() -> str:
    return secrets.token_hex(16)


def new_password() -> str:
    """Make a random password with characters that each encoding writes differently."""
    return f'{secrets.token_hex(10)}"&=+%/\\é<'


def new_key_secret() -> str:
    return f"{secrets.token_urlsafe(24)}+/="


def forms(secret: str) -> dict[str, bytes]:
    """Return each form in which a program might write the secret, by name."""
    raw = secret.encode()
    found = {
        "raw": raw,
        "upper": secret.upper().encode(),
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "percent": quote(secret, safe="").encode(),
        "percent-path": quote(secret).encode(),
        "percent-plus": quote_plus(secret).encode(),
        "percent-lower": _lower_escapes(quote(secret, safe="")).encode(),
        "percent-all": "".join(f"%{byte:02x}" for byte in raw).encode(),
        "PERCENT-ALL": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "json": json.dumps(secret)[1:-1].encode(),
        "json-utf-8": json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
        "json-all": "".join(f"\\u{ord(char):04x}" for char in secret).encode(),
        "sha512": hashlib.sha512(raw).hexdigest().encode(),
        "SHA512": hashlib.sha512(raw).hexdigest().upper().encode(),
        "utf-16": secret.encode("utf-16-le"),
        **{f"base64-{at}": _base64_core(raw, at) for at in range(3)},
    }
    url_safe = bytes.maketrans(b"+/", b"-_")
    found |= {f"base64url-{at}": found[f"base64-{at}"].translate(url_safe) for at in range(3)}
    return {name: form for name, form in found.items() if len(form) >= SHORTEST}


def _base64_core(raw: bytes, at: int) -> bytes:
    """Return the base64 characters that do not depend on what is before (`at` bytes, modulo 3) and after."""
    whole = base64.b64encode(b"\0" * at + raw + b"\0\0")
    return whole[-(-at * 8 // 6) : (at + len(raw)) * 8 // 6]


def _lower_escapes(text: str) -> str:
    return "".join(
        char.lower() if char in string.hexdigits and "%" in text[max(0, at - 2) : at] else char
        for at, char in enumerate(text)
    )


@dataclass
class Search:
    """What was searched so far, and what was found."""

    secrets: Mapping[str, str]
    searched: int = 0
    files: int = 0
    leaks: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._needles = [
            (f"{name} as {form}", needle[:LONGEST])
            for name, secret in self.secrets.items()
            for form, needle in forms(secret).items()
        ]

    def look(self, where: str, data: bytes) -> None:
        """Search one piece of output."""
        self.searched += len(data)
        self.files += 1
        self.leaks.update(f"{what} in {where}" for what, needle in self._needles if needle in data)

    def look_under(self, place: Path) -> None:
        """Search every byte of every file, and every value of every ledger: a text may be on two of its pages."""
        for path in sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink()):
            self.look(path.name, path.read_bytes())
            if path.name == "run.db":
                self.look("the values of run.db", b"\n".join(_values(path)))


def _values(path: Path) -> Iterator[bytes]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        for table in tables:
            for row in db.execute(f'SELECT * FROM "{table}"'):
                yield from (value if isinstance(value, bytes) else str(value).encode() for value in row)
    finally:
        db.close()
