"""A seeded sample of the battery, in under three minutes; `make battery` runs it whole."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.battery.bugs import unplantable
from tests.battery.bugs_catalogue import BUGS
from tests.battery.damage import damage
from tests.battery.fleet import fleet
from tests.battery.report import Record
from tests.battery.simulation import play, simulation
from tests.battery.simulation_cluster import simulation_cluster
from tests.conftest import CORPORA, ROOT, corpus

# Whole processes and forks have a test process of their own, the battery's, as in `make battery`.
APART = 170.0  # seconds
pytestmark = pytest.mark.timeout(APART + 10)


def hold(records: Sequence[Record]) -> None:
    assert records
    for record in records:
        assert record.trials > 0, record
        assert record.failures == 0, record


def apart(name: str, size: int) -> None:
    command = [sys.executable, "-m", "tests.battery", name, "--size", str(size), "--dry"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=APART, check=False)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
    assert ", 0 failures" in done.stdout


def test_stories_in_virtual_time_end_well() -> None:
    hold(simulation(60, first=20_000, workers=1))


def test_a_desk_and_its_workers_in_virtual_time_end_well() -> None:
    hold(simulation_cluster(16, first=20_000, workers=1))


def test_a_worker_of_a_real_cluster_is_killed_and_another_stopped() -> None:
    hold(fleet(1, kinds=("a worker killed and one stopped",), dialects=("zstack",), workers=1))


@pytest.mark.parametrize("seed", [3, 41, 97])
def test_the_same_seed_is_the_same_ledger(seed: int) -> None:
    first, second = play(seed), play(seed)
    assert not first.breaches
    assert first.digest == second.digest


def test_damage_of_the_ledger_is_never_silent() -> None:
    hold(damage(sample=797, workers=1))


def test_broken_answers_are_never_believed() -> None:
    corpus("llhttp-responses")
    assert CORPORA.is_dir()
    apart("answers", 1200)


def test_killed_runs_are_resumed() -> None:
    apart("kills", 4)


def test_one_process_is_let_in() -> None:
    apart("races", 2)


@pytest.mark.usefixtures("strace")
def test_killed_or_failed_at_a_system_call() -> None:
    apart("syscalls", 1)


@pytest.mark.usefixtures("strace")
def test_power_loss_loses_nothing_that_was_told() -> None:
    apart("power", 200)


def test_every_planted_bug_can_still_be_planted() -> None:
    assert unplantable() == []
    assert len({bug.promise for bug in BUGS}) == len(BUGS) >= 100
