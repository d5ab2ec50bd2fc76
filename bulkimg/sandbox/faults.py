"""Draw faults on purpose, the same for the same seed: `reset-after=1%,429=2%:1,poll/502=5%`."""

import random
import re
from dataclasses import dataclass

KINDS = {
    "reset-before": "the connection is reset before the request is acted on",
    "reset-after": "the request is acted on, then the connection is reset",
    "429": "Too Many Requests, with Retry-After of ARG seconds (1)",
    "500": "a plain 500",
    "502": "a plain 502, as a proxy answers",
    "503": "a plain 503, which is no business answer",
    "slow": "the answer takes ARG seconds (1) more",
    "drop": "the connection is closed after the answer without saying so",
    "truncate": "the answer ends in the middle of its body",
    "expire": "every session is dropped, as another login does",
}
SCOPES = ("put", "poll", "query", "login", "any")
_ITEM = re.compile(r"(?:(\w+)/)?([\w-]+)=(\d+(?:\.\d+)?)%(?::(\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault and how often it happens, as a share of the requests in its scope."""

    scope: str
    kind: str
    share: float
    argument: float


def parse_faults(spec: str) -> list[Fault]:
    """Parse `[SCOPE/]KIND=N%[:ARG]`, separated by commas. The scope is `put` by default. Raises ValueError."""
    faults = []
    for item in filter(None, (part.strip() for part in spec.split(","))):
        found = _ITEM.fullmatch(item)
        if not found or found[2] not in KINDS or (found[1] or "put") not in SCOPES:
            raise ValueError(
                f"{item!r} is not [SCOPE/]KIND=N%[:ARG]; the kinds are {', '.join(KINDS)}, the scopes {', '.join(SCOPES)}"
            )
        faults.append(Fault(found[1] or "put", found[2], float(found[3]) / 100, float(found[4] or 1)))
    return faults


class Faults:
    """Draw one number per request, so that the n-th request of a scope gets the same fault in every run."""

    def __init__(self, spec: str, seed: int) -> None:
        self._faults = parse_faults(spec)
        self._draws = {scope: random.Random(f"{seed} {scope}") for scope in SCOPES}

    def draw(self, scope: str) -> Fault | None:
        """Return the fault for this request, or None."""
        if not self._faults:
            return None
        point = self._draws[scope].random()
        for fault in self._faults:
            if fault.scope in (scope, "any"):
                if point < fault.share:
                    return fault
                point -= fault.share
        return None
