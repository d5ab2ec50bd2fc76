"""Plan, apply, verify and undo against the sandbox, in both dialects."""

import csv
import itertools
import json
import random
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Cli, Server, sandbox_process

FAST = ("--rate", "unlimited", "--yes")


@pytest.fixture
def fleet(dialect: str) -> Iterator[Server]:
    """Forty images for one test alone, because these tests check the whole table."""
    with sandbox_process("--images", "40", "--dialect", dialect) as found:
        yield found


def relabel(server: Server, count: int = 40) -> tuple[str, dict[str, dict[str, Any]]]:
    """Make a manifest of new names, descriptions and platforms, and the table that it asks for.

    Some rows change nothing. A data volume keeps its null platform: a platform that was set could not be removed again.
    """
    wanted = server.table()
    lines = ["uuid,name,description,platform,virtio"]
    for n, uuid in enumerate(sorted(wanted)[:count]):
        image = wanted[uuid]
        image["description"] = image.get("description", "") if n % 3 else f"seen {n}"
        image["name"], image["virtio"] = f"new {n}", n % 2 == 0
        if "platform" in image:
            image["platform"] = ("Linux", "Windows", "Other")[n % 3]
        description = image["description"] if n % 3 == 0 else ""
        lines.append(f"{uuid},{image['name']},{description},{image.get('platform', '')},{str(image['virtio']).lower()}")
    return "\n".join(lines) + "\n", wanted


