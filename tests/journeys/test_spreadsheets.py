"""A list in a workbook: checked, planned, sent, retried and taken back like one in a CSV."""

import csv
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter  # type: ignore[import-untyped]

import bulkimg
from bulkimg.engine.reopen import edited_manifest
from bulkimg.ledger import RunDirectory
from tests.conftest import Cli, Server, sandbox_process

FAST = ("--rate", "unlimited", "--yes")


def workbook(path: Path, server: Server, count: int = 20, *, hidden: int = 0) -> list[str]:
    """Write names for the first images. The last rows are hidden. Returns the uuids."""
    uuids = sorted(server.images())[:count]
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("Images")
        book.add_worksheet("Notes")
        sheet.write_row(0, 0, ["uuid", "name", "platform", "_note"])
        for number, uuid in enumerate(uuids, 1):
            sheet.write_row(number, 0, [uuid, f"sheet-{number}", "", "a note"])
            if number > count - hidden:
                sheet.set_row(number, None, None, {"hidden": True})
    return uuids


def test_a_workbook_is_run_and_undone(cli: Cli) -> None:
    """Its hash is that of the file, so that an edited one is noticed."""
    with sandbox_process("--images", "30") as server:
        before = server.table()
        uuids = workbook(cli.place / "m.xlsx", server, hidden=2)
        here = cli.at(server)
        assert "Images!20:20" in here("run", "m.xlsx", "--sheet", "Images", *FAST, code=3).err
        assert server.puts() == [], "nothing is sent in doubt"
        plan = here("plan", "m.xlsx", "--sheet", "Images", "--hidden-rows", "skip", "--rate", "unlimited")
        assert "2 hidden rows skipped (first in row 20)" in plan.err
        here("run", "m.xlsx", "--sheet", "Images", "--hidden-rows", "skip", "--run-id", "sheet", *FAST)
        results = cli.results()
        assert [row["uuid"] for row in results] == uuids[:18]
        assert [row["line"] for row in results] == list(range(2, 20))
        assert {row["status"] for row in results} == {"updated"}
        assert cli.summary()["rows_left_out"] == 2
        images = server.images()
        assert [images[uuid]["name"] for uuid in uuids[:18]] == [f"sheet-{number}" for number in range(1, 19)]
        here("run", "m.xlsx", "--sheet", "Images", "--hidden-rows", "include", "--max-rows", "19", *FAST)
        assert cli.summary()["counts"] | {"updated": 1, "unchanged": 18} == cli.summary()["counts"]
        here("undo", "last", *FAST)
        here("undo", "sheet", *FAST)
        assert server.table() == before


def test_what_failed_is_a_manifest_again(cli: Cli) -> None:
    """failed.csv has the columns of the sheet, retry needs no workbook, and an edited workbook is noticed."""
    with sandbox_process("--images", "10") as server:
        uuids = workbook(cli.place / "m.xlsx", server, 5)
        gone = "9" * 32
        with xlsxwriter.Workbook(cli.place / "gone.xlsx") as book:
            sheet = book.add_worksheet()
            sheet.write_row(2, 0, ["uuid", "name", "_note"])
            sheet.write_row(4, 0, [gone, "x", "the owner's note"])
            sheet.write_row(5, 0, [uuids[0], "y"])
        here = cli.at(server)
        here("run", "gone.xlsx", *FAST, code=1)
        with (cli.run_dir() / "failed.csv").open(newline="", encoding="utf-8-sig") as file:
            failed = list(csv.DictReader(file))
        assert [(row["uuid"], row["name"], row["_note"], row["_status"]) for row in failed] == [
            (gone, "x", "the owner's note", "failed")
        ]
        cli("check", str(cli.run_dir() / "failed.csv"))
        run = RunDirectory(cli.run_dir())
        assert edited_manifest(run) == ""
        (cli.place / "gone.xlsx").unlink()
        here("retry", "last", *FAST, code=1)
        workbook(cli.place / "gone.xlsx", server, 5)
        assert edited_manifest(run).endswith("gone.xlsx")


def test_a_plan_of_a_workbook_is_applied_without_it(cli: Cli) -> None:
    with sandbox_process("--images", "10") as server:
        uuids = workbook(cli.place / "m.xlsx", server, 5)
        cli.write("job.toml", '[job]\nmanifest = "m.xlsx"\nsheet = "Images"\n')
        here = cli.at(server)
        here("plan", "job.toml", "--run-id", "planned", "--rate", "unlimited")
        (cli.place / "m.xlsx").unlink()
        here("apply", "planned", *FAST)
        assert [server.images()[uuid]["name"] for uuid in uuids] == [f"sheet-{number}" for number in range(1, 6)]


def test_a_program_reads_a_workbook_too(cli: Cli) -> None:
    with sandbox_process("--images", "10") as server:
        workbook(cli.place / "m.xlsx", server, 5, hidden=1)
        options: dict[str, Any] = {"endpoint": server.url, "runs_dir": cli.place / "runs", "sheet": "Images"}
        credentials = bulkimg.Session(server.session)
        with pytest.raises(bulkimg.ManifestRefused, match="Images!6:6"):
            bulkimg.run(cli.place / "m.xlsx", credentials=credentials, **options)
        assert (
            bulkimg.run(cli.place / "m.xlsx", credentials=credentials, hidden_rows="include", **options).counts[
                "updated"
            ]
            == 5
        )
