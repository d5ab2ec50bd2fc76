"""Run `make battery`: every test of docs/dev/reliability.md §2, whole.

`python -m tests.battery NAME …` runs some, `report` writes RESULTS.md. Each test's figures are kept in records.jsonl as
soon as it has ended, so a battery that is interrupted loses nothing.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.battery import report
from tests.battery.report import Record
from tests.conftest import CORPORA, ROOT

Test = Callable[[int, int, Path], list[Record]]


def _simulation(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.simulation import simulation

    return simulation(size, first=seed * 1_000_000 if seed > 1 else 0)


def _cluster(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.simulation_cluster import simulation_cluster

    return simulation_cluster(size, first=seed * 1_000_000 if seed > 1 else 0)


def _fleet(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.fleet import fleet

    return fleet(size, seed)


def _machine(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.test_machine import machine

    return [machine(size, seed)]


def _bugs(size: int, _seed: int, _: Path) -> list[Record]:
    from tests.battery.bugs import bugs

    return bugs(seconds=size)


def _kills(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.kills import kills

    return kills(size, seed=seed)


def _races(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.kills import races

    return races(size, seed)


def _syscalls(size: int, seed: int, place: Path) -> list[Record]:
    from tests.battery.syscalls import borders

    return borders(place, size or None, seed)


def _power(size: int, seed: int, place: Path) -> list[Record]:
    from tests.battery.powerloss import power_loss

    return power_loss(place, size, seed)


def _damage(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.damage import damage

    return damage(size, seed)


def _limits(_size: int, seed: int, place: Path) -> list[Record]:
    from tests.battery.limits import limits

    return limits(place, seed)


def _faults(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.faults import run

    return run(rows=size, seed=seed)


def _odd_answers(_size: int, _seed: int, _: Path) -> list[Record]:
    from tests.battery import faults_answers, faults_sessions

    records = [
        faults_answers.foreign_location(),
        faults_answers.statuses("documented"),
        faults_answers.retry_after("zstack"),
        faults_sessions.stop_rule("zstack"),
    ]
    for dialect in ("documented", "zstack"):
        records += [
            faults_answers.redirects(dialect),
            faults_sessions.sessions(dialect),
            faults_sessions.storm(dialect, rows=200),
        ]
    return records


def _answers(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.answers import answers

    if not CORPORA.is_dir():
        sys.stderr.write("left out: T23, its corpus ../shared/corpora is not beside this checkout\n")
        return []
    return answers(CORPORA / "llhttp-responses" / "raw", size, seed)


def _differential(size: int, seed: int, _: Path) -> list[Record]:
    from tests.battery.differential import differential

    if not CORPORA.is_dir():
        sys.stderr.write("left out: the differential test, its corpus ../shared/corpora is not beside this checkout\n")
        return []
    return differential(CORPORA, size, seed)


def _load(size: int, _seed: int, _: Path) -> list[Record]:
    from tests.battery.load import load

    return load(size)


def _outage(size: int, _seed: int, _: Path) -> list[Record]:
    from tests.battery.outage import record

    return [record(size, 16, how="refuse", dialect="zstack", rate=50)]


def _campaign(size: int, _seed: int, _: Path) -> list[Record]:
    from tests.battery.campaign import campaign

    return campaign(size)


# Name → the test, its size in the battery (0: everything), what the size counts.
TESTS: dict[str, tuple[Test, int, str]] = {
    "outage": (_outage, 1800, "seconds, in real time"),
    "load": (_load, 1_000_000, "rows of a manifest"),
    "campaign": (_campaign, 100_000, "images"),
    "simulation": (_simulation, 10_000, "seeds"),
    "cluster": (_cluster, 800, "seeds"),
    "fleet": (_fleet, 3, "runs of each kind and dialect"),
    "machine": (_machine, 2000, "stories"),
    "kills": (_kills, 1000, "kills"),
    "races": (_races, 60, "rounds"),
    "syscalls": (_syscalls, 0, "points of each kind, 0 for all"),
    "power": (_power, 10_000, "crash states"),
    "damage": (_damage, 16, "every n-th case"),
    "limits": (_limits, 0, ""),
    "faults": (_faults, 24, "rows"),
    "odd": (_odd_answers, 0, ""),
    "answers": (_answers, 100_000, "mutations"),
    "differential": (_differential, 10_000, "mutations"),
    "bugs": (_bugs, 0, "seconds, 0 for all"),
}
# What `make battery` runs at the same time. The first two mostly wait; the third uses the processors.
CHAINS = (
    ("outage",),
    ("odd", "faults"),
    (
        "simulation",
        "cluster",
        "machine",
        "kills",
        "fleet",
        "syscalls",
        "bugs",
        "power",
        "damage",
        "answers",
        "differential",
        "races",
        "campaign",
        "load",
        "limits",
    ),
)


def run(name: str, size: int | None, seed: int, *, keep: bool) -> int:
    """Run one test, keep and show its figures. Returns its failures."""
    test, whole, _ = TESTS[name]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"battery-{name}-") as place:
        records = test(whole if size is None else size, seed, Path(place))
    for record in records:
        sys.stdout.write(
            f"{record.id} {record.test}: {record.trials:,} {record.unit}, {record.failures} failures; {record.notes}\n"
        )
        if keep:
            report.keep(record)
    sys.stdout.write(f"{name}: {time.monotonic() - begun:.0f} s\n")
    sys.stdout.flush()
    return sum(record.failures for record in records)


def run_all(seed: int) -> int:
    """Run all tests; each chain has a process of its own. Returns how many chains had failures."""
    assert sorted(name for chain in CHAINS for name in chain) == sorted(TESTS)
    begun = time.monotonic()
    chains = [
        subprocess.Popen([sys.executable, "-m", "tests.battery", *chain, "--seed", str(seed)], cwd=ROOT)
        for chain in CHAINS
    ]
    failures = sum(chain.wait() != 0 for chain in chains)
    seconds = time.monotonic() - begun
    notes = f"{len(TESTS)} tests in {len(CHAINS)} chains at the same time, {seconds / 60:.0f} minutes"
    report.keep(Record("all", "make battery, in one piece", len(CHAINS), failures, "chains", notes, seconds))
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.battery")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TESTS)}; report; none: all of them")
    parser.add_argument("--size", type=int, help="instead of the battery's: see TESTS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="keep no figures")
    asked = parser.parse_args()
    if strange := set(asked.names) - {*TESTS, "report"}:
        parser.error(f"no such test: {', '.join(sorted(strange))}")  # argparse's own choices refuse an empty list
    failures = run_all(asked.seed) if not asked.names else 0
    for name in asked.names:
        if name != "report":
            failures += run(name, asked.size, asked.seed, keep=not asked.dry)
    if not asked.dry:
        report.write()
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
