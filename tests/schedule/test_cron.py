"""The line for cron: its text, and that Debian's cron, really started, runs it as it is."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cli, sandbox_process
from tests.schedule.conftest import Job
from tests.schedule.cron import letters, running_cron, wait_until, why_not


def line_of(job: Job, *words: str, when: str = "30 2 * * *") -> str:
    text: str = job.schedule("--json", *words, kind="cron", when=when).json()["files"][0]["text"]
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == 1
    return lines[0]


def test_the_line_needs_nothing_of_the_shell(job: Job) -> None:
    place = job.cli.place
    line = line_of(job)
    assert line.startswith(
        f"30 2 * * * cd {place} && BULKIMG_ACCOUNT_FILE={place}/account BULKIMG_PASSWORD_FILE={place}/password /"
    )
    assert line.endswith(f"/bulkimg run {place}/job.toml --yes -q --runs-dir {place}/runs")
    assert "Times are in the zone of this machine, " in job.schedule(kind="cron").out


def test_a_user_makes_it_a_line_of_cron_d(job: Job) -> None:
    assert line_of(job, "--user", "root").startswith("30 2 * * * root cd ")
    assert "/etc/cron.d" in job.schedule("--user", "root", kind="cron").err


def test_percent_signs_are_escaped_and_backslashes_refused(tmp_path: Path) -> None:
    place = tmp_path / "100%"
    place.mkdir()
    job = Job(Cli(place))
    job.write()
    assert r"/100\%/job.toml" in line_of(job)
    place = tmp_path / "a\\b"
    place.mkdir()
    job = Job(Cli(place))
    job.write()
    assert "backslash" in job.schedule(kind="cron", code=2).err


def test_a_line_that_cron_would_cut_is_refused(tmp_path: Path) -> None:
    place = tmp_path.joinpath(*["long" * 30] * 3)
    place.mkdir(parents=True)
    job = Job(Cli(place))
    job.write()
    assert "cron takes 990" in job.schedule(kind="cron", code=2).err


@pytest.mark.slow
def test_cron_runs_the_line_and_has_nothing_to_mail(tmp_path: Path) -> None:
    """Up to a minute of waiting: cron looks once a minute. The folder's name holds all that a line could trip over."""
    if why := why_not():
        pytest.skip(why)
    place = tmp_path / 'it\'s 100% "$HOME" & more'
    place.mkdir()
    with sandbox_process("--images", "5") as server:
        job = Job(Cli(place))
        job.write(target=f'endpoint = "{server.url}"')
        (place / "account").write_text("admin\n")
        (place / "password").write_text("password\n")
        uuid = sorted(server.images())[0]
        job.cli.write("m.csv", f"uuid,name\n{uuid},renamed by cron\n")
        crontab = f"PYTHONPATH={ROOT}\n{line_of(job, when='* * * * *')}\n"
        with running_cron(tmp_path, crontab) as mail:
            wait_until(lambda: list(place.glob("runs/*/report.html")) or letters(mail))
            wait_until(lambda: "renamed by cron" in json.dumps(server.images()[uuid]))
            assert letters(mail) == []
        (summary,) = place.glob("runs/*/summary.json")
        assert json.loads(summary.read_text())["exit_code"] == 0
