"""What holds for one run holds for a campaign: checks, names that resume, the question, an undo that was done before."""

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bulkimg.engine.reopen import stored_settings
from bulkimg.ledger import RunDirectory
from tests.campaign.jobs import NAMES, ROWS, changed, job, table
from tests.cli.terminal import on_a_terminal
from tests.conftest import Cli, Running, Server

# -- check --------------------------------------------------------------------------------------------------------------

ONE_SERVER = {
    "the same": ("http://h.example:8080", "http://h.example:8080"),
    "case of the host": ("http://H.example:8080", "http://h.EXAMPLE:8080"),
    "slash": ("http://h.example:8080/", "http://h.example:8080"),
    "default port": ("http://h.example", "http://h.example:80"),
    "default port with TLS": ("https://h.example", "HTTPS://h.example:443/"),
    "full name": ("http://h.example.:8080", "http://h.example:8080"),
    "IPv6": ("http://[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080"),
}
COMMANDS: tuple[Sequence[str], ...] = (
    ("check", "job.toml"),
    ("run", "job.toml", "--dry-run"),
    ("run", "job.toml"),
    ("plan", "job.toml"),
)


@pytest.mark.parametrize("case", ONE_SERVER)
def test_two_targets_of_one_server_are_refused_by_check_as_by_run(ready: Cli, case: str) -> None:
    eu, us = ONE_SERVER[case]
    ready.write("job.toml", job({"eu": eu, "us": us, "asia": "http://other.example"}))
    said = {ready(*command, code=2).err for command in (COMMANDS if case == "the same" else COMMANDS[:1])}
    assert len(said) == 1, "all say the same"
    assert "targets eu and us are both http" in said.pop()
    assert not (ready.place / "runs").exists()


def test_check_reads_every_target_as_run_does(ready: Cli) -> None:
    ready.write("job.toml", job({"eu": "http://a.example", "us": "http://b.example"}, more='profile = "p"\n'))
    assert "target eu: --profile p: " in ready("check", "job.toml", code=2).err
    two = job({"eu": "http://a.example", "us": "http://b.example"})
    ready.write("job.toml", f'{two}[results]\npath = "r.csv"\n')
    assert "every target would replace it" in ready("check", "job.toml", code=2).err
    ready.write("job.toml", job({"eu": "http://a.example", "us": "http://b.example/x"}))
    assert "job.toml:8: [targets.us] endpoint = 'http://b.example/x'" in ready("check", "job.toml", code=2).err


def test_check_is_offline_and_needs_no_server(ready: Cli) -> None:
    names = "".join(f'[targets.{name}]\nrate = "1/s"\n' for name in NAMES)
    ready.write("job.toml", f'[job]\nmanifest = "m.csv"\ntarget_column = "region"\n{names}')
    assert "30 rows for 3 targets, all valid" in ready("check", "job.toml").err


# -- credentials --------------------------------------------------------------------------------------------------------


def counting(ready: Cli, profile: str, more: str = "") -> str:
    """Return a profile whose password command counts how often it ran."""
    command = f'password_command = ["sh", "-c", "echo x >> {ready.place}/asked-{profile}; echo password"]'
    return f'[profile.{profile}]\naccount = "admin"\n{command}\n{more}'


def asked(ready: Cli, profile: str) -> int:
    return len((ready.place / f"asked-{profile}").read_text().splitlines())


def test_a_credential_command_runs_once(ready: Cli, servers: dict[str, Server]) -> None:
    (ready.place / "config/bulkimg").mkdir(parents=True)
    own = counting(ready, "own", f'endpoint = "{servers["asia"].url}"\n')
    ready.write("config/bulkimg/config.toml", counting(ready, "common") + own)
    tables = [f'[targets.{name}]\nendpoint = "{servers[name].url}"\nprofile = "common"\n' for name in ("eu", "us")]
    ready.write(
        "job.toml",
        '[job]\nmanifest = "m.csv"\ntarget_column = "region"\n' + "".join(tables) + '[targets.asia]\nprofile = "own"\n',
    )
    here = Cli(ready.place)
    said = here("run", "job.toml", "--run-id", "p1").err
    assert "the credentials of profile common are used for 2 targets" in said
    assert (asked(ready, "common"), asked(ready, "own")) == (1, 1)
    here("undo", "p1", "--run-id", "p2")
    assert (asked(ready, "common"), asked(ready, "own")) == (2, 2)
    here("verify", "p2.asia")
    assert (asked(ready, "common"), asked(ready, "own")) == (2, 3)


# -- names that resume --------------------------------------------------------------------------------------------------

SLOW = ("--rate", "10/s", "--max-duration", "600ms")
FAST = ("--rate", "unlimited", "--max-duration", "1m")


