"""The witness's script: which requests get which fault, decided by a seed.

A rule is {"on": put|poll|read|query|login|logout|any, "do": KIND, "share": 0..1, "rows": [uuid], "first": n, "after":
n, "arg": any, "act": true|false|"coin"}. The first rule that matches counts. `act` says whether the request of a
damaged answer is executed; a fault's own default is in its table.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


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
