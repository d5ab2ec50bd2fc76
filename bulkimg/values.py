"""Parse option texts into values. A ValueError has the rest of the sentence, and after `; ` what to do."""

import codecs
import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bulkimg.model import CHOICES, FIELDS

Pairs = tuple[tuple[str, str], ...]
MOST_RATE = 1_000_000  # requests a second; a higher rate is meant as unlimited
MOST_SECONDS = 30 * 86400.0
MOST_KEPT = 100_000  # runs or days


def parse_rate(value: Any) -> float:
    """Parse `20/s`, `300/min`, `7200/h`, a bare number (a second) or `unlimited` into requests a second.

    `unlimited` is `inf`.
    """
    text = str(value).strip().lower()
    if text in {"unlimited", "inf"}:
        return math.inf
    found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?(?:e-\d\d)?)(?:/(s|sec|m|min|h))?", text, re.ASCII)
    per_second = float(found[1]) / {None: 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}[found[2]] if found else 0
    if not 0 < per_second <= MOST_RATE:
        raise ValueError(f"is not a rate; write 20/s, 300/min (at most {MOST_RATE:,}/s) or unlimited")
    return per_second


def parse_duration(value: Any) -> float:
    """Parse `30`, `30s`, `500ms`, `5m` or `2h` into seconds."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)(ms|s|m|h)?", str(value).strip().lower(), re.ASCII)
    seconds = float(found[1]) * {None: 1, "s": 1, "ms": 0.001, "m": 60, "h": 3600}[found[2]] if found else 0
    if not 0 < seconds <= MOST_SECONDS:
        raise ValueError("is not a duration; write 30s, 500ms, 5m or 2h (at most 30 days)")
    return seconds


def parse_wait(value: Any) -> float:
    """Parse a duration that may be `0`."""
    return 0.0 if str(value).strip() in {"0", "0.0", "0s"} else parse_duration(value)


def parse_age(value: str) -> float:
    """Parse `90d`, `12w` or `36h` into seconds."""
    found = re.fullmatch(r"(\d{1,6})(h|d|w)", value.strip().lower(), re.ASCII)
    if not found:
        raise ValueError("is not an age; write 90d, 12w or 36h")
    return float(found[1]) * {"h": 3600, "d": 86400, "w": 7 * 86400}[found[2]]


@dataclass(frozen=True, slots=True)
class Window:
    """Spans of the day in minutes since midnight, local time. A span that ends before it begins crosses midnight."""

    spans: tuple[tuple[int, int], ...] = ()

    def is_open(self, minute: int) -> bool:
        """Return whether the minute of the day is in a span. Without spans it always is."""
        return not self.spans or any(
            begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in self.spans
        )

    def __str__(self) -> str:
        return ",".join(f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in self.spans) or "none"


@dataclass(frozen=True, slots=True)
class Keep:
    """Which finished runs of a job stay: the newest `last`, and those that are younger than `days`."""

    last: int = 0
    days: float = 0.0


def parse_keep(value: Any) -> Keep:
    """Parse `{ last = 30, days = 90 }`: one of them, or both."""
    if isinstance(value, Keep):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError("is not a table with last, days or both; write { last = 30, days = 90 }")
    for name, number in value.items():
        if name not in ("last", "days"):
            raise ValueError(f"contains {str(name)[:100]!r}{nearest(str(name), ('last', 'days'))}")
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= MOST_KEPT:
            raise ValueError(f"contains {name} = {str(number)[:100]}, which is not a number from 1 to {MOST_KEPT:,}")
        if name == "last" and number != int(number):
            raise ValueError(f"contains last = {number}, which is not a whole number")
    return Keep(int(value.get("last", 0)), float(value.get("days", 0)))


def parse_window(value: Any) -> Window:
    """Parse `22:00-06:00`, several such spans with commas, or `none`."""
    if isinstance(value, Window):
        return value
    text = str(value).strip()
    if text.lower() == "none":
        return Window()
    spans = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)\s*", part, re.ASCII)
        hours = [int(number) for number in found.groups()] if found else [99]
        begin, end = hours[0] * 60 + hours[1 % len(hours)], hours[-2 % len(hours)] * 60 + hours[-1]
        if not found or hours[0] > 23 or hours[1] > 59 or hours[3] > 59 or end > 24 * 60 or begin == end:
            raise ValueError("is not a time window; write 22:00-06:00, several with commas, or none")
        spans.append((begin, end))
    return Window(tuple(spans))


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` rows, or at most a `share` of them; with neither there is no limit.

    For errors, the share is of the last 1,000 finished rows, once `sample` rows have finished.
    """

    count: int | None = None
    share: float | None = None
    sample: int = 100

    def __str__(self) -> str:
        return f"{self.share * 100:.12f}".rstrip("0").rstrip(".") + "%" if self.share is not None else str(self.count)


