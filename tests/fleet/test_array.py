"""Arrays of real processes: with the variables of each engine all rows are sent once, and never faster than the rate."""

from collections import Counter

import pytest

from tests.conftest import Cli
from tests.fleet.conftest import Fleet
from tests.fleet.test_shard import engines
from tests.stamped import stamped_sandbox
from tests.windows import most_within

RATE = 100


@pytest.mark.parametrize("engine", engines(0, 1))
def test_an_array_of_four_sends_every_row_once_and_is_merged(fleet: Fleet, engine: str) -> None:
    """The merged run is made as a script of the engine does it: with a wildcard over the runs of the array."""
    before = len(fleet.server.puts())
    asked = "auto/4" if engine == "Kubernetes" else "auto"
    processes = []
    for at in range(4):
        array = Cli(fleet.place, {**fleet.cli.environment, **engines(at, 4)[engine]})
        words = ("run", "m.csv", "--yes", "--shard", asked, "--run-id", "a")
        processes.append(array.start(*words))
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert fleet.run_ids() == set(fleet.names(4, "a"))
    asked_for = Counter(put["path"] for put in fleet.server.puts()[before:])
    assert set(asked_for.values()) == {1}
    names = sorted(str(path) for path in fleet.place.glob("runs/a-*-of-4"))
    fleet.cli("merge", *names, "--run-id", "a")
    rows = fleet.results("a")
    assert sorted(row["uuid"] for row in rows) == sorted(fleet.server.images())
    assert {row["status"] for row in rows} == {"updated"}
    assert len(asked_for) == len(rows) == fleet.changed()


def test_four_shards_at_once_keep_to_the_rate_of_all(cli: Cli) -> None:
    with stamped_sandbox(images=240, dialect="documented") as server:
        here = cli.at(server)
        cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},n-{uuid[:8]}\n" for uuid in server.images()))
        given = ("--yes", "--no-survey", "--rate", f"{RATE}/s")
        runs = [here.start("run", "m.csv", *given, "--shard", f"{at}/4") for at in (1, 2, 3, 4)]
        for run in runs:
            _, err = run.communicate(timeout=60)
            assert run.returncode == 0, err
        times = sorted(request["at"] for request in server.requests())
    assert most_within(1.0, times) <= RATE + 4, "each may be stopped between its slot and its bytes"
    assert len(times) >= 240
