"""The witness's script: which requests get which fault, decided by a seed.

A rule is {"on": put|poll|read|query|login|logout|any, "do": KIND, "share": 0..1, "rows": [uuid], "first": n, "after":
n, "arg": any, "act": true|false|"coin"}. The first rule that matches counts. `act` says whether the request of a
damaged answer is executed; a fault's own default is in its table.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.battery.witness_api import ACTIONS, IMAGE, JOB, SESSION, Api
from tests.battery.witness_wire import Request


@dataclass
class Rule:
    """One rule, and how many requests have matched it."""

    on: str
    do: str
    rng: random.Random
    share: float = 1.0
    rows: frozenset[str] | None = None
    first: int | None = None
    after: int = 0
    arg: Any = None
    act: Any = None
    seen: int = 0
    hits: int = 0

    def takes(self, kind: str, uuid: str) -> bool:
        if self.on not in ("any", kind) or (self.rows is not None and uuid not in self.rows):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.first is not None and self.seen > self.after + self.first):
            return False
        if self.rng.random() >= self.share:
            return False
        self.hits += 1
        return True


@dataclass
class Script:
    """The present rules."""

    seed: int
    rules: list[Rule] = field(default_factory=list)

    def replace(self, rules: Sequence[dict[str, Any]]) -> None:
        self.rules = [
            Rule(
                rng=random.Random(f"script {self.seed} {n}"),
                **{**one, "rows": frozenset(one["rows"]) if one.get("rows") is not None else None},
            )
            for n, one in enumerate(rules)
        ]

    def rule_for(self, kind: str, uuid: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.takes(kind, uuid)), None)


def kind_of(request: Request) -> str:
    """Return put, poll, read, query, login, logout, or other."""
    path, method = request.path, request.method
    if ACTIONS.fullmatch(path):
        return "put"
    for pattern, kind in ((JOB, "poll"), (IMAGE, "read"), (SESSION, "logout" if method == "DELETE" else "other")):
        if pattern.fullmatch(path):
            return kind
    named = {"/zstack/v1/images": "query", "/zstack/v1/accounts/login": "login"}
    return named.get(path, "other")


def image_of(request: Request, api: Api) -> str:
    """Return the image of a PUT, a poll or a read; "" for the others."""
    if found := ACTIONS.fullmatch(request.path) or IMAGE.fullmatch(request.path):
        return found[1]
    found = JOB.fullmatch(request.path)
    return api.jobs[found[1]].image if found and found[1] in api.jobs else ""
