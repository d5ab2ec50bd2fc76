"""Tags: UpdateImage accepts and ignores them, so they are read, and created where they are missing."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Cli, Server, sandbox_process

FAST = ("--rate", "unlimited", "--yes")


@pytest.fixture
def fleet(dialect: str) -> Iterator[Server]:
    with sandbox_process("--images", "12", "--dialect", dialect) as found:
        yield found


def tags(server: Server, uuid: str) -> list[str]:
    return list(server.images()[uuid]["_tags"])


def test_tags_are_added_and_none_is_lost(cli: Cli, fleet: Server) -> None:
    a, b, c, *_ = sorted(fleet.images())
    fleet.tag(a, "old", "b")
    cli.write("m.csv", f"uuid,name,userTags\n{a},new,b;c;c\n{b},,x\n{c},only the name,\n")
    cli.at(fleet)("run", "m.csv", *FAST)
    assert (tags(fleet, a), tags(fleet, b), tags(fleet, c)) == (["b", "c", "old"], ["x"], [])
    results = {result["uuid"]: result for result in cli.results()}
    assert (results[a]["changed"], results[a]["message"]) == (["name", "userTags"], "")
    assert results[a]["before"]["userTags"] == ["b", "old"]
    assert results[a]["after"]["userTags"] == ["b", "c", "old"]
    body = json.loads(next(put["body"] for put in reversed(fleet.puts()) if a in put["path"]))
    assert set(body["userTags"]) == {"b", "c", "old"}, "as documented, and harmless to a server that keeps what it gets"
    sent = len(fleet.requests())
    cli.at(fleet)("run", "m.csv", *FAST)
    assert cli.summary()["counts"]["unchanged"] == 3
    assert not [r for r in fleet.requests()[sent:] if r["method"] != "GET"], "a second run changes nothing"


def test_replacing_removes_what_is_not_listed_and_an_undo_brings_it_back(cli: Cli, fleet: Server) -> None:
    a, b, *_ = sorted(fleet.images())
    fleet.tag(a, "old", "b")
    fleet.tag(b, "last")
    before = fleet.table()
    cli.write("m.csv", f"uuid,userTags\n{a},b;c\n{b},<empty>\n")
    assert "--tags-mode replace" in cli.at(fleet)("check", "m.csv", code=3).out
    cli.at(fleet)("run", "m.csv", *FAST, "--tags-mode", "replace")
    assert (tags(fleet, a), tags(fleet, b)) == (["b", "c"], [])
    cli.at(fleet)("verify", "last")
    cli.at(fleet)("undo", "last", *FAST)
    assert fleet.table() == before


def test_an_undo_takes_away_what_was_added_and_never_somebody_elses(cli: Cli, fleet: Server) -> None:
    a, b, *_ = sorted(fleet.images())
    fleet.tag(a, "old")
    before = fleet.table()
    cli.write("m.csv", f"uuid,userTags\n{a},new\n{b},new\n")
    cli.at(fleet)("run", "m.csv", *FAST)
    fleet.tag(b, "theirs")
    cli.at(fleet)("undo", "last", *FAST, code=1)
    assert [result["status"] for result in cli.results()] == ["updated", "conflict"]
    assert fleet.table()[a] == before[a]
    assert tags(fleet, b) == ["new", "theirs"]


def test_tags_that_somebody_made_between_plan_and_apply_are_theirs(cli: Cli, fleet: Server) -> None:
    """Added tags do not conflict with others, but an undo removes only what the run added."""
    a, *_ = sorted(fleet.images())
    fleet.tag(a, "old")
    cli.write("m.csv", f"uuid,userTags\n{a},mine\n")
    cli.at(fleet)("plan", "m.csv", "--rate", "unlimited")
    fleet.tag(a, "theirs")
    cli.at(fleet)("apply", "last", *FAST)
    assert tags(fleet, a) == ["mine", "old", "theirs"]
    cli.at(fleet)("undo", "last", *FAST, code=1)
    assert cli.results()[0]["status"] == "conflict"
    assert tags(fleet, a) == ["mine", "old", "theirs"]


def test_a_plan_means_what_it_meant_whatever_is_set_later(cli: Cli, fleet: Server) -> None:
    """Neither a variable nor a profile makes an apply remove the tags that its plan keeps."""
    a, *_ = sorted(fleet.images())
    fleet.tag(a, "keep")
    cli.write("m.csv", f"uuid,userTags,if_name\n{a},new,{fleet.images()[a]['name']}\n")
    cli.at(fleet)("plan", "m.csv", "--rate", "unlimited")
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    cli.write("config/bulkimg/config.toml", '[profile.p]\ntags_mode = "replace"\nsurvey = false\n')
    later: dict[str, Any] = {"BULKIMG_TAGS_MODE": "replace", "BULKIMG_SURVEY": "false", "BULKIMG_PROFILE": "p"}
    cli.at(fleet)("apply", "last", *FAST, **later)
    assert tags(fleet, a) == ["keep", "new"]
    fleet.tag(a, "theirs")
    cli.at(fleet)("undo", "last", *FAST, code=1, **later)
    assert tags(fleet, a) == ["keep", "new", "theirs"]


@pytest.mark.parametrize("how", ["body", "api"])
def test_one_way_or_the_other(cli: Cli, fleet: Server, dialect: str, how: str) -> None:
    """The documented server keeps the tags of the body; a real one ignores them."""
    ignored = how == "body" and dialect == "zstack"
    a, b, *_ = sorted(fleet.images())
    cli.write("m.csv", f"uuid,name,userTags\n{a},new,t\n{b},,u\n")
    cli.at(fleet)("run", "m.csv", *FAST, "--tags", how, code=1 if ignored else 0)
    posts = [request for request in fleet.requests() if request["method"] == "POST"]
    if how == "body":
        assert [result["status"] for result in cli.results()] == ["drifted" if ignored else "updated"] * 2
        assert ("--tags auto" in cli.results()[0]["hint"]) is ignored
        assert posts == []
    else:
        assert [result["status"] for result in cli.results()] == ["updated", "updated"]
        assert all("userTags" not in put["body"] for put in fleet.puts())
        assert not [put for put in fleet.puts() if b in put["path"]], "nothing else was to be changed"
        assert (tags(fleet, a), tags(fleet, b)) == (["t"], ["u"])


def test_the_boot_mode_comes_back_with_the_architecture(cli: Cli, fleet: Server) -> None:
    """Sending an architecture rewrites a system tag. Sending the old architecture again does not restore the tag."""
    images = fleet.images()
    intel = [uuid for uuid in sorted(images) if images[uuid].get("architecture") == "x86_64"]
    fleet.tag(intel[0], "bootMode::Legacy", kind="system")
    fleet.edit(intel[2], system=True)
    before = fleet.table()
    cli.write("m.csv", "uuid,architecture\n" + "".join(f"{uuid},aarch64\n" for uuid in intel[:3]))
    cli.at(fleet)("run", "m.csv", *FAST, "--allow-field", "architecture")
    assert {tuple(tags(fleet, uuid)) for uuid in intel[:3]} == {("bootMode::UEFI",)}
    assert cli.results()[0]["after"]["systemTags"] == ["bootMode::UEFI"]
    run = cli.run_dir()
    cli.at(fleet)("undo", "last", *FAST)
    assert fleet.table() == before
    cli.at(fleet)("undo", "last", *FAST)
    cli.at(fleet)("run", str(run / "undo.csv"), *FAST, "--tags-mode", "replace", "--allow-field", "architecture")
    assert fleet.table() == before, "undo.csv is equal to it"


def test_tags_survive_troubles_and_are_made_once(cli: Cli, dialect: str) -> None:
    faults = "any/reset-after=4%,any/502=4%,any/reset-before=4%,poll/502=3%"
    with sandbox_process("--images", "30", "--dialect", dialect, "--faults", faults, "--seed", "3") as server:
        rows = sorted(server.images())
        cli.write("m.csv", "uuid,name,userTags\n" + "".join(f"{uuid},n{n},t{n};all\n" for n, uuid in enumerate(rows)))
        cli.at(server)("run", "m.csv", *FAST, "--retries", "12", "--max-errors", "none")
        assert {uuid: image["_tags"] for uuid, image in server.images().items()} == {
            uuid: sorted(("all", f"t{n}")) for n, uuid in enumerate(rows)
        }


def test_a_killed_run_goes_on_with_its_tags(cli: Cli, fleet: Server) -> None:
    rows = sorted(fleet.images())
    cli.write("m.csv", "uuid,userTags\n" + "".join(f"{uuid},a;b;c\n" for uuid in rows))
    process = cli.at(fleet).start("run", "m.csv", "--yes", "--rate", "40/s", "--concurrency", "3", "--progress", "none")
    fleet.wait_for_put(4)
    process.kill()
    process.communicate()
    cli.at(fleet)("resume", "last", *FAST)
    assert cli.summary()["counts"]["updated"] == len(rows)
    assert {tuple(tags(fleet, uuid)) for uuid in rows} == {("a", "b", "c")}