def parse_limit(value: Any) -> Limit:
    """Parse `10`, `5%` or `none`."""
    if isinstance(value, Limit):
        return value
    text = str(value).strip().lower()
    if text == "none":
        return Limit()
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)%", text, re.ASCII):
        if (share := float(found[1]) / 100) <= 1:
            return Limit(share=share)
    elif re.fullmatch(r"\d+", text, re.ASCII):
        return Limit(count=int(text))
    raise ValueError("is not a limit; write a number of rows (10), a share (5%) or none")


def parse_endpoint(value: Any) -> str:
    """Parse a server's scheme, host and port into `scheme://host:port`. Nothing else is allowed."""
    text = str(value).strip()
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
        (host or "").encode("idna")
    except ValueError:  # its text may contain a password
        raise ValueError("is not a URL; write the scheme, host and port, such as http://host:8080") from None
    if url.scheme not in {"http", "https"} or not host or re.search(r"[\s\\]", text):
        raise ValueError("is not a URL; write the scheme, host and port, such as http://host:8080")
    if url.username is not None or url.password is not None:
        raise ValueError("contains a user name or password; set BULKIMG_ACCOUNT and BULKIMG_PASSWORD instead")
    if port == 0:
        raise ValueError("has port 0; write the server's port")
    if url.path not in {"", "/"} or url.query or url.fragment:
        raise ValueError("has more than scheme, host and port; give the context path with --base-path")
    host = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{host}:{port or (443 if url.scheme == 'https' else 80)}"


def parse_listen(value: Any) -> str:
    """Parse `127.0.0.1:9465`, `[::1]:9465` or `localhost:9465`. Other machines must not reach it."""
    text = str(value).strip()
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+):(\d{1,5})", text, re.ASCII)
    if not found or not 0 < int(found[2]) < 65536:
        raise ValueError("is not an address and a port; write one such as 127.0.0.1:9465")
    host = "127.0.0.1" if found[1] == "localhost" else found[1]
    try:
        is_loopback = ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError("is not an address of this machine alone, and the page has no login; write 127.0.0.1:9465")
    return f"{host}:{int(found[2])}"


def parse_base_path(value: Any) -> str:
    text = "/" + str(value).strip("/") if str(value).strip("/") else ""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", text) or "/." in text:
        raise ValueError("is not a context path; write one such as /zstack")
    return text


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    """Parse `["a=b", …]`, lines of `a=b`, pairs, or a table of texts, numbers and booleans into pairs."""
    if isinstance(value, Mapping):
        value = list(value.items())
    pairs = []
    for item in value.splitlines() if isinstance(value, str) else _list(value):
        if isinstance(item, str):
            left, equals, right = item.partition("=")
            if not equals or not left.strip():
                raise ValueError(f"contains {item!r}, which is not NAME=VALUE")
        else:
            left, right = _pair(item)
        pairs.append((left.strip(), right))
    return tuple(pairs)


def _pair(item: Any) -> tuple[str, str]:
    if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[1], str | int | float):
        raise ValueError(f"contains {item!r}, which is not a string, a number or a boolean")
    return str(item[0]), str(item[1]).lower() if isinstance(item[1], bool) else str(item[1])


