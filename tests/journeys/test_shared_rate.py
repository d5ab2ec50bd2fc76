"""Two runs at the same time against one server: together they keep to the rate that each of them was given."""

import signal

from tests.conftest import Cli
from tests.stamped import stamped_sandbox
from tests.windows import most_within, reached

RATE = 100


def manifest(uuids: list[str]) -> str:
    return "uuid,name\n" + "".join(f"{uuid},n-{uuid[:8]}\n" for uuid in uuids)


def test_two_runs_at_once_do_not_double_the_load(cli: Cli, dialect: str) -> None:
    with stamped_sandbox(images=300, dialect=dialect) as server:
        rows = list(server.images())
        cli.write("a.csv", manifest(rows[:150]))
        cli.write("b.csv", manifest(rows[150:]))
        cli = cli.at(server)
        runs = [
            cli.start("run", name, "--yes", "--no-survey", "--rate", f"{RATE}/s", "--runs-dir", name[0])
            for name in ("a.csv", "b.csv")
        ]
        for run in runs:
            run.communicate(timeout=60)
            assert run.returncode == 0
        times = sorted(request["at"] for request in server.requests())
    assert most_within(1.0, times) <= RATE + 2, "either may be stopped between its slot and its bytes"
    assert reached(RATE, times) >= 0.65, "and they do not wait for nothing"
    assert most_within(1.0, times) >= 0.9 * RATE, "in the second in which the machine was calmest"


def test_one_that_is_stopped_or_killed_leaves_the_rate_to_the_other(cli: Cli) -> None:
    with stamped_sandbox(images=300) as server:
        rows = list(server.images())
        cli.write("a.csv", manifest(rows[:200]))
        cli.write("b.csv", manifest(rows[200:280]))
        cli = cli.at(server)
        stopped = cli.start("run", "a.csv", "--yes", "--no-survey", "--rate", f"{RATE}/s", "--runs-dir", "a")
        server.wait_for_put(9)
        stopped.send_signal(signal.SIGSTOP)
        begun = len(server.requests())
        cli("run", "b.csv", "--yes", "--no-survey", "--rate", f"{RATE}/s", "--runs-dir", "b")
        times = sorted(request["at"] for request in server.requests()[begun:])
        stopped.kill()
        stopped.send_signal(signal.SIGCONT)
        stopped.communicate(timeout=60)
    assert reached(RATE, times) >= 0.65
    assert most_within(1.0, times) >= 0.85 * RATE