def test_a_named_undo_is_resumed_and_nothing_else_is_taken_for_it(ready: Cli, servers: dict[str, Server]) -> None:
    tables = {name: table(server) for name, server in servers.items()}
    ready("run", "job.toml", "--run-id", "c1")
    back = ("undo", "c1", "--run-id", "back")
    ready(*back, *SLOW, code=6)
    assert "campaign back does different work" in ready("run", "job.toml", "--run-id", "back", code=7).err
    assert "campaign back does different work" in ready("retry", "c1", "--run-id", "back", code=7).err
    assert "campaign c1 is finished" in ready("undo", "c1", "--run-id", "c1", code=7).err
    assert "resuming campaign back" in ready(*back, *FAST).err
    assert {name: table(server) for name, server in servers.items()} == tables
    assert {path.name for path in (ready.place / "runs").glob("back*")} == {"back", *(f"back.{n}" for n in NAMES)}
    assert "campaign back is finished and cannot be resumed" in ready(*back, code=7).err


def test_a_named_undo_stays_an_undo_when_it_is_resumed(ready: Cli) -> None:
    ready("run", "job.toml", "--run-id", "c1")
    ready("undo", "c1", "--run-id", "back", *SLOW, code=6)
    before = {name: stored_settings(RunDirectory(ready.place / f"runs/back.{name}")) for name in NAMES}
    ready("undo", "c1", "--run-id", "back", *FAST)
    after = {name: stored_settings(RunDirectory(ready.place / f"runs/back.{name}")) for name in NAMES}
    kept = ("tags_mode", "allow_field", "skip_invalid")
    assert [[after[n][key] for key in kept] for n in NAMES] == [[before[n][key] for key in kept] for n in NAMES]
    assert {after[name]["tags_mode"] for name in NAMES} == {"replace"}


def test_a_named_retry_is_resumed(ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest) -> None:
    ready("run", "job.toml", "--run-id", "c1", *SLOW, code=6)
    again = ("retry", "c1", "--run-id", "again")
    ready(*again, *SLOW, code=6)
    assert "campaign again does different work" in ready("undo", "c1", "--run-id", "again", code=7).err
    assert "resuming campaign again" in ready(*again, *FAST).err
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, ROWS // 3)
    assert "is finished" in ready(*again, code=7).err


def test_a_name_of_which_nothing_was_sent_is_free(ready: Cli, servers: dict[str, Server]) -> None:
    tables = {name: table(server) for name, server in servers.items()}
    ready("run", "job.toml", "--run-id", "c1")
    place = ready.place / "runs/back"
    place.mkdir(mode=0o700)  # its process was killed before campaign.json was written
    ready("undo", "c1", "--run-id", "back")
    assert {name: table(server) for name, server in servers.items()} == tables


def test_a_named_campaign_takes_no_other_server_and_the_limits_that_are_given_now(
    ready: Cli, servers: dict[str, Server]
) -> None:
    ready("plan", "job.toml", "--run-id", "n1")
    text = (ready.place / "job.toml").read_text()
    ready.write("job.toml", text.replace(servers["us"].url, "http://127.0.0.1:9"))
    said = ready("run", "job.toml", "--run-id", "n1", code=7).err
    assert f"run n1.us was started against {servers['us'].url}/zstack, not http://127.0.0.1:9/zstack" in said
    ready.write("job.toml", f"{text}[guard]\nmax_changes = 2\n")
    assert "max-changes" in ready("run", "job.toml", "--run-id", "n1", code=7).err


# -- the question -------------------------------------------------------------------------------------------------------


def test_the_question_names_the_server_and_the_account_of_each_target(ready: Cli, servers: dict[str, Server]) -> None:
    asked_for = [f"{name}: {servers[name].url}/zstack as account admin" for name in NAMES]
    code, shown, _ = on_a_terminal(ready, None, "n\n", "run", "job.toml", ahead=False)
    lines = shown.replace("\r", "").splitlines()
    at = lines.index(asked_for[0])
    assert code == 7
    assert lines[at : at + 3] == asked_for
    assert lines[at + 3].startswith("Change 30 images on 3 targets (eu 10, us 10, asia 10)? [y/N"), "just above it"
    code, shown, _ = on_a_terminal(ready, None, "n\n" * 3, "run", "job.toml", "--order", "one-by-one", ahead=False)
    lines = [line for line in shown.replace("\r", "").splitlines() if line in asked_for or line.startswith("Change ")]
    assert lines[::2] == asked_for, "each just above its own question"
    assert [line.partition("?")[0] for line in lines[1::2]] == [f"Change 10 images on 1 target ({n} 10)" for n in NAMES]


# -- what is undone already ---------------------------------------------------------------------------------------------


def test_what_is_undone_already_ends_as_for_one_run(ready: Cli, servers: dict[str, Server]) -> None:
    ready("run", "job.toml", "--run-id", "u1")
    image = next(
        uuid for uuid, row in servers["us"].images().items() if str(row.get("description")).startswith("test_")
    )
    servers["us"].edit(image, description="theirs")
    ready("undo", "last", "--run-id", "u2", code=1)
    done = ready("undo", "last", code=1)
    assert "run u1.eu was already undone by run u2.eu at " in done.err
    assert "UTC, except 1 row; nothing to do" in done.err
    assert ready("undo", "last", "--json", code=1).json()["exit_code"] == 1
    assert ready("undo", "u1", "--run-id", "u3", code=1).err.count("conflict") == 3, (
        "named, it looks at the images again"
    )


