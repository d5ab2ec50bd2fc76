"""Map each error code, text and status to what it means for a row or the run (docs/dev/protocol.md §3.2)."""

import re
from dataclasses import dataclass
from enum import Enum, auto


class Move(Enum):
    """What an answer makes us do."""

    REFUSED = auto()  # the server's last word on this row
    AGAIN = auto()  # not applied, or cannot tell; the same request may succeed later
    HOLD = auto()  # as AGAIN, and the whole run waits: the server asks for it
    RENEW = auto()  # the session is dead: log in, then again
    OTHER_KEY = auto()  # the server spells the action key differently
    ASK = auto()  # the answer says nothing certain about this row: ask the job, then the image
    HALT = auto()  # nothing of this run can succeed


@dataclass(frozen=True, slots=True)
class Rule:
    """A move, its hint in plain words, and whether the request may have been applied all the same."""

    move: Move
    hint: str = ""
    maybe_applied: bool = False


_GONE = "check the uuid: the image does not exist on this server, or was deleted"
_BUSY = "the server was not ready at every try; run bulkimg retry when it is"
_KEY_HINT = "check BULKIMG_ACCESS_KEY_ID and its secret, or use another kind of credential"

# Codes of the JSON error object. A code that is not listed is a refusal (docs/dev/reliability.md F5).
CODES: dict[str, Rule] = {
    "SYS.1003": Rule(Move.REFUSED, _GONE),
    "SYS.1006": Rule(Move.REFUSED, "the account is not allowed to do this; use the image's owner or an administrator"),
    "SYS.1007": Rule(Move.REFUSED, "the server does not accept one of the values; the message says which"),
    "ID.1002": Rule(Move.REFUSED, "the account is not allowed to change this image; use its owner or an administrator"),
    "ID.1003": Rule(Move.REFUSED, "the account's quota is used up; raise it or free some"),
    "ID.1001": Rule(Move.RENEW),
    "ID.1000": Rule(Move.HALT, "check the account's name and password"),
    "ID.1006": Rule(Move.HALT, "the account has too many sessions; log some out"),
    "ID.2001": Rule(Move.HALT, "the server asks for a second factor; use an access key or a session"),
    "SYS.1000": Rule(Move.AGAIN, "internal server error; see the server's log", maybe_applied=True),
    "SYS.1001": Rule(Move.AGAIN, _BUSY, maybe_applied=True),
    "SYS.1009": Rule(Move.AGAIN, _BUSY, maybe_applied=True),
    "SYS.1010": Rule(Move.AGAIN, _BUSY, maybe_applied=True),
    "SYS.1011": Rule(Move.AGAIN, _BUSY, maybe_applied=True),
    "SYS.1012": Rule(Move.AGAIN, _BUSY, maybe_applied=True),
}
OTHER_CODE = Rule(Move.REFUSED, "the server refused the change; its message says why")

# Plain texts of the REST layer, before any job exists: the first that matches counts.
TEXTS: tuple[tuple[re.Pattern[str], str, Rule], ...] = tuple(
    (re.compile(pattern), code, rule)
    for pattern, code, rule in (
        (r"doesn't contain action mapping", "NO_SUCH_ACTION", Rule(Move.OTHER_KEY)),
        (r"Duplicate job uuid", "DUPLICATE_JOB", Rule(Move.ASK, maybe_applied=True)),
        (r"missing header 'Authorization'|Authorization type must be", "NO_AUTHORIZATION", Rule(Move.HALT)),
        (r"requestTimeTooSkewed|'Date' (format error|must be)", "CLOCK_SKEW",
         Rule(Move.HALT, "this machine's clock and the server's differ by more than 15 minutes; correct them")),
        (r"accessKey format is|access key id: .* (existed|disabled)|wrong accessKey signature", "ACCESS_KEY",
         Rule(Move.HALT, _KEY_HINT)),
        (r"was not registered by any RestAuthenticationBackend", "ACCESS_KEY",
         Rule(Move.HALT, "this server does not support access keys; use an account or a session")),
        (r"no api mapping to", "NO_SUCH_PATH",
         Rule(Move.HALT, "the path does not exist on the server; check --base-path (/zstack on most servers)")),
    )
)  # fmt: skip

_LATER = Rule(Move.AGAIN, _BUSY, maybe_applied=True)
_NOT_PROCESSED = Rule(Move.AGAIN, _BUSY)
STATUSES: dict[int, Rule] = {
    401: Rule(Move.RENEW),
    408: _NOT_PROCESSED,
    425: _NOT_PROCESSED,
    429: Rule(Move.HOLD, "the server asked for fewer requests; lower --rate"),
    501: Rule(Move.REFUSED, "the server does not support this request; check --endpoint"),
    505: Rule(Move.REFUSED, "the server does not support this request; check --endpoint"),
}
_CLIENT_ERROR = Rule(Move.REFUSED, "the server refused the request; its message says why")
_UNCERTAIN = Rule(Move.ASK, maybe_applied=True)


def rule_for_status(status: int) -> Rule:
    """The rule for a status without a JSON error or a known text. Total over every number."""
    if status in STATUSES:
        return STATUSES[status]
    if 400 <= status < 500:
        return _CLIENT_ERROR
    return _LATER if 500 <= status < 600 else _UNCERTAIN
