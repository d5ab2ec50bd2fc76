"""Commands that look at a campaign or steer it: verify, results, ctl, and the page of all runs."""

import csv
import io
import json
import urllib.request

from tests.campaign.jobs import NAMES, ROWS, job
from tests.conftest import Cli, Server

DONE = ("run", "job.toml", "--run-id", "c1")

# -- verify -------------------------------------------------------------------------------------------------------------


def test_verify_looks_at_every_target(ready: Cli, servers: dict[str, Server]) -> None:
    ready(*DONE)
    assert ready("verify", "last").err.count("10 images checked, 0 differ") == 3
    mine = [row for row in csv.DictReader(io.StringIO((ready.place / "m.csv").read_text())) if row["region"] == "us"]
    servers["us"].edit(mine[0]["uuid"], description="theirs")
    done = ready("verify", "c1", code=1)
    assert "run c1.us: 10 images checked, 1 differs" in done.err
    assert mine[0]["uuid"] in done.out
    found = ready("verify", "c1", "--json", code=1).json()
    assert (found["campaign"], found["images"], found["exit_code"]) == ("c1", ROWS, 1)
    assert [(each["target"], each["exit_code"], len(each["drifted"])) for each in found["targets"]] == [
        ("eu", 0, 0),
        ("us", 1, 1),
        ("asia", 0, 0),
    ]


def test_a_target_that_cannot_be_asked_or_read_prevents_no_other(ready: Cli, servers: dict[str, Server]) -> None:
    ready(*DONE)
    (ready.place / "runs/c1.us/run.db").write_bytes(b"no ledger" * 1000)
    found = ready("verify", "c1", "--json", code=8).json()
    assert [(each["target"], each["images"], bool(each["error"])) for each in found["targets"]] == [
        ("eu", 10, False),
        ("us", 0, True),
        ("asia", 10, False),
    ]
    refused = Cli(ready.place, {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "wrong"})
    done = refused("verify", "c1", code=8)
    assert [line.split(":")[1].strip() for line in done.err.splitlines() if "login" in line] == ["eu", "asia"]


# -- results ------------------------------------------------------------------------------------------------------------


def test_results_of_all_targets_are_one_file_with_a_column_that_names_them(ready: Cli) -> None:
    ready(*DONE)
    rows = list(csv.DictReader(io.StringIO(ready("results", "c1").out)))
    assert [(row["target"], row["status"]) for row in rows] == [(name, "updated") for name in NAMES for _ in range(10)]
    assert sorted(int(row["line"]) for row in rows) == list(range(2, ROWS + 2))
    objects = [json.loads(line) for line in ready("results", "last", "--as", "jsonl").out.splitlines()]
    assert [row.pop("target") for row in objects] == [row["target"] for row in rows]
    own = [
        json.loads(line)
        for name in NAMES
        for line in (ready.place / f"runs/c1.{name}/results.jsonl").read_text("utf-8").splitlines()
    ]
    assert objects == own, "nothing else is different"


def test_results_go_where_they_are_asked_for(ready: Cli) -> None:
    ready(*DONE)
    assert ready("results", "c1", "--out", "all.csv").out == "all.csv\n"
    assert len((ready.place / "all.csv").read_text("utf-8").splitlines()) == ROWS + 1
    assert "exists already" in ready("results", "c1", "--out", "all.csv", code=2).err
    ready("results", "c1", "--out", "all.csv", "--force")
    assert ready("results", "c1", "--out", "r-{target}.csv").out.split() == [f"r-{name}.csv" for name in NAMES]
    assert (ready.place / "r-us.csv").read_bytes() == (ready.place / "runs/c1.us/results.csv").read_bytes()
    made = ready("results", "c1", "--as", "xlsx", "--json").json()
    assert [each["results"] for each in made["targets"]] == [f"runs/c1.{name}/results.xlsx" for name in NAMES]
    assert all((ready.place / each["results"]).is_file() for each in made["targets"])
    for out in ("all.xlsx", "-"):
        assert "results-{target}.xlsx" in ready("results", "c1", "--as", "xlsx", "--out", out, code=2).err
    assert "standard output is the results themselves" in ready("results", "c1", "--json", code=2).err
    (ready.place / "runs/c1.us/run.db").write_bytes(b"no ledger" * 1000)
    assert "c1.us" in ready("results", "c1", "--out", "half.csv", code=8).err
    assert not (ready.place / "half.csv").exists(), "no file that lacks a target"


# -- ctl ----------------------------------------------------------------------------------------------------------------


def test_orders_go_to_every_run_that_is_under_way(ready: Cli, servers: dict[str, Server]) -> None:
    before = {name: len(server.puts()) for name, server in servers.items()}
    process = ready.start(*DONE, "--rate", "5/s")
    for name in NAMES:
        servers[name].wait_for_put(before[name])
    assert "is not one of rate=N/s" in ready("ctl", "c1", "rate=9/s", "hurry", code=2).err
    said = ready("ctl", "last", "rate=7/s").out.splitlines()
    assert [line.partition(":")[0] for line in said] == list(NAMES)
    assert all("rate 7/s" in line for line in said)
    obeyed = ready("ctl", "c1", "stop", "--json").json()
    assert [each["target"] for each in obeyed["targets"]] == list(NAMES)
    assert {each["status"]["rate"] for each in obeyed["targets"]} == {7}
    process.communicate(timeout=60)
    assert process.wait(1) == 130, "as `stop` ends a single run"
    assert "campaign c1 takes no orders" in ready("ctl", "c1", "status", code=7).err


def test_a_run_that_takes_no_orders_yet_is_named(ready: Cli, servers: dict[str, Server]) -> None:
    before = len(servers["eu"].puts())
    process = ready.start(*DONE, "--rate", "5/s", "--order", "one-by-one")
    servers["eu"].wait_for_put(before)
    done = ready("ctl", "c1", "rate=7/s", code=7)
    assert done.out.startswith("eu: ")
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == ["us", "asia"]
    process.kill()
    process.communicate(timeout=30)


# -- the page -----------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_runs_of_a_campaign(ready: Cli) -> None:
    ready(*DONE)
    process = ready.start("ui")
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1]
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = opener.open(url, timeout=30).read().decode()
        assert all(f"c1.{name}" in page for name in NAMES)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_dead_target_does_not_keep_the_others_from_being_listed(ready: Cli, servers: dict[str, Server]) -> None:
    urls = {name: server.url for name, server in servers.items()}
    ready.write("job.toml", job(urls | {"us": "http://127.0.0.1:9"}))
    ready(*DONE, "--max-outage", "1s", code=5)
    listed = {each["run_id"]: each["state"] for each in ready("runs", "--json").json()}
    assert listed == {"c1.eu": "done", "c1.us": "ready", "c1.asia": "done"}
    assert ready("results", "c1").out.count(",unprocessed,") == 10
