"""Run the catalogue of server faults: on a tenth of the requests, then on all. Each run is checked, then settled.

python -m tests.battery.faults T20 T25 --rows 60 --dialect zstack --only cut
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.battery.checker import Findings
from tests.battery.faults_catalogue import BOTH, CATALOGUE, ZSTACK, Fault
from tests.battery.report import Record
from tests.battery.trial import HUNG, Done, bench, within

SHARES = (0.1, 1.0)
IDS = tuple(dict.fromkeys(fault.id for fault in CATALOGUE))
MAX_OUTAGE = "4s"


@dataclass
class Outcome:
    """The result of one fault at one share: during it, and after it."""

    fault: Fault
    dialect: str
    share: float
    done: Done
    during: Findings
    settled: Done | None
    after: Findings

    @property
    def name(self) -> str:
        return f"{self.fault.name}, {self.dialect}, {self.share:.0%}"

    @property
    def failures(self) -> int:
        """The number of wrong rows and requests, of hangs and tracebacks, and `stuck`."""
        commands = [one for one in (self.done, self.settled) if one]
        return self.during.bad + self.after.bad + sum(one.hung or one.crashed for one in commands) + self.stuck

    @property
    def stuck(self) -> int:
        """1 if the run cannot continue although the server works."""
        return int(self.settled is not None and self.settled.code not in (0, 1, HUNG))

    @property
    def not_settled(self) -> int:
        """The number of rows that are still not good although the server works."""
        return sum(count for status, count in self.after.statuses.items() if status not in ("updated", "unchanged"))

    def __str__(self) -> str:
        settled = f" | then exit {self.settled.code}: {self.after}" if self.settled else ""
        mark = "FAILED " if self.failures else ""
        return f"{mark}{self.fault.id} {self.name}: exit {self.done.code}, {self.done.seconds:.1f} s: {self.during}{settled}"


@dataclass
class Tally:
    """The results of many faults as one record."""

    outcomes: list[Outcome] = field(default_factory=list)

    def record(self, id_: str, dialect: str, seconds: float) -> Record:
        rows = sum(one.during.rows for one in self.outcomes)
        notes = [f"{len(self.outcomes)} trials", f"most PUTs for a row {self._most('most_puts')}"]
        statuses = sum((one.during.statuses for one in self.outcomes), Counter())
        notes.append("; ".join(f"{status} {count}" for status, count in sorted(statuses.items())))
        notes.append(f"slowest run {max((one.done.seconds for one in self.outcomes), default=0):.0f} s")
        if lied_to := sum(one.during.lied_to for one in self.outcomes):
            notes.append(f"{lied_to} updated on the word of a lying server")
        if left := sum(one.not_settled for one in self.outcomes):
            notes.append(f"{left} rows not good after settling")
        if bad := [one.name for one in self.outcomes if one.failures]:
            notes.append("failed: " + "; ".join(bad[:8]))
        failures = sum(one.failures for one in self.outcomes)
        return Record(id_, f"server faults, {dialect}", rows, failures, "rows", ", ".join(notes), seconds)

    def _most(self, name: str) -> int:
        return max((getattr(one.during, name) for one in self.outcomes), default=0)


def suffer(fault: Fault, dialect: str, share: float, rows: int, seed: int = 1) -> Outcome:
    """Run one trial: the run under the fault, then `resume` or `retry` without it."""
    count = rows if share < 1 else min(rows, fault.most)
    with bench(count, dialect, seed=seed, sync=False) as ready:
        ready.witness.set_script(fault.script(share))
        # If every PUT is damaged, the action key is never found out, and nothing else would be tried.
        spelling = ("--action-key", "updateImage") if share == 1 and dialect == ZSTACK else ()
        done = ready.run(*fault.options, *spelling, *(within(MAX_OUTAGE) if share == 1 or fault.always else ()))
        time.sleep(fault.settles_after)
        during = ready.check(lies=fault.lies)
        settled, after = ready.settle()
        if settled is None:  # nothing was left to do: the findings would be the same again
            after = Findings(rows=during.rows, statuses=during.statuses)
        return Outcome(fault, dialect, share, done, during, settled, after)


def run(
    ids: Sequence[str] = IDS,
    *,
    rows: int = 500,
    dialects: Iterable[str] = BOTH,
    shares: Iterable[float] = SHARES,
    only: str = "",
    seed: int = 1,
) -> list[Record]:
    """Return the records of these ids, one for each dialect. Every trial is printed to standard error."""
    records = []
    for id_ in ids:
        for dialect in dialects:
            begun, stats = time.monotonic(), Tally()
            chosen = [one for one in CATALOGUE if one.id == id_ and dialect in one.dialects and only in one.name]
            for fault in chosen:
                for share in shares:
                    outcome = suffer(
                        fault, dialect, share, rows, random.Random(f"{seed} {fault.name}").randrange(1 << 30)
                    )
                    stats.outcomes.append(outcome)
                    tell(outcome)
            if chosen:
                records.append(stats.record(id_, dialect, time.monotonic() - begun))
    return records


def tell(outcome: Outcome) -> None:
    sys.stderr.write(f"{outcome}\n")
    problems = [*outcome.during.problems[:3], *outcome.after.problems[:3]]
    if outcome.done.crashed:
        problems.append(outcome.done.err[-1500:])
    sys.stderr.write("".join(f"    {problem}\n" for problem in problems))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ids", nargs="*", default=list(IDS))
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--dialect", choices=BOTH)
    parser.add_argument("--share", type=float)
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    dialects = (asked.dialect,) if asked.dialect else BOTH
    shares = (asked.share,) if asked.share else SHARES
    for record in run(asked.ids, rows=asked.rows, dialects=dialects, shares=shares, only=asked.only, seed=asked.seed):
        print(record)


if __name__ == "__main__":
    main()
