"""Jobs with several targets against several servers: each row at its own, one end, and the campaign as a whole again."""

import fcntl
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.campaign.jobs import DEAD, NAMES, ROWS, changed, job, manifest, table
from tests.cli.terminal import _at_terminal, on_a_terminal
from tests.conftest import UUID, Cli, Server


def test_every_row_goes_to_its_own_target_and_nowhere_else(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    before = {name: len(server.puts()) for name, server in servers.items()}
    done = ready("run", "job.toml", "--run-id", "c1", "--json")
    document = done.json()
    assert document["exit_code"] == 0
    assert document["rows"] == ROWS == document["counts"]["updated"]
    assert [each["target"] for each in document["targets"]] == list(NAMES)
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, ROWS // 3)
    lines = [json.loads(line) for name in NAMES for line in results(ready, f"c1.{name}")]
    assert sorted(row["line"] for row in lines) == list(range(2, ROWS + 2)), "each row once, at its own line"
    asked = {name: {put["path"] for put in server.puts()[before[name] :]} for name, server in servers.items()}
    assert {name: len(paths) for name, paths in asked.items()} == dict.fromkeys(NAMES, ROWS // 3)
    assert len(set().union(*asked.values())) == ROWS, "no image was asked for at two servers"
    tied = json.loads((ready.place / "runs/c1/campaign.json").read_text())
    assert [each["run_id"] for each in tied["targets"]] == [f"c1.{name}" for name in NAMES]
    assert "password" not in json.dumps(tied)


def results(cli: Cli, run: str) -> list[str]:
    return (cli.place / "runs" / run / "results.jsonl").read_text("utf-8").splitlines()


def test_every_target_gets_every_row(here: Cli, servers: dict[str, Server], request: pytest.FixtureRequest) -> None:
    here.write("m.csv", manifest(servers, request.node.name).replace(",region,", ",_region,"))
    here.write("job.toml", job({name: server.url for name, server in servers.items()}, "every_target = true"))
    here("run", "job.toml")
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, ROWS)


def test_one_dead_target_stops_no_other_and_the_worst_exit_code_is_that_of_all(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    urls = {name: server.url for name, server in servers.items()}
    ready.write("dead.toml", job(urls | {"us": DEAD}))
    done = ready("run", "dead.toml", "--run-id", "d1", "--max-outage", "1s", "--rate", "12/s", code=5)
    assert re.search(r"us: stopped: login failed: cannot connect", done.err)
    assert changed(servers, request.node.name) == {"eu": 10, "us": 0, "asia": 10}
    found = ready("status", "d1", "--json").json()
    assert {each["target"]: each["status"]["state"] for each in found["targets"]}["us"] == "ready"
    assert found["counts"]["unprocessed"] == 10
    assert found["exit_code"] == 5
    page = (ready.place / "runs/d1/report.html").read_text("utf-8")
    assert "Not finished: us. 20 of 30 rows have their outcome." in page
    assert 'href="../d1.us/report.html"' in page


def test_a_run_that_another_process_holds_stops_no_other(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    ready("plan", "job.toml", "--run-id", "h1")
    lock = os.open(ready.place / "runs/h1.us", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = ready("apply", "h1", code=7)
    finally:
        os.close(lock)
    assert "us: run h1.us is in use by another process" in done.err
    assert changed(servers, request.node.name) == {"eu": 10, "us": 0, "asia": 10}
    ready("apply", "h1.us")
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, 10)


def test_a_row_for_a_target_that_is_not_declared_refuses_all(ready: Cli, servers: dict[str, Server]) -> None:
    text = (ready.place / "m.csv").read_text().replace(",asia,", ",aisa,", 1).replace(",us,", ", ,", 1)
    ready.write("m.csv", text)
    before = sum(len(server.requests()) for server in servers.values())
    done = ready("run", "job.toml", code=3)
    assert "m.csv:4: region 'aisa': is not a target of the job; did you mean 'asia'?" in done.err
    assert "m.csv:3: region: is blank, so the row has no target" in done.err
    assert "2 of 30 rows cannot be sent (2 problems)" in done.err
    assert sum(len(server.requests()) for server in servers.values()) == before
    assert ready("check", "job.toml", code=3).out.count("region") == 2
    run = ready("run", "job.toml", "--skip-invalid", "--run-id", "s1", "--json", code=1).json()
    assert run["counts"] | {"updated": 0, "unchanged": 0} == dict.fromkeys(run["counts"], 0) | {"invalid": 2}
    assert run["rows"] == ROWS, "no row is lost"


def test_jsonl_rows_name_their_target_too(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    rows = [line.split(",") for line in (ready.place / "m.csv").read_text().splitlines()[1:]]
    objects = [json.dumps({"uuid": uuid, "region": region, "description": text}) for uuid, region, text in rows]
    ready.write("m.jsonl", "\n".join(objects))
    ready.write("job.toml", (ready.place / "job.toml").read_text().replace("m.csv", "m.jsonl"))
    ready("run", "job.toml")
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, ROWS // 3)


BAD_JOBS = {
    "no rule": (job({"eu": DEAD}, ""), "nothing says which rows are for which"),
    "two rules": (job({"eu": DEAD}, 'target_column = "region"\nevery_target = true'), "keep one of them"),
    "no targets": ('[job]\nmanifest = "m.csv"\ntarget_column = "region"\n', "add a table [targets.NAME]"),
    "one endpoint": (job({"eu": DEAD, "us": DEAD}), "targets eu and us are both http://127.0.0.1:9/zstack"),
    "one endpoint, written differently": (
        job({"eu": "http://LOCALHOST:9", "us": "http://localhost:9/"}),
        "targets eu and us are both",
    ),
    "no endpoint": (job({"eu": DEAD}) + "[targets.us]\nrate = 5\n", "target us: "),
    "a name": (job({"e u": DEAD}).replace("targets.e u", 'targets."e u"'), "is not a target's name"),
    "an option": (job({"eu": DEAD}, more="manifest = 'x'\n"), "'manifest' is in [targets.eu] but belongs in [job]"),
    "a value": (job({"eu": DEAD}, more="rate = 'fast'\n"), "job.toml:7: [targets.eu] rate = 'fast'"),
    "results": (job({"eu": DEAD, "us": f"{DEAD}9"}) + '[results]\npath = "r.csv"\n', "results-{target}.csv"),
    "not a table": ('[job]\nmanifest = "m.csv"\n[targets]\neu = "x"\n', "'eu' is outside a target"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_wrong_job_is_one_sentence_and_sends_nothing(ready: Cli, case: str) -> None:
    text, said = BAD_JOBS[case]
    ready.write("job.toml", text)
    done = ready("run", "job.toml", code=2)
    assert said in done.err
    assert not (ready.place / "runs").exists()


def test_a_column_that_is_not_there_is_named_before_anything_is_sent(ready: Cli) -> None:
    ready.write("job.toml", job({"eu": DEAD}, 'target_column = "regoin"'))
    done = ready("run", "job.toml", "--run-id", "c", code=2)
    assert "target_column: the manifest has no column 'regoin'; did you mean 'region'?" in done.err
    assert not (ready.place / "runs/c").exists(), "the name is free again"


def test_targets_options_need_targets(ready: Cli) -> None:
    assert "is for a job file with several targets" in ready("run", "m.csv", "--targets", "eu", code=2).err
    ready.write("one.toml", '[job]\nmanifest = "m.csv"\n')
    assert "has no table [targets.NAME]" in ready("plan", "one.toml", "--order", "parallel", code=2).err
    assert (
        "the job has no such target; did you mean 'asia'?" in ready("run", "job.toml", "--targets", "asai", code=2).err
    )


def test_chosen_targets_get_their_rows_and_the_others_are_left_out(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    done = ready("run", "job.toml", "--targets", "us,eu", "--json").json()
    assert changed(servers, request.node.name) == {"eu": 10, "us": 10, "asia": 0}
    assert done["rows"] == 20
    assert {each["summary"]["rows_left_out"] for each in done["targets"]} == {10}


def test_one_by_one_stops_at_a_failure_if_asked(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    urls = {name: server.url for name, server in servers.items()}
    ready.write("dead.toml", job(urls | {"us": DEAD}))
    options = ("--order", "one-by-one", "--stop-on-failure", "--max-outage", "1s", "--run-id", "o1")
    done = ready("run", "dead.toml", *options, code=5)
    assert "asia: not begun" in done.err
    assert changed(servers, request.node.name) == {"eu": 10, "us": 0, "asia": 0}
    assert "next:    bulkimg resume o1" in done.err
    ready("resume", "o1", "--max-outage", "1s", code=5)
    assert changed(servers, request.node.name) == {"eu": 10, "us": 0, "asia": 10}


def test_a_killed_campaign_is_resumed_with_no_row_lost(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    before = {name: len(server.puts()) for name, server in servers.items()}
    process = ready.start("run", "job.toml", "--run-id", "k1", "--rate", "20/s")
    servers["eu"].wait_for_put(before["eu"])
    process.kill()
    process.communicate(timeout=30)
    assert ready("status", "last", "--json").json()["state"] == "interrupted"
    done = ready("resume", "k1", "--json").json()
    assert done["counts"]["updated"] + done["counts"]["unchanged"] == ROWS
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, ROWS // 3)
    made = Counter(request["path"] for name, server in servers.items() for request in server.puts()[before[name] :])
    assert sum(made.values()) <= ROWS + 3 * 16, "at most --concurrency rows of each target are asked for again"


def test_one_signal_stops_all_and_it_is_resumable(ready: Cli, servers: dict[str, Server]) -> None:
    before = len(servers["us"].puts())
    process = ready.start("run", "job.toml", "--run-id", "i1", "--rate", "10/s")
    servers["us"].wait_for_put(before)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "next:    bulkimg resume i1" in err
    assert {each["status"]["state"] for each in ready("status", "i1", "--json").json()["targets"]} <= {
        "stopped",
        "done",
    }
    ready("run", "job.toml", "--run-id", "i1", "--rate", "200/s")  # the same name resumes it
    assert ready("status", "i1", "--json").json()["not_fine"] == 0
    assert "is finished" in ready("run", "job.toml", "--run-id", "i1", code=7).err


def test_another_manifest_or_other_targets_under_the_same_name_are_refused(ready: Cli) -> None:
    ready("plan", "job.toml", "--run-id", "n1")
    assert "choose another --run-id" in ready("run", "job.toml", "--run-id", "n1", "--targets", "eu", code=7).err
    ready.write("m.csv", (ready.place / "m.csv").read_text() + f"{UUID},eu,x\n")
    assert "not the manifest of campaign n1" in ready("run", "job.toml", "--run-id", "n1", code=7).err


def test_plan_shows_each_target_and_apply_sends_all(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    done = ready("plan", "job.toml", "--run-id", "p1", "--detailed-exitcode", code=10)
    assert [line for line in done.out.splitlines() if line.startswith("target ")] == [f"target {n}:" for n in NAMES]
    assert done.err.count("next:") == 1
    assert "next:    bulkimg apply p1" in done.err
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, 0)
    ready("apply", "p1")
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, ROWS // 3)
    plans = ready("plan", "job.toml", "--json").json()["targets"]
    assert [each["changes"]["actions"]["unchanged"] for each in plans] == [ROWS // 3] * 3


def test_a_campaign_is_undone_as_a_whole_and_only_once(ready: Cli, servers: dict[str, Server]) -> None:
    tables = {name: table(server) for name, server in servers.items()}
    ready("run", "job.toml", "--run-id", "u1")
    assert any(table(server) != tables[name] for name, server in servers.items())
    undone = ready("undo", "last", "--json").json()
    assert (undone["kind"], undone["of"], undone["exit_code"]) == ("undo", "u1", 0)
    assert {name: table(server) for name, server in servers.items()} == tables
    assert "was already undone by run" in ready("undo", "last").err


def test_only_what_failed_is_retried(ready: Cli, servers: dict[str, Server]) -> None:
    text = (ready.place / "m.csv").read_text() + f"{UUID},us,x\n"
    ready.write("m.csv", text)
    ready("run", "job.toml", "--run-id", "f1", code=1)
    again = ready("retry", "f1", "--json", code=1).json()
    assert [(each["target"], each["summary"]["rows"]) for each in again["targets"]] == [("us", 1)]
    assert again["next"] is not None
    ready.write("m.csv", text.replace(UUID, "f" * 32))
    fine = ready("run", "job.toml", "--targets", "eu", "--run-id", "g1", "--json").json()
    assert fine["exit_code"] == 0
    assert "nothing to retry" in ready("retry", "g1").err


def test_one_question_for_all_targets(ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest) -> None:
    before = {name: len(server.puts()) for name, server in servers.items()}
    code, shown, _ = on_a_terminal(ready, None, "d\nn\n", "run", "job.toml", ahead=False)
    assert code == 7, shown
    assert shown.count("Change 30 images on 3 targets (eu 10, us 10, asia 10)?") == 2, "once more after the differences"
    assert re.search(r"us: line \d+: image", shown)
    assert {name: len(server.puts()) for name, server in servers.items()} == before
    code, shown, _ = on_a_terminal(ready, None, "y\n", "run", "job.toml", ahead=False)
    assert code == 0, shown
    assert changed(servers, request.node.name) == dict.fromkeys(NAMES, ROWS // 3)


def test_old_campaigns_are_removed_run_by_run_and_then_as_a_whole(ready: Cli) -> None:
    text = (ready.place / "job.toml").read_text()
    ready.write("job.toml", text.replace('name = "nightly"', 'name = "nightly"\nkeep = { last = 1 }'))
    for name in ("n1", "n2", "n3"):
        ready("run", "job.toml", "--run-id", name)
    assert {path.name for path in (ready.place / "runs").iterdir()} == {"n3", *(f"n3.{name}" for name in NAMES)}
    ready("run", "job.toml", "--run-id", "n4", "--targets", "eu")
    assert "removed since: n3.eu" in ready("status", "n3").out
    assert ready("status", "n3", "--json").json()["rows"] == 20


def test_a_job_with_several_targets_is_scheduled(ready: Cli, servers: dict[str, Server]) -> None:
    for name, text in (("account", "admin"), ("password", "password")):
        (ready.place / ready.write(name, text)).chmod(0o600)
    given = [word for name in ("account", "password") for word in ("--credential", f"{name}={ready.place / name}")]
    line = ready("schedule", "job.toml", "--when", "02:30", "--as", "cron", *given).out
    assert f"bulkimg run {ready.place}/job.toml --yes -q" in line
    ready.write("job.toml", (ready.place / "job.toml").read_text() + "[targets.moon]\nrate = 1\n")
    said = ready("schedule", "job.toml", "--when", "02:30", "--as", "cron", *given, code=2).err
    assert "target moon: " in said
    assert "has no endpoint" in said
    eu = servers["eu"].url
    for text, why in (
        (job({"eu": eu, "us": eu}), "targets eu and us are both"),
        (job({"eu": eu, "us": servers["us"].url}) + '[results]\npath = "one.csv"\n', "every target would replace it"),
    ):
        ready.write("job.toml", text)
        assert why in ready("schedule", "job.toml", "--when", "02:30", "--as", "cron", *given, code=2).err


def test_check_and_dry_run_read_the_rows_as_the_run_will(ready: Cli, servers: dict[str, Server]) -> None:
    image = sorted(servers["eu"].images())[0]
    ready.write("m.csv", f"uuid,region,name\n{image},eu,a\n{image},us,b\n")
    assert ready("check", "job.toml").err.startswith("m.csv: 2 rows for 3 targets, all valid")
    assert ready("run", "job.toml", "--dry-run").out.endswith(
        "2 rows would be sent to 3 targets; nothing was sent (dry run)\n"
    )
    ready.write(
        "job.toml", (ready.place / "job.toml").read_text().replace('target_column = "region"', "every_target = true")
    )
    ready.write("m.csv", f"uuid,_region,name\n{image},eu,a\n")
    assert ready("run", "job.toml", "--dry-run", "--json").json()["to_send"] == 3
    ready.write("m.csv", f"uuid,name\n{image},\nx,y\n")
    assert ready("check", "job.toml", code=3).out.count("uuid 'x'") == 1


def test_what_is_typed_ahead_answers_no_later_question(
    ready: Cli, servers: dict[str, Server], request: pytest.FixtureRequest
) -> None:
    answers = ["y\ny\n", "n\n", "n\n"]  # a doubled yes to the first question

    def typed(shown: bytes) -> bytes:
        return answers.pop(0).encode() if answers and shown.endswith(b"] ") else b""

    here = Cli(ready.place, {**ready.environment, "TERM": "xterm", "COLUMNS": "120"})
    code, shown, _ = _at_terminal(here, ("run", "job.toml", "--order", "one-by-one"), typed)
    assert code == 7, shown
    assert changed(servers, request.node.name) == {"eu": 10, "us": 0, "asia": 0}


def test_last_names_the_campaign_or_asks_which_run(ready: Cli) -> None:
    ready("plan", "job.toml", "--run-id", "l1")
    assert ready("status").out.startswith("campaign l1 (run): planned")
    assert ready("status", "l1.us", "--json").json()["run_id"] == "l1.us"
    for command in (("watch", "last"), ("ui", "last"), ("report", "last", "--out", "x.html")):
        assert "campaign" in ready(*command, code=2).err


def test_what_takes_one_run_names_the_runs_of_a_campaign(ready: Cli) -> None:
    ready("plan", "job.toml", "--run-id", "o1")
    for command in (("watch", "o1"), ("ui", "o1"), ("report", "o1.eu", "--compare", "o1")):
        why = ready(*command, code=2).err
        assert "o1 is a campaign of several runs; name the one that you mean: o1.eu, o1.us, o1.asia" in why


def test_a_damaged_campaign_file_says_how_to_go_on(ready: Cli) -> None:
    ready("plan", "job.toml", "--run-id", "x1")
    path: Path = ready.place / "runs/x1/campaign.json"
    for text in ("", "{", "[]", '{"schema": 1, "targets": [{"target": "eu", "run_id": "../../x"}]}'):
        path.write_text(text)
        assert "name its runs one by one: x1.TARGET" in ready("status", "x1", code=8).err
    assert ready("status", "x1.eu").code == 0


def test_a_name_is_that_of_its_own_campaign_and_of_no_longer_one(ready: Cli) -> None:
    ready("plan", "job.toml", "--run-id", "move-10")
    done = ready("run", "job.toml", "--run-id", "move-1")
    assert "resuming" not in done.err
    assert ready("status", "move-10", "--json").json()["state"] == "planned"


def test_a_refused_campaign_leaves_its_name(ready: Cli) -> None:
    text = (ready.place / "m.csv").read_text()
    ready.write("m.csv", text.replace(",asia,", ",aisa,", 1))
    ready("run", "job.toml", "--run-id", "r1", code=3)
    ready.write("m.csv", text)
    ready("run", "job.toml", "--run-id", "r1")


def test_what_a_killed_process_left_of_a_creation_does_not_keep_the_name(ready: Cli) -> None:
    ready("plan", "job.toml", "--run-id", "k1")
    (ready.place / "runs/k1/campaign.json").unlink()
    (ready.place / "runs/k1/report.html").unlink(missing_ok=True)
    assert "already exists" in ready("run", "job.toml", "--run-id", "k1", code=7).err, "its runs have plans"
    for name in NAMES:
        for path in (ready.place / f"runs/k1.{name}").iterdir():
            path.unlink()
    ready("run", "job.toml", "--run-id", "k1")


def test_standard_input_can_be_given_again_under_the_same_name(ready: Cli) -> None:
    ready.write("job.toml", (ready.place / "job.toml").read_text().replace("m.csv", "-"))
    text = (ready.place / "m.csv").read_text()
    ready("plan", "job.toml", "--run-id", "s1", stdin=text)
    assert "resuming campaign s1" in ready("run", "job.toml", "--run-id", "s1", stdin=text).err


def test_a_campaign_with_a_dead_target_is_undone_where_it_sent(ready: Cli, servers: dict[str, Server]) -> None:
    tables = {name: table(server) for name, server in servers.items()}
    urls = {name: server.url for name, server in servers.items()}
    ready.write("dead.toml", job(urls | {"us": DEAD}))
    ready("run", "dead.toml", "--run-id", "d2", "--max-outage", "1s", code=5)
    ready("undo", "d2")
    assert {name: table(server) for name, server in servers.items()} == tables


def test_a_damaged_ledger_stops_no_other_target(ready: Cli, servers: dict[str, Server]) -> None:
    tables = {name: table(server) for name, server in servers.items()}
    ready("run", "job.toml", "--run-id", "b1")
    (ready.place / "runs/b1.us/run.db").write_bytes(b"no ledger" * 1000)
    ready("undo", "b1", "--run-id", "ub", code=8)
    assert table(servers["eu"]) == tables["eu"]
    assert table(servers["asia"]) == tables["asia"]
    assert table(servers["us"]) != tables["us"]


def test_no_target_replaces_the_results_of_another(ready: Cli) -> None:
    ready("plan", "job.toml", "--run-id", "o1")
    assert "{target}" in ready("apply", "o1", "--results", "r.csv", code=2).err
    ready("apply", "o1", "--results", "r-{target}.csv")
    assert {path.name for path in ready.place.glob("r-*")} == {f"r-{name}.csv" for name in NAMES}
    assert "{target}" in ready("undo", "o1", "--results", "r.csv", code=2).err
    assert "--metrics-listen" in ready("undo", "o1", "--metrics-listen", "127.0.0.1:0", code=2).err


def test_an_id_without_room_for_a_target_is_refused(ready: Cli) -> None:
    assert "is too long" in ready("run", "job.toml", "--run-id", "n" * 98, code=2).err
    ready("run", "job.toml", "--run-id", "n" * 95)
    assert ready("status", "n" * 95, "--json").json()["exit_code"] == 0
