"""Plugins in whole runs: where they are named, what the ledger keeps, what resume, retry and undo do with them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bulkimg
from bulkimg.engine.create import create_run
from bulkimg.ledger import Ledger
from bulkimg.settings import Settings
from tests.conftest import ROOT, Cli, Server
from tests.plugins.conftest import Site

ROW = "@hookimpl\ndef bulkimg_row(row):\n    seen.append(row)\n    return row.with_fields(name=row.fields['name'].upper())\n"
EVENT = "@hookimpl\ndef bulkimg_event(event): events.append(event)\n"
BOTH = f"seen, events = [], []\n{ROW}{EVENT}"


class Runs:
    """Runs of the library in a folder."""

    def __init__(self, server: Server, place: Path) -> None:
        self.server, self.place = server, place
        self.given: dict[str, Any] = {"credentials": bulkimg.Session(server.session), "runs_dir": place / "runs"}

    def changes(self, text: str) -> list[dict[str, Any]]:
        return [{"uuid": uuid, "name": f"{self.place.name} {text}"} for uuid in sorted(self.server.images())[:2]]

    def meta(self, run_id: str, key: str) -> Any:
        ledger = Ledger.open(self.place / "runs" / run_id / "run.db", read_only=True)
        try:
            return ledger.meta(key)
        finally:
            ledger.close()


@pytest.fixture
def runs(server: Server, tmp_path: Path) -> Runs:
    return Runs(server, tmp_path)


def record(name: str, version: str, *hooks: str) -> dict[str, Any]:
    return {"name": name, "package": f"bulkimg-{name}", "version": version, "hooks": list(hooks)}


def test_changed_values_are_planned_sent_and_undone_and_the_ledger_names_the_plugin(site: Site, runs: Runs) -> None:
    name = site.install("both", BOTH, version="1.5")
    used = [record("both", "1.5", "bulkimg_row", "bulkimg_event")]
    before = runs.server.table()
    result = bulkimg.run(runs.changes("x"), endpoint=runs.server.url, plugins="both", **runs.given)
    assert result.counts["updated"] == 2
    changed = [runs.server.images()[change["uuid"]]["name"] for change in runs.changes("x")]
    assert changed == [f"{runs.place.name} x".upper()] * 2
    module = site.module(name)
    assert [row.line for row in module.seen] == [1, 2]
    assert runs.meta(result.run_id, "plugins") == used
    undone = bulkimg.undo(result.run_id, **runs.given)
    assert undone.counts["updated"] == 2
    assert runs.server.table() == before
    assert [row.line for row in module.seen] == [1, 2]  # an undo has rows of its own, which pass no hook
    assert sum(isinstance(event, bulkimg.Summary) for event in module.events) == 2  # and it is observed
    assert runs.meta(undone.run_id, "plugins") == used


def test_a_retry_passes_no_row_again_and_says_who_checked_them(site: Site, runs: Runs) -> None:
    name = site.install("rows", f"seen = []\n{ROW}")
    changes = [{"uuid": "f" * 32, "name": "x"}]
    result = bulkimg.run(changes, endpoint=runs.server.url, plugins=["rows"], **runs.given)
    assert result.counts["failed"] == 1
    site.describe("bulkimg-rows", "1.0", "other = nothing\n")  # it is not installed any more
    again = bulkimg.retry(bulkimg.retry(result.run_id, **runs.given).run_id, **runs.given)
    assert len(site.module(name).seen) == 1
    assert runs.meta(again.run_id, "plugins") == [record("rows", "1.0", "bulkimg_row")]
    (row,) = again.rows()
    assert row.status == "failed"


def test_a_resumed_run_needs_its_observers_but_not_what_checked_its_rows(site: Site, runs: Runs) -> None:
    site.install("rows", f"seen = []\n{ROW}")
    name = site.install("observer", f"events = []\n{EVENT}")
    both = ["rows", "observer"]
    plan = bulkimg.plan(runs.changes("y"), endpoint=runs.server.url, plugins=both, **runs.given)
    for package in both:
        site.describe(f"bulkimg-{package}", "1.0", "other = nothing\n")
    with pytest.raises(bulkimg.UsageError) as caught:
        bulkimg.apply(plan.run_id, **runs.given)
    assert "plugin 'observer' is not installed" in str(caught.value)
    assert str(caught.value).endswith("; to continue without plugins, add --plugin none")
    site.describe("bulkimg-observer", "2.0", f"observer = {name}\n")
    result = bulkimg.apply(plan.run_id, **runs.given)
    assert result.counts["updated"] == 2
    assert isinstance(site.module(name).events[-1], bulkimg.Summary)
    assert runs.meta(plan.run_id, "plugins") == [
        record("rows", "1.0", "bulkimg_row"),
        record("observer", "1.0", "bulkimg_event"),
    ]


def test_another_version_of_an_observer_is_a_warning(site: Site, runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    name = site.install("observer", f"events = []\n{EVENT}")
    given = {**runs.given, "endpoint": runs.server.url, "plugins": ["observer"]}
    plan = bulkimg.plan(runs.changes("z"), **given)
    site.describe("bulkimg-observer", "2.0", f"observer = {name}\n")
    bulkimg.apply(plan.run_id, **runs.given)
    assert (
        "plugin observer: is bulkimg-observer 2.0 now; the run began with bulkimg-observer 1.0; the run and its exit "
        "code are not affected"
    ) in caplog.messages


def test_a_run_resumes_without_its_plugins_where_that_is_asked_for(site: Site, runs: Runs) -> None:
    name = site.install("observer", f"events = []\n{EVENT}")
    plan = bulkimg.plan(runs.changes("none"), endpoint=runs.server.url, plugins=["observer"], **runs.given)
    site.describe("bulkimg-observer", "1.0", "other = nothing\n")
    assert bulkimg.apply(plan.run_id, plugins="none", **runs.given).counts["updated"] == 2
    assert site.module(name).events == []


def test_a_failing_row_hook_stops_before_anything_is_sent_and_leaves_no_run(site: Site, runs: Runs) -> None:
    site.install("fails", "@hookimpl\ndef bulkimg_row(row):\n    if row.line == 2: raise KeyError('x')")
    before = len(runs.server.requests())
    with pytest.raises(bulkimg.UsageError, match="line 2: bulkimg_row raised KeyError: 'x'"):
        bulkimg.run(runs.changes("x"), endpoint=runs.server.url, plugins=["fails"], run_id="named", **runs.given)
    assert len(runs.server.requests()) == before
    assert list((runs.place / "runs").iterdir()) == []
    result = bulkimg.run(runs.changes("w"), endpoint=runs.server.url, run_id="named", **runs.given)
    assert result.counts["updated"] == 2


def test_a_refused_row_refuses_the_manifest_and_nothing_is_sent(site: Site, runs: Runs) -> None:
    site.install("no", "@hookimpl\ndef bulkimg_row(row):\n    if row.line == 2: return Problem('no', 'name')")
    with pytest.raises(bulkimg.ManifestRefused) as caught:
        bulkimg.run(runs.changes("x"), endpoint=runs.server.url, plugins=["no"], **runs.given)
    assert [problem.code for problem in caught.value.problems] == ["PLUGIN"]
    result = bulkimg.run(runs.changes("v"), endpoint=runs.server.url, plugins=["no"], skip_invalid=True, **runs.given)
    assert (result.counts["updated"], result.counts["invalid"]) == (1, 1)


def test_guards_hold_for_what_a_plugin_sets(site: Site, runs: Runs) -> None:
    site.install("arch", "@hookimpl\ndef bulkimg_row(row): return row.with_fields(architecture='loongarch64')")
    with pytest.raises(bulkimg.RunRefused, match="architecture"):
        bulkimg.run(runs.changes("x"), endpoint=runs.server.url, plugins=["arch"], **runs.given)


def test_rows_that_name_one_image_are_merged_after_the_plugins(site: Site, tmp_path: Path) -> None:
    site.install("names", "@hookimpl\ndef bulkimg_row(row): return row.with_fields(name=row.fields['name'].strip('.'))")
    (tmp_path / "m.csv").write_text(f"uuid,name\n{'1' * 32},x\n{'1' * 32},x.\n")
    settings = Settings.model_validate({"runs_dir": tmp_path / "runs", "plugins": "names"})
    run = create_run(str(tmp_path / "m.csv"), settings)
    assert run.ledger.meta("merged") == 1
    run.close()


def test_plugins_are_named_in_the_library_a_job_or_a_profile(site: Site, runs: Runs, tmp_path: Path) -> None:
    name = site.install("both", BOTH)
    (tmp_path / "m.csv").write_text(f"uuid,name\n{min(runs.server.images())},job {tmp_path.name}\n")
    job = tmp_path / "job.toml"
    job.write_text('[job]\nmanifest = "m.csv"\nplugins = ["both"]\n')
    bulkimg.run(job, endpoint=runs.server.url, **runs.given)
    module = site.module(name)
    assert len(module.seen) == 1
    config = tmp_path / "config" / "bulkimg"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(f'[profile.p]\nendpoint = "{runs.server.url}"\nplugins = ["both"]\n')
    bulkimg.run(tmp_path / "m.csv", profile="p", **runs.given)
    assert len(module.seen) == 2


@pytest.mark.slow
def test_the_sample_is_installed_and_runs(cli: Cli, server: Server, tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(ROOT / "samples" / "plugin", source, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ("-q", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), "."], cwd=source, check=True
    )
    here = cli.at(server)
    path = os.pathsep.join([str(ROOT), str(site)])
    one, two, three = sorted(server.images())[:3]
    bad = here.write("bad.csv", f"uuid,name\n{one},TMP build\n{two},Good\n")
    checked = here("check", bad, "--plugin", "house-names", code=3, PYTHONPATH=path)
    assert checked.out == (
        "bad.csv:2: name 'TMP build': begins with tmp-, which is kept for the build machines (plugin house-names); "
        "choose another name\n"
    )
    good = here.write("good.csv", f"uuid,name\n{one},Web  Server_01\n{two},web-2\n{three},DB 3\n")
    words = ("run", good, "--yes", "--json", "--log-format", "json", "--rate", "unlimited")
    done = here(*words, BULKIMG_PLUGINS="house-names", PYTHONPATH=path)
    assert done.json()["counts"]["updated"] == 3  # what a plugin prints is not on standard output
    assert "house-names counted 3 updated" in [json.loads(line).get("message") for line in done.err.splitlines()]
    assert [server.images()[uuid]["name"] for uuid in (one, two, three)] == ["web-server-01", "web-2", "db-3"]
    status = here("status", "--json").json()
    assert status["plugins"] == [
        {
            "name": "house-names",
            "package": "bulkimg-house-names",
            "version": "1.0",
            "hooks": ["bulkimg_row", "bulkimg_event"],
        }
    ]


def test_a_mistake_in_the_names_is_exit_2(cli: Cli) -> None:
    here = cli
    here.write("m.csv", f"uuid,name\n{'1' * 32},x\n")
    here.write("job.toml", '[job]\nmanifest = "m.csv"\n[run]\nplugins = ["x"]\n')
    assert "job.toml:4: 'plugins' is in [run] but belongs in [job]" in here("check", "job.toml", code=2).err
    here.write("job.toml", '[job]\nmanifest = "m.csv"\nplugins = ["x", "x"]\n')
    assert "job.toml:3: [job] plugins = ['x', 'x'] names 'x' twice" in here("check", "job.toml", code=2).err
    assert (
        "--plugin ['none', 'x'] names none and a plugin"
        in here("check", "m.csv", "--plugin", "none", "--plugin", "x", code=2).err
    )
    assert "plugin 'x' is not installed" in here("run", "m.csv", "-n", "--plugin", "x", code=2).err
    assert here("check", "m.csv", "--plugin", "none", BULKIMG_PLUGINS="x").code == 0