def test_what_is_left_is_undone_and_the_rest_is_said(ready: Cli, servers: dict[str, Server]) -> None:
    tables = {name: table(server) for name, server in servers.items()}
    ready("run", "job.toml", "--run-id", "u1")
    ready("undo", "u1.eu", "--run-id", "u2")
    done = ready("undo", "last")
    assert "eu: run u1.eu was already undone by run u2 at " in done.err
    assert {name: table(server) for name, server in servers.items()} == tables


def test_an_undo_of_what_has_not_ended_says_so(ready: Cli, servers: dict[str, Server]) -> None:
    before = {name: len(server.puts()) for name, server in servers.items()}
    process = ready.start("run", "job.toml", "--run-id", "u1", "--rate", "4/s")
    for name, server in servers.items():
        server.wait_for_put(before[name] + 1)  # the first one asks how the server spells the key
    process.terminate()
    process.communicate(timeout=60)
    assert process.wait(1) == 143
    said = ready("undo", "u1", "--plan").err
    assert "eu: run u1.eu has not ended (" in said
    assert "bulkimg resume u1.eu would still send the rest" in said


# -- two processes ------------------------------------------------------------------------------------------------------


def both(first: Running, second: Running) -> list[tuple[int, str]]:
    """Return exit code and standard error of two processes."""
    said = [process.communicate(timeout=60)[1] for process in (first, second)]
    return sorted(zip((first.wait(1), second.wait(1)), said, strict=True))


def wait_until_open(place: Path, *processes: Running) -> None:
    """Wait until each process has opened this directory."""
    deadline = time.monotonic() + 30
    for process in processes:
        while not any(os.path.realpath(link) == str(place) for link in Path(f"/proc/{process.pid}/fd").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("overlap", [(), ("--allow-overlap",)])
def test_of_two_processes_that_begin_one_name_one_goes_on(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest, overlap: tuple[str, ...]
) -> None:
    runs = ready.place / "runs"
    runs.mkdir()
    lock = os.open(runs, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    words = ("run", "job.toml", "--run-id", "c1", "--rate", "30/s", *overlap)
    first, second = ready.start(*words), ready.start(*words)
    wait_until_open(runs, first, second)  # both are about to make the campaign
    os.close(lock)
    (good, _), (bad, why) = both(first, second)
    assert (good, bad) == (0, 7), why
    assert "campaign c1 is in use by another process; see bulkimg status c1" in why
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, ROWS // 3)
    assert ready("status", "c1", "--json").json()["exit_code"] == 0


def test_a_campaign_is_executed_by_one_process(ready: Cli, servers: dict[str, Server]) -> None:
    before = len(servers["eu"].puts())
    first = ready.start("run", "job.toml", "--run-id", "c1", "--rate", "5/s")
    servers["eu"].wait_for_put(before)
    for words in (("run", "job.toml", "--run-id", "c1"), ("resume", "c1"), ("apply", "c1")):
        assert "campaign c1 is in use by another process" in ready(*words, code=7).err
    first.terminate()
    first.communicate(timeout=30)
    assert first.wait(1) == 143
    ready("resume", "c1", "--rate", "unlimited")


def said_waiting(process: Running) -> None:
    """Read standard error until the process says that it waits for another run."""
    assert process.stderr is not None
    for line in process.stderr:
        if "waiting for its end" in line:
            return
    raise AssertionError("it did not wait")


def test_jobs_that_name_their_targets_in_reverse_order_do_not_wait_for_each_other(
    ready: Cli, servers: dict[str, Server]
) -> None:
    one, two = sorted(("eu", "us"), key=lambda name: servers[name].url)
    other = servers[two].session
    urls = {name: servers[name].url for name in (one, two)}
    only = [line for line in (ready.place / "m.csv").read_text().splitlines() if ",asia," not in line]
    ready.write("m.csv", "\n".join(only) + "\n")
    ready.write("a.toml", job(urls, name="a"))
    ready.write("b.toml", job({two: urls[two], one: urls[one]}, name="b"))
    images = sorted(servers[two].images())
    ready.write("c.csv", "uuid,description\n" + "".join(f"{uuid},c\n" for uuid in images))
    ready.write("c.toml", f'[job]\nname = "a.{two}"\nmanifest = "c.csv"\n[target]\nendpoint = "{urls[two]}"\n')
    before = len(servers[two].puts())
    busy = Cli(ready.place, {"BULKIMG_SESSION": other}).start("run", "c.toml", "--rate", "2/s")  # in the way of a
    servers[two].wait_for_put(before)
    first = ready.start("run", "a.toml", "--lock-wait", "9s")
    said_waiting(first)  # for the second server; it has its run on the first one
    second = ready.start("run", "b.toml", "--lock-wait", "9s")
    said_waiting(second)
    busy.kill()
    busy.communicate(timeout=30)
    ends = both(first, second)
    assert [code for code, _ in ends] == [0, 0], ends
