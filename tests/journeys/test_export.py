"""Export, edit, run: every value comes back as it was, also the texts that commonly cause errors."""

import csv
import json
from typing import Any

import pytest

from tests.conftest import Cli, Server, corpus, sandbox_process

FAST = ("--rate", "unlimited", "--yes")


def naughty() -> list[str]:
    """Return the corpus's texts that a server can store, as it stores them."""
    found = json.loads(corpus("blns/blns.json").read_text("utf-8"))
    blank = "".join(map(chr, range(0x21)))
    texts = [str(text).strip(blank)[:100] for text in found]
    return [
        text
        for text in texts
        if text.strip("\u200b\ufeff")
        and not text.replace("\u200b", "").isspace()  # blank: it leaves the name
        and "\0" not in text
        and not any("\ud800" <= c <= "\udfff" for c in text)
    ]


def table_of(cli: Cli, name: str, form: str) -> list[dict[str, Any]]:
    path = cli.place / name
    if form == "jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, strict=True, delimiter="\t" if form == "tsv" else ","))


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_what_is_exported_and_run_unedited_changes_nothing(cli: Cli, server: Server, form: str) -> None:
    cli.at(server)("export", "-o", f"all.{form}", "--with-expectations", "--rate", "unlimited")
    rows = table_of(cli, f"all.{form}", form)
    assert [row["uuid"] for row in rows] == sorted(server.images())
    assert "if_name" in rows[0]
    cli("check", f"all.{form}")
    before = len(server.puts())
    cli.at(server)("run", f"all.{form}", *FAST)
    assert cli.summary()["counts"]["unchanged"] == 300
    assert len(server.puts()) == before


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_naughty_strings_come_back_exactly(cli: Cli, form: str) -> None:
    texts = naughty()
    assert len(texts) > 400
    with sandbox_process("--images", str(len(texts)), "--dialect", "documented") as server:
        rows = sorted(server.images())
        cli.write(
            "m.jsonl",
            "".join(
                json.dumps({"uuid": u, "name": t, "description": f"{t}\n{t}"}) + "\n"
                for u, t in zip(rows, texts, strict=True)
            ),
        )
        cli.at(server)("run", "m.jsonl", *FAST)
        images = server.images()
        assert [images[uuid]["name"] for uuid in rows] == texts, "the sandbox holds what was sent"
        cli.at(server)(
            "export", "-o", f"all.{form}", "--fields", "name,description", "--with-expectations", "--rate", "unlimited"
        )
        exported = table_of(cli, f"all.{form}", form)
        assert [row["name"] for row in exported] == texts
        assert [row["if_description"] for row in exported] == [images[uuid]["description"] for uuid in rows]
        sent = len(server.puts())
        cli.at(server)("run", f"all.{form}", *FAST)
        assert cli.summary()["counts"]["unchanged"] == len(texts)
        assert len(server.puts()) == sent


def test_an_edited_export_changes_what_was_edited_unless_somebody_else_did(cli: Cli) -> None:
    with sandbox_process("--images", "20") as server:
        cli.at(server)(
            "export", "-o", "all.csv", "--fields", "name,platform", "--with-expectations", "--rate", "unlimited"
        )
        rows = table_of(cli, "all.csv", "csv")
        for row in rows[:6]:
            row["name"] = f"edited {row['name']}"
        with (cli.place / "all.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        server.edit(rows[0]["uuid"], name="theirs")
        server.edit(rows[9]["uuid"], name="theirs")
        cli.at(server)("run", "all.csv", *FAST, code=1)
        assert cli.summary()["counts"] | {"updated": 5, "conflict": 2, "unchanged": 13} == cli.summary()["counts"]
        assert server.images()[rows[0]["uuid"]]["name"] == "theirs"


def test_conditions_are_the_servers_own_and_ones_it_would_misread_are_refused(cli: Cli, server: Server) -> None:
    images = server.images()
    for condition, holds in (
        ("platform=Windows", lambda i: i.get("platform") == "Windows"),
        ("platform!=Windows", lambda i: i.get("platform") not in (None, "Windows")),
        ("name~=%ubuntu%", lambda i: "ubuntu" in i["name"]),
        ("platform?=Windows,Other", lambda i: i.get("platform") in ("Windows", "Other")),
        ("size>20000000000", lambda i: i["size"] > 20000000000),
        ("description is null", lambda i: "description" not in i),
    ):
        done = cli.at(server)(
            "export", "--where", condition, "--fields", "name", "--format", "jsonl", "--rate", "unlimited"
        )
        found = [json.loads(line)["uuid"] for line in done.out.splitlines()]
        assert found == sorted(uuid for uuid, image in images.items() if holds(image)), condition
    before = len(server.requests())
    for condition, words in (
        ("platfrom=Linux", "did you mean 'platform'"),
        ("name=a!=b", "the server splits conditions at '!='"),
        ("name=a>=b", "the server splits conditions at '>='"),
        ("platform", "is not a condition"),
        ("userTags=x", "is not a field to ask for"),
    ):
        assert words in cli.at(server)("export", "--where", condition, code=2).err
    assert len(server.requests()) == before


def test_what_no_manifest_could_say_is_said(cli: Cli) -> None:
    """A value that UpdateImage refuses, and a text that would empty a field."""
    with sandbox_process("--images", "5", "--dialect", "documented") as server:
        a, b, *_ = sorted(server.images())
        server.edit(a, name="<empty>")
        account: dict[str, Any] = {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "password"}
        done = cli("export", "-o", "x.csv", code=2, BULKIMG_ENDPOINT=server.url, **account)
        assert "--empty-token" in done.err
        assert server.requests()[-1]["method"] == "DELETE", "who has logged in is out again, also when it went wrong"
        assert not (cli.place / "x.csv").exists(), "a file is whole or not there"
        cli.at(server)("export", "-o", "x.csv", "--empty-token", "<none>")
        cli.at(server)("run", "x.csv", *FAST, "--empty-token", "<none>")
        assert cli.summary()["counts"]["unchanged"] == 5
        server.tag(b, "a;b", " c")
        cli.at(server)("export", "-o", "t.csv", "--fields", "userTags", "--with-expectations")
        cli.at(server)("run", "t.csv", *FAST)
        assert cli.summary()["counts"]["unchanged"] == 5