def with_text(table: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Make no description and an empty one equal: the API cannot remove a text (docs/dev/protocol.md §1)."""
    return {uuid: {**image, "description": image.get("description", "")} for uuid, image in table.items()}


def test_a_plan_sends_nothing_and_an_apply_sends_it_once(cli: Cli, fleet: Server) -> None:
    manifest, wanted = relabel(fleet)
    cli.write("m.csv", manifest)
    before = fleet.table()
    done = cli.at(fleet)("plan", "m.csv", "--rate", "unlimited", "--json")
    assert fleet.puts() == []
    assert fleet.table() == before
    changes = done.json()["changes"]
    assert changes["actions"] == {"update": 40, "unchanged": 0, "conflict": 0, "missing": 0}
    assert changes["fields"]["name"] == 40
    differing = sum(before[uuid].get("platform") != wanted[uuid].get("platform") for uuid in wanted)
    assert changes["fields"]["platform"] == differing
    assert len(changes["digest"]) == 64
    assert cli.at(fleet)("plan", "m.csv", "--rate", "unlimited", "--detailed-exitcode", code=10).code == 10
    cli.at(fleet)("apply", "last", *FAST)
    assert with_text(fleet.table()) == with_text(wanted)
    assert {json.loads(put["body"]).popitem()[0] for put in fleet.puts()} <= {"updateimage", "updateImage"}
    sent = len(fleet.puts())
    assert sent <= 41  # one more to find out the action key
    for put in fleet.puts()[-5:]:
        uuid, (_, fields) = put["path"].split("/")[-2], json.loads(put["body"]).popitem()
        assert all(before[uuid].get(name) != value for name, value in fields.items()), "only what differs is sent"
    cli.at(fleet)("run", "m.csv", *FAST)
    assert len(fleet.puts()) == sent, "a second run of the same manifest sends nothing"
    assert cli.summary()["counts"]["unchanged"] == 40
    assert cli.at(fleet)("plan", "m.csv", "--rate", "unlimited", "--detailed-exitcode", code=0).code == 0


def test_an_undo_leaves_the_table_as_it_was(cli: Cli, fleet: Server) -> None:
    manifest, wanted = relabel(fleet)
    cli.write("m.csv", manifest)
    before = fleet.table()
    cli.at(fleet)("run", "m.csv", *FAST, "--note", "TICKET-7")
    first = cli.run_dir()
    assert cli.at(fleet)("verify", first.name).code == 0
    cli.at(fleet)("undo", "last", *FAST)
    assert with_text(fleet.table()) == with_text(before)
    assert cli.summary()["undo_of"] == first.name
    drift = cli.at(fleet)("verify", first.name, "--json", code=1).json()
    assert {item["uuid"] for item in drift["drifted"]} == set(wanted)
    cli.at(fleet)("undo", cli.runs()[-1], *FAST)  # the undo of an undo, which must be named
    assert with_text(fleet.table()) == with_text(wanted)
    sent = len(fleet.puts())
    cli.at(fleet)("run", str(first / "undo.csv"), *FAST)
    assert with_text(fleet.table()) == with_text(before), "undo.csv is equal to it"
    assert len(fleet.puts()) - sent <= 41
    cli.at(fleet)("undo", first.name, *FAST)
    assert cli.summary()["counts"]["unchanged"] == 40, "there is nothing left to take back"


def test_nobodys_later_edit_is_overwritten(cli: Cli, fleet: Server) -> None:
    """Between plan and apply, and between apply and undo."""
    manifest, wanted = relabel(fleet)
    cli.write("m.csv", manifest)
    before = fleet.table()
    cli.at(fleet)("plan", "m.csv", "--rate", "unlimited")
    a, b, c, *_ = sorted(wanted)
    fleet.edit(a, name="theirs")
    fleet.edit(b, name=wanted[b]["name"])  # somebody made the same change
    fleet.edit(c, guestOsType="not ours to look at")
    cli.at(fleet)("apply", "last", *FAST, code=1)
    results = {result["uuid"]: result for result in cli.results()}
    assert results[a]["status"] == "conflict"
    assert "name was " in results[a]["message"]
    assert "'theirs' now" in results[a]["message"]
    assert results[a]["attempts"] == 0
    assert not [put for put in fleet.puts() if a in put["path"] and "theirs" not in put["body"]]
    assert fleet.images()[a]["name"] == "theirs"
    assert fleet.images()[a].get("platform") == before[a].get("platform"), "nor half of a row"
    assert (results[b]["status"], results[c]["status"]) == ("updated", "updated")
    fleet.edit(c, name="theirs too")
    cli.at(fleet)("undo", "last", *FAST, code=1)
    results = {result["uuid"]: result for result in cli.results()}
    assert results[c]["status"] == "conflict"
    assert fleet.images()[c]["name"] == "theirs too"
    assert a not in results, "what was not changed is not taken back"
    others = [uuid for uuid in wanted if uuid not in (a, b, c)]
    table = with_text(fleet.table())
    assert {uuid: table[uuid] for uuid in others} == {uuid: with_text(before)[uuid] for uuid in others}


def test_preconditions_hold_or_nothing_is_sent(cli: Cli, fleet: Server) -> None:
    images = fleet.table()
    a, b, *_ = sorted(uuid for uuid in images if "platform" in images[uuid])
    cli.write(
        "m.csv",
        f"uuid,name,if_platform\n{a},new a,{images[a]['platform']}\n{b},new b,Paravirtualization\n{'f' * 32},x,Linux\n",
    )
    cli.at(fleet)("run", "m.csv", *FAST, code=1)
    assert [result["status"] for result in cli.results()] == ["updated", "conflict", "failed"]
    assert {put["path"].split("/")[-2] for put in fleet.puts()} == {a}
    failed = (cli.run_dir() / "failed.csv").read_text()
    assert "PRECONDITION" in failed
    assert "NO_SUCH_IMAGE" in failed
    assert cli.summary()["counts"] | {"updated": 1, "conflict": 1, "failed": 1} == cli.summary()["counts"]


def test_guards_refuse_before_anything_is_sent(cli: Cli, fleet: Server) -> None:
    manifest, _ = relabel(fleet)
    cli.write("m.csv", manifest)
    for limit in ("39", "99%", "0"):
        done = cli.at(fleet)("run", "m.csv", *FAST, "--max-changes", limit, code=7)
        assert f"--max-changes allows {limit}" in done.err
    cli.write("a.csv", f"uuid,architecture\n{sorted(fleet.images())[0]},mips64el\n")
    done = cli.at(fleet)("run", "a.csv", *FAST, code=7)
    assert "These fields change only with --allow-field" in done.err
    assert "boot mode" in done.err
    assert "next:" not in done.err
    cli.at(fleet)("run", "a.csv", *FAST, "--no-survey", code=7)  # nobody knows whether it changes something, so it may
    assert fleet.puts() == []
    cli.at(fleet)("apply", "last", *FAST, "--allow-field", "architecture")
    assert fleet.images()[sorted(fleet.images())[0]]["architecture"] == "mips64el"


def test_only_the_plan_that_was_looked_at_is_applied(cli: Cli, fleet: Server) -> None:
    cli.write("m.csv", relabel(fleet)[0])
    digest = cli.at(fleet)("plan", "m.csv", "--json", "--rate", "unlimited").json()["changes"]["digest"]
    done = cli.at(fleet)("apply", "last", *FAST, "--checksum", "0" * 16, code=7)
    assert digest in done.err
    assert fleet.puts() == []
    cli.at(fleet)("apply", "last", *FAST, "--checksum", digest[:16].upper())
    done = cli.at(fleet)("apply", "last", *FAST, code=7)
    assert f"run {cli.runs()[-1]} is finished" in done.err
    for nonsense in ("", "ab", "not a hash"):
        assert (
            "not a checksum; give the first 8 to 64 digits"
            in cli.at(fleet)("apply", "last", *FAST, "--checksum", nonsense, code=2).err
        )


def test_a_guard_that_was_given_once_holds_until_another_is_given(cli: Cli, fleet: Server) -> None:
    cli.write("m.csv", relabel(fleet)[0])
    cli.at(fleet)("plan", "m.csv", "--rate", "unlimited")
    for command in (("apply", "last", "--max-changes", "3"), ("apply", "last"), ("resume", "last")):
        done = cli.at(fleet)(*command, *FAST, code=7)
        assert "--max-changes allows 3" in done.err
        assert "next:" not in done.err
    assert fleet.puts() == []
    cli.at(fleet)("apply", "last", *FAST, "--max-changes", "40")
    assert cli.at(fleet)("plan", "m.csv", "--rate", "unlimited").code == 0
    assert cli.at(fleet)("apply", "last", *FAST).code == 0, "a plan without changes is nothing to be refused"


def test_preconditions_are_not_lost_on_the_way(cli: Cli, fleet: Server) -> None:
    """Refused, then retried or resumed by somebody who skips the survey: nothing is sent."""
    a, *_ = sorted(fleet.images())
    cli.write("m.csv", f"uuid,name,if_description\n{a},new,{fleet.images()[a].get('description') or '<empty>'}\n")
    cli.at(fleet)("run", "m.csv", *FAST, "--max-changes", "0", code=7)
    fleet.edit(a, description="theirs")
    done = cli.at(fleet)("retry", "last", *FAST, "--no-survey", "--max-changes", "none", code=7)
    assert "the rows have if_ columns, which need the images' present values" in done.err
    cli.at(fleet)("resume", "last", *FAST, code=None, BULKIMG_SURVEY="false")
    assert not [put for put in fleet.puts() if "theirs" not in put["body"]]


@pytest.mark.parametrize("drifts", [False, True])
def test_the_canary_goes_first_and_the_rest_only_when_it_is_fine(cli: Cli, dialect: str, drifts: bool) -> None:
    """The canary is spread over the plan. A row that is refused or drifts stops the run before any other is sent."""
    with sandbox_process("--images", "40", "--dialect", dialect) as server:
        rows = sorted(server.images())
        bad = "uuid,name,format\n" + "".join(f"{uuid},n{n},{'vhd' if drifts else ''}\n" for n, uuid in enumerate(rows))
        cli.write("m.csv", bad)
        options = (*FAST, "--canary", "5", "--allow-value", "format=vhd", "--allow-field", "format")
        cli.at(server)("run", "m.csv", *options, code=4 if drifts else 0)
        first = list(dict.fromkeys(put["path"].split("/")[-2] for put in server.puts()))[:5]
        places = sorted(rows.index(uuid) for uuid in first)
        assert [after - before for before, after in itertools.pairwise(places)] == [8, 8, 8, 8]
        counts = cli.summary()["counts"]
        if drifts:
            assert counts["unprocessed"] == 35
            assert "5 of 5 canary rows did not succeed; the first is in line " in cli.summary()["reason"]
            cli.at(server)("resume", "last", *FAST, code=4)
            assert cli.summary()["counts"]["unprocessed"] == 35, "going on does not forget it"
        else:
            assert counts["updated"] == 40


def test_a_killed_run_is_undone_and_its_unknown_rows_decided_by_reading(cli: Cli, fleet: Server) -> None:
    manifest, _ = relabel(fleet)
    cli.write("m.csv", manifest)
    before = fleet.table()
    process = cli.at(fleet).start("run", "m.csv", "--yes", "--rate", "60/s", "--concurrency", "8", "--progress", "none")
    fleet.wait_for_put(10)
    process.kill()
    process.communicate()
    assert with_text(fleet.table()) != with_text(before)
    cli.at(fleet)("undo", "last", *FAST)
    assert with_text(fleet.table()) == with_text(before)
    assert set(cli.summary()["counts"])
    assert cli.summary()["exit_code"] == 0


def test_a_part_is_undone(cli: Cli, fleet: Server) -> None:
    manifest, wanted = relabel(fleet)
    cli.write("m.csv", manifest)
    before = fleet.table()
    cli.at(fleet)("run", "m.csv", *FAST)
    run = cli.run_dir().name
    cli.at(fleet)("undo", run, *FAST, "--where", "platform=Linux", "--where", "name~=new 1%")
    undone = {result["uuid"] for result in cli.results()}
    assert undone == {u for u, i in wanted.items() if i.get("platform") == "Linux" and i["name"].startswith("new 1")}
    table = fleet.table()
    assert all(table[uuid]["name"] == (before if uuid in undone else wanted)[uuid]["name"] for uuid in wanted)
    assert "did you mean 'platform'" in cli.at(fleet)("undo", run, *FAST, "--where", "platfrom=Linux", code=2).err
    nothing = f"nothing to undo: run {run} changed no image in the rows that --where selects"
    assert nothing in cli.at(fleet)("undo", run, *FAST, "--where", "name=nobody").err


def test_a_server_without_queries_is_sent_nothing_unless_that_is_asked_for(cli: Cli, dialect: str) -> None:
    with sandbox_process("--images", "40", "--dialect", dialect, "--only-update") as server:
        cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},n\n" for uuid in sorted(server.images())[:3]))
        assert "no api mapping" in cli.at(server)("run", "m.csv", *FAST, code=5).err
        assert server.puts() == []
        cli.at(server)("run", "m.csv", *FAST, "--no-survey", "--job-timeout", "1s", code=None)
        assert not (cli.run_dir() / "undo.csv").exists()
        assert len({put["path"] for put in server.puts()}) == 3
        assert (
            "so the old values are not known; it cannot be undone" in cli.at(server)("undo", "last", *FAST, code=7).err
        )
        sent = len(server.puts())
        cli.write("if.csv", f"uuid,name,if_name\n{sorted(server.images())[5]},n,x\n")
        cli.at(server)("run", "if.csv", *FAST, code=5)
        assert len(server.puts()) == sent


def test_who_did_what_when_and_why_is_kept(cli: Cli, fleet: Server) -> None:
    manifest, _ = relabel(fleet, 4)
    cli.write("m.csv", manifest)
    before = fleet.table()
    cli.at(fleet)("run", "m.csv", *FAST, "--note", "TICKET-7 «späť»", LOGNAME="ada")
    summary = cli.summary()
    assert (summary["note"], summary["by"]["user"], summary["target"]) == (
        "TICKET-7 «späť»",
        "ada",
        f"{fleet.url}/zstack",
    )
    assert summary["by"]["host"]
    assert len(summary["manifest"]["sha256"]) == len(summary["plan"]["sha256"]) == 64
    db = sqlite3.connect(cli.run_dir() / "run.db")
    assert json.loads(db.execute("SELECT value FROM meta WHERE key = 'note'").fetchone()[0]) == "TICKET-7 «späť»"
    for result in cli.results():
        image = before[result["uuid"]]
        assert result["before"] == {name: image.get(name) for name in result["changed"]}
        assert result["after"].keys() == result["before"].keys()


def test_the_plan_is_there_to_be_looked_at(cli: Cli, fleet: Server) -> None:
    """plan.csv has a line for each change and is safe in a spreadsheet."""
    a, b, *_ = sorted(fleet.images())
    name = fleet.images()[b]["name"]
    cli.write("m.csv", f"uuid,name,platform\n{a},=cmd(),Linux\n{b},{name},\n{'f' * 32},x,\n")
    done = cli.at(fleet)("plan", "m.csv", "--rate", "unlimited", code=1)
    with (cli.run_dir() / "plan.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file, strict=True))
    assert next((line["plan"], line["field"], line["after"]) for line in lines) == ("update", "name", "'=cmd()")
    assert [line["plan"] for line in lines][-2:] == ["unchanged", "missing"]
    assert f"name: {fleet.images()[a]['name']!r} → '=cmd()'" in done.out
    assert "\x1b" not in done.out
    assert (cli.run_dir() / "plan.csv").stat().st_mode & 0o777 == 0o600


def test_a_thousand_rows_are_five_questions_and_one_more_look_before_they_are_sent(cli: Cli) -> None:
    with sandbox_process("--images", "1000") as server:
        images = sorted(server.images())
        random.Random(1).shuffle(images)
        cli.write("m.csv", "uuid,name\n" + "".join(f"{uuid},n{n}\n" for n, uuid in enumerate(images)))
        cli.at(server)("plan", "m.csv", "--rate", "unlimited")
        assert len(server.requests()) == 5
        assert {request["query"].count(",") for request in server.requests()} == {
            200
        }  # 199, and one between two fields
        cli.at(server)("apply", "last", *FAST)
        questions = [request for request in server.requests() if request["path"].endswith("/images")]
        assert len(questions) <= 5 + 12
        assert cli.summary()["counts"]["updated"] == 1000
