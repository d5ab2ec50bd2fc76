"""Print a manifest's problems and warnings with line, column, value and fix. On a terminal the list is capped."""

import sys
from collections.abc import Iterator

from bulkimg.cli import screen
from bulkimg.ledger import Ledger, stats
from bulkimg.model import Problem
from bulkimg.words import count

MOST = 20


def problem_line(name: str, problem: Problem, kind: str = "") -> str:
    """Return `relabel.csv:17: platform 'Linx': is not one of …; did you mean 'Linux'?` A header without a line is 0."""
    fix = f"; {problem.fix}" if problem.fix else ""
    where = f"{name}:{problem.line}" if problem.line else name
    return screen.one_line(f"{where}: {kind}{problem.text}{fix}")


def show_problems(ledger: Ledger, shown: set[str] | None = None) -> None:
    """Print the first problems. The results hold all of them. `shown` are lines that were printed for another run."""
    shown = set() if shown is None else shown
    name, found = ledger.meta("manifest"), stats.problem_counts(ledger)[0]
    for problem in stats.problems(ledger, limit=MOST):
        line = problem_line(name, problem)
        if line not in shown:  # a problem of the manifest as a whole is in every run of a campaign
            screen.note(line)
        shown.add(line)
    if found > MOST:
        screen.note(f"… and {found - MOST:,} more")


def document(ledger: Ledger) -> Iterator[str]:
    """Print all problems for `bulkimg check`; capped where a person reads them."""
    name = ledger.meta("manifest")
    limit = MOST * 5 if sys.stdout.isatty() else -1
    for problem in stats.problems(ledger, limit=limit):
        yield problem_line(name, problem)
    for warning in stats.warnings(ledger, limit=limit):
        yield problem_line(name, warning, "warning: ")


def remarks(ledger: Ledger) -> Iterator[str]:
    """Print one line each for skipped records and for the number of warnings, if there are any."""
    name = ledger.meta("manifest")
    yield from (f"{name}: {remark}" for remark in ledger.meta("remarks") or ())
    if blank := ledger.meta("blank_records", 0):
        yield f"{name}: {count(blank, 'blank record')} skipped (first in line {ledger.meta('first_blank')})"
    if warned := stats.warning_count(ledger):
        yield f"{name}: {count(warned, 'warning')} (bulkimg check lists them; --strict refuses them)"
