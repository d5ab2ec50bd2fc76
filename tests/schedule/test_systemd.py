"""The units: checked by systemd's own programs, and installed into a directory that looks like a machine."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bulkimg import __version__
from bulkimg.errors import RunRefused, UsageError
from bulkimg.schedule.install import Places, install, listed, of_job, remove
from bulkimg.schedule.systemd import word
from tests.conftest import Cli
from tests.schedule.conftest import Job

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is absent")
MOST_EXPOSED = 3.0


def files_of(job: Job, **how: str) -> dict[str, str]:
    return {file["name"]: file["text"] for file in job.schedule("--json", **how).json()["files"]}  # type: ignore[arg-type]


def called(*words: str) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env, timeout=60)


@needs_systemd
def test_systemd_finds_nothing_wrong_and_little_exposed(job: Job, tmp_path: Path) -> None:
    for name, text in files_of(job).items():
        (tmp_path / name).write_text(text)
    done = called("systemd-analyze", "verify", "--man=no", *(str(path) for path in tmp_path.glob("bulkimg-*")))
    assert (done.returncode, done.stderr.strip()) == (0, "")
    rated = called("systemd-analyze", "security", "--offline=true", str(tmp_path / "bulkimg-nightly.service"))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
    assert found, rated.stdout + rated.stderr
    assert float(found[1]) <= MOST_EXPOSED


def test_the_unit_has_what_a_night_needs(job: Job) -> None:
    files = files_of(job, when="Mon..Fri 02:30")
    service, timer = files["bulkimg-nightly.service"], files["bulkimg-nightly.timer"]
    place = job.cli.place
    for line in (
        "Type=oneshot",
        "TimeoutStartSec=infinity",
        "TimeoutStopSec=2min",
        "ProtectSystem=strict",
        "StateDirectory=bulkimg/nightly",
        f"LoadCredential=bulkimg.password:{place}/password",
        f"WorkingDirectory={place}",
    ):
        assert line in service.splitlines()
    command = re.search("^ExecStart=(.*)$", service, re.MULTILINE)
    assert command
    assert command[1].startswith("/")
    assert command[1].endswith(f"run {place}/job.toml --yes --runs-dir /var/lib/bulkimg/nightly/runs")
    assert "BULKIMG_" not in service
    assert "HOME=" not in service.replace("XDG_CONFIG_HOME=", "")
    assert {"Persistent=true", "OnCalendar=Mon..Fri 02:30"} <= set(timer.splitlines())


def test_without_systemd_analyze_only_what_bulkimg_reads_itself_is_taken(job: Job, tmp_path: Path) -> None:
    nothing = str(tmp_path / "empty")
    done = job.schedule("--json", PATH=nothing)
    assert "not installed here: the units are not checked" in done.err
    assert len(done.json()["next_times"]) == 3
    assert "systemd-analyze is not installed here" in job.schedule(when="*-*~01 02:30", code=2, PATH=nothing).err
    assert "never comes" in job.schedule(when="*-02-30", code=2, PATH=nothing).err
    if shutil.which("systemd-analyze"):
        assert job.schedule(when="*-*~01 02:30").code == 0, "the last day of each month"


def test_what_the_job_writes_elsewhere_is_left_open(job: Job) -> None:
    for name in ("kept", "results"):
        (job.cli.place / name).mkdir(mode=0o700)
    job.write('[run]\nruns_dir = "kept"\n[results]\npath = "results/r.csv"\n')
    service = files_of(job)["bulkimg-nightly.service"]
    assert f"ReadWritePaths={job.cli.place}/kept" in service
    assert f"ReadWritePaths={job.cli.place}/results" in service
    assert "StateDirectory" not in service
    (job.cli.place / "kept").rmdir()
    assert "sudo install -d" in job.schedule(code=2).err


@needs_systemd
def test_odd_paths_stay_what_they_are(tmp_path: Path) -> None:
    place = tmp_path / 'a b %h "$x"'
    place.mkdir()
    job = Job(Cli(place))
    job.write()
    service = files_of(job)["bulkimg-nightly.service"]  # verified by systemd-analyze on the way
    quoted = str(place).replace("%", "%%")
    assert f"WorkingDirectory={quoted}" in service
    assert word(f"{place}/job.toml") in service
    assert word('/a b/%h "$x"') == '"/a b/%%h \\"$$x\\""'
    assert word("/srv/images/a-b_1.toml") == "/srv/images/a-b_1.toml"


def test_a_line_break_in_a_path_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "a\nExecStartPre=rm"
    place.mkdir()
    job = Job(Cli(place))
    job.write()
    for kind in ("systemd", "cron", "k8s"):
        assert "line break" in job.schedule(kind=kind, code=2).err


@pytest.fixture
def machine(tmp_path: Path) -> Places:
    """A directory that looks like the root of a machine."""
    root = tmp_path / "root"
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/cron.d").mkdir()
    return Places(root)


@needs_systemd
def test_units_are_installed_listed_and_removed(job: Job, machine: Places) -> None:
    if shutil.which("systemctl") is None:
        pytest.skip("systemctl is absent")
    files = files_of(job)
    written = install(files, job.file, machine)
    assert sorted(path.name for path in written) == sorted(files)
    wanted = machine.units / "timers.target.wants" / "bulkimg-nightly.timer"
    assert wanted.is_symlink(), "systemctl has enabled the timer"
    install(files_of(job, when="03:30"), job.file, machine)
    found = listed([machine.units, machine.cron], __version__)
    assert {one.mark.when for one in found} == {"03:30"}
    removed = remove(of_job(found, str(job.file)), machine)
    assert len(removed) == 2
    assert not wanted.is_symlink()
    assert [path for path in machine.units.rglob("*") if not path.is_dir()] == []


@needs_systemd
def test_a_unit_that_systemd_refuses_is_not_installed(job: Job, machine: Places) -> None:
    files = files_of(job)
    broken = {name: text.replace("ExecStart=/", "ExecStart=") for name, text in files.items()}
    with pytest.raises(UsageError, match="verify refuses"):
        install(broken, job.file, machine)
    assert list(machine.units.iterdir()) == []


@needs_systemd
def test_what_cannot_be_enabled_is_taken_back(job: Job, machine: Places) -> None:
    if shutil.which("systemctl") is None:
        pytest.skip("systemctl is absent")
    (machine.units / "timers.target.wants").write_text("in the way")
    with pytest.raises(RunRefused, match="systemctl enable"):
        install(files_of(job), job.file, machine)
    assert [path.name for path in machine.units.iterdir()] == ["timers.target.wants"]