def _list(value: Any) -> Iterable[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError("is not a list of strings")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    texts = tuple(value.splitlines() if isinstance(value, str) else _list(value))
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("is not a list of strings")
    return texts


def parse_targets(value: Any) -> tuple[tuple[str, str], ...]:
    """Parse pairs whose left side is a field of the API."""
    pairs = _pairs(value)
    for name, _ in pairs:
        known_field(name)
    return pairs


def parse_maps(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = tuple((column, name.strip()) for column, name in _pairs(value))
    for _, name in pairs:
        if name != "uuid" and not name.startswith("_"):
            known_field(name.removeprefix("if_"))
    return pairs


def parse_admitted(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = _pairs(value)
    for name, _ in pairs:
        if name not in CHOICES:
            raise ValueError(f"contains {name!r}, which accepts any value; only {', '.join(CHOICES)} have fixed values")
    return pairs


CONDITION = re.compile(r"([^=!~]+)(!=|~=|=)(.*)", re.DOTALL)


def parse_conditions(value: Any) -> tuple[str, ...]:
    texts = _texts(value)
    for text in texts:
        if not CONDITION.fullmatch(text):
            raise ValueError(
                f"contains {text!r}, which is not COLUMN=VALUE, COLUMN!=VALUE or COLUMN~=PATTERN (% is a wildcard)"
            )
    return texts


def known_field(name: str) -> str:
    """Return the name if it is a field of the API. Raises ValueError with the nearest field otherwise."""
    if name in FIELDS:
        return name
    raise ValueError(f"contains {name!r}, which is not a field{nearest(name, FIELDS)}")


def nearest(word: str, known: Iterable[str], *, whole: bool = True) -> str:
    """Return `; did you mean 'x'?` if a known word is near, else with `whole` the list of all known words, else ""."""
    known = list(known)
    by_fold = {item.casefold(): item for item in known}
    found = difflib.get_close_matches(word.casefold(), by_fold, 1, 0.6)
    return (
        f"; did you mean {by_fold[found[0]]!r}?"
        if found
        else f"; valid names are {', '.join(known)}"
        if known and whole
        else ""
    )


def parse_plugins(value: Any) -> tuple[str, ...]:
    """Parse names of plugins, each once. `none` alone means that there are none."""
    names = tuple(name.strip() for text in _texts(value) for name in text.split(",") if name.strip())
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"names {name!r} twice; keep one of them")
        if not name.isprintable():
            raise ValueError("contains a name with characters that are not printable")
    if "none" in names and len(names) > 1:
        raise ValueError("names none and a plugin; keep one of them")
    return () if names == ("none",) else names


def parse_encoding(value: Any) -> str:
    try:
        codec = codecs.lookup(str(value))
        if not getattr(codec, "_is_text_encoding", True):
            raise LookupError
        return codec.name
    except (LookupError, ValueError):
        raise ValueError("is not a known encoding; try utf-8, utf-16, gb18030 or latin-1") from None


def parse_path(value: Any) -> Path:
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("is not a path")
    if not value.strip():  # an unset variable in a script must not mean the present directory
        raise ValueError("is empty; give a path, or leave the option out")
    return expanded(value)


def parse_name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("is not the name of a profile; give one, or leave the option out")
    return value


def expanded(path: str | Path) -> Path:
    """Replace `~` and `~name` in the path by the home directory. Raises ValueError if the system does not know it."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError("starts with ~, but that home directory is not known; write the full path") from None


LONGEST_RUN_ID = 100


def parse_run_id(value: Any) -> str:
    """Parse the name of a run's directory: letters, digits, `.`, `_` and `-`."""
    text = str(value).strip()
    if (
        not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text, re.ASCII)
        or text.lower() == "last"
        or len(text) > LONGEST_RUN_ID
    ):
        raise ValueError(
            f"is not a valid run name; use up to {LONGEST_RUN_ID} letters, digits, . _ and - (the name last is reserved)"
        )
    return text


def parse_names(value: Any) -> tuple[str, ...]:
    """Parse names, one by one or with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for text in _texts(value) for name in text.split(",") if name.strip()))


def parse_fields(value: Any) -> tuple[str, ...]:
    """Parse names of fields, one by one or with commas."""
    names = tuple(name.strip() for text in _texts(value) for name in text.split(",") if name.strip())
    for name in names:
        known_field(name)
    return names
