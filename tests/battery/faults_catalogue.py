"""The catalogue of server faults as scripts: T20-T22, T24, T25, T30, T33 and T34 of docs/dev/reliability.md §2.2."""

from dataclasses import dataclass
from typing import Any

DOCUMENTED, ZSTACK = "documented", "zstack"
BOTH = (DOCUMENTED, ZSTACK)


@dataclass(frozen=True)
class Fault:
    """A script, the dialects in which it has an effect, and how it must be run.

    `most` is the most rows if every request has the fault. `always` are rules for any share.
    """

    id: str
    name: str
    rules: tuple[dict[str, Any], ...]
    dialects: tuple[str, ...] = BOTH
    most: int = 500
    always: tuple[dict[str, Any], ...] = ()
    lies: bool = False
    options: tuple[str, ...] = ()
    settles_after: float = 0.0  # seconds until the server has done everything

    def script(self, share: float) -> list[dict[str, Any]]:
        return [*({**rule, "share": share} for rule in self.rules), *self.always]


def put(id_: str, kind: str, name: str = "", **more: Any) -> Fault:
    """Return a fault of the answer to a PUT."""
    rule: dict[str, Any] = {key: more.pop(key) for key in ("arg", "act") if key in more}
    return Fault(id_, name or kind, ({"on": "put", "do": kind, **rule},), **more)


def poll(id_: str, kind: str, name: str = "", **more: Any) -> Fault:
    """Return a fault of the answer to a poll, which only one dialect has."""
    rule: dict[str, Any] = {key: more.pop(key) for key in ("arg", "act") if key in more}
    return Fault(id_, f"{name or kind} on poll", ({"on": "poll", "do": kind, **rule},), (ZSTACK,), **more)


SLOW: dict[str, Any] = {
    "most": 40,
    "options": ("--timeout", "1s", "--retries", "1"),
}  # every try waits for the timeout
ASKED_IN_VAIN: dict[str, Any] = {"always": ({"on": "poll", "do": "fin-before"}, {"on": "read", "do": "fin-before"})}

_BROKEN = ("reset-before", "fin-before", "reset-after", "fin-after", "cut-status", "cut-header", "cut-body")
_SPOILT = (
    "wrong-length", "chunk-cut", "gzip-cut", "cl-and-te", "empty-200", "html-200", "error-200", "nan-200", "deep-200",
    "bigint-200", "bad-utf8-200",
)  # fmt: skip
_OUT_OF_PLACE = ("wrong-uuid", "swap", "ghost", "cached")
CODES = ("SYS.1000", "SYS.1001", "SYS.1003", "SYS.1006", "SYS.1007", "SYS.1010", "ID.1002", "ID.1003", "NEW.9999")
LOCATIONS = (
    "http://127.0.0.1:1/zstack/v1/api-jobs/" + "a" * 32, "https://example.invalid/zstack/v1/api-jobs/" + "b" * 32,
    "//example.invalid/x", "/zstack/v1/api-jobs/../accounts/login", "/zstack/v1/api-jobs/" + "c" * 31, "file:///etc/passwd",
    "", "/", "javascript:alert(1)", "http://[::1", "http://user:pass@example.invalid/zstack/v1/api-jobs/" + "d" * 32,
    "/zstack/v1/api-jobs/%2e%2e", "\r\nX: y", "http://127.0.0.1/zstack/v1/api-jobs/" + "e" * 32 + "?x=y#z", "x" * (1 << 20),
)  # fmt: skip

CATALOGUE: tuple[Fault, ...] = (
    *(put("T20", kind) for kind in (*_BROKEN, "whole-then-reset")),
    *(poll("T20", kind) for kind in ("reset-before", "fin-after", "cut-status", "cut-body", "whole-then-reset")),
    put("T20", "fin-after", "fin-after, and nothing can be asked", **ASKED_IN_VAIN),
    put("T20", "reset-before", "reset-before, and nothing can be asked", **ASKED_IN_VAIN),
    Fault("T21", "drop-idle", ({"on": "any", "do": "drop-idle"},)),
    Fault("T21", "drop-idle after 20 ms", ({"on": "any", "do": "drop-idle", "arg": 0.02},), most=200),
    Fault("T21", "any request dropped", ({"on": "any", "do": "fin-before"},), most=100),
    put("T22", "drip", "1 B/s", arg=1.0, **SLOW),
    put("T22", "drip", "1 B each 2 ms", arg=0.002, most=100),
    put("T22", "silent", **SLOW),
    put("T22", "silent", "silent, and applied", act=True, **SLOW),
    put("T22", "endless-headers", arg=5, **SLOW),
    put("T22", "endless-1xx", arg=5, **SLOW),
    put("T22", "endless-body", arg=5, **SLOW),
    poll("T22", "silent", **SLOW),
    poll("T22", "drip", arg=1.0, **SLOW),
    *(put("T24", kind) for kind in _OUT_OF_PLACE),
    *(poll("T24", kind) for kind in _OUT_OF_PLACE),
    Fault(
        "T24",
        "fin-after, then a cached read",
        ({"on": "put", "do": "fin-after"},),
        always=({"on": "read", "do": "cached"}, {"on": "poll", "do": "job-404"}),
    ),
    *(put("T25", kind) for kind in _SPOILT),
    *(poll("T25", kind) for kind in _SPOILT),
    put("T25", "gzip-bomb", most=16),
    Fault("T25", "html-200 to reads of a doubt", ({"on": "put", "do": "fin-after"},), always=({"on": "read", "do": "html-200"},)),
    put("T30", "status", "plain 503", arg=503, most=100),
    put("T30", "status", "plain 500", arg=500, most=100),
    put("T30", "slow", "answers 0.4 s late", arg=0.4, most=200),
    put("T30", "lie-500", "brown-out: applied, then 500", most=100),
    *(put("T33", kind, dialects=(ZSTACK,), most=40) for kind in ("job-404", "job-stuck")),
    put("T33", "duplicate-job", dialects=(ZSTACK,)),
    *(put("T33", "job-fails", f"job fails with {code}", arg=code, dialects=(ZSTACK,), most=60) for code in CODES),
    *(
        put("T33", "job-other-location", f"location {text[:24]!r}", arg=text, dialects=(ZSTACK,), most=20)
        for text in LOCATIONS
    ),
    poll("T33", "status", "plain 503", arg=503, most=40),
    poll("T33", "status", "plain 404", arg=404, most=40),
    poll("T33", "status", "plain 502", arg=502, most=40),
    poll("T33", "json-status", "400 with a JSON error", arg=[400, "SYS.1007"], most=40),
    poll("T33", "job-stuck", "202 for ever", most=32),
    put("T34", "lie-500"),
    put("T34", "lie-200", lies=True),
    put("T34", "apply-twice"),
    put("T34", "apply-late", "applied 1 s after the answer was lost", arg=1.0, most=100, settles_after=2.0),
    put("T34", "apply-late", "applied 4 s after the answer was lost", arg=4.0, most=60, settles_after=5.0),
)  # fmt: skip
