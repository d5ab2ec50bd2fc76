"""`bulkimg schedule`: what it prints and writes, what it refuses, what --list and --remove see."""

import importlib
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bulkimg import __version__
from bulkimg.errors import UsageError
from bulkimg.manifest.database import sqlite_file
from bulkimg.notifications import Hook
from bulkimg.query import SqlSource
from bulkimg.schedule.access import READ, User, refusal
from bulkimg.schedule.checks import read_job
from bulkimg.schedule.job import Job as SchedulerJob
from bulkimg.schedule.plan import read_times
from bulkimg.settings import Settings
from tests.conftest import ROOT, Cli
from tests.schedule.conftest import Job

KINDS = pytest.mark.parametrize("kind", ["systemd", "cron", "k8s"])
NOW = datetime(2026, 11, 27, 14, 0, tzinfo=UTC)


@KINDS
def test_the_files_are_whole_and_the_next_three_times_are_shown(job: Job, kind: str) -> None:
    done = job.schedule(kind=kind, when="02:30 UTC" if kind == "k8s" else "02:30")
    assert len(re.findall(r"^next time: \w{3} \d{4}-\d\d-\d\d 02:30 ", done.err, re.MULTILINE)) == 3
    assert "job.toml" in done.out
    document = job.schedule("--json", kind=kind, when="02:30 UTC" if kind == "k8s" else "02:30").json()
    for file in document["files"]:
        assert file["text"].rstrip("\n") in done.out
    assert len(document["next_times"]) == 3
    assert document["written"] == []


@KINDS
def test_no_secret_is_written_or_shown(job: Job, kind: str) -> None:
    (job.cli.place / "out").mkdir()
    done = job.schedule("--out", "out", kind=kind)
    everything = done.out + done.err + "".join(path.read_text() for path in (job.cli.place / "out").iterdir())
    assert "-secret" not in everything


def test_what_looks_like_a_secret_is_not_repeated(job: Job) -> None:
    done = job.schedule("--credential", "access_key_secret=hunter2hunter2", code=2)
    assert "is not a path" in done.err
    assert "hunter2" not in done.err


@pytest.mark.parametrize(
    ("when", "kind", "why"),
    [
        ("2020-01-01", "systemd", "never comes|systemd-analyze is not installed"),
        ("2020-01-01", "cron", "cannot be written for cron"),
        ("0 0 31 2 *", "cron", "never comes"),
        ("0 0 31 2 *", "systemd", "never comes"),
        ("0 0 31 2 *", "k8s", "never comes"),
        ("31 2", "cron", "is not a time"),
        ("02:30:15", "k8s", "seconds"),
        ("02:30 Nowhere/Land", "k8s", "time zone database"),
        ("", "cron", "--when is missing"),
        ("@reboot", "cron", "not a time of the clock"),
    ],
)
def test_a_time_that_cannot_be_is_refused_with_a_fix(job: Job, when: str, kind: str, why: str) -> None:
    (job.cli.place / "out").mkdir()
    done = job.schedule("--out", "out", when=when, kind=kind, code=2)
    assert re.search(why, done.err)
    assert "write" in done.err or "give" in done.err
    assert list((job.cli.place / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("file", "environment", "why"),
    [
        ({"manifest": "../m.csv"}, {}, "outside the job's folder"),
        ({"manifest": "-"}, {}, "standard input"),
        ({"target": ""}, {}, "has no endpoint; add endpoint"),
        ({"target": ""}, {"BULKIMG_ENDPOINT": "http://127.0.0.1:1"}, "BULKIMG_ENDPOINT is set in this shell only"),
        ({"more": "[run]\ndry_run = true\n"}, {}, "dry_run"),
        ({"more": "[rum]\nyes = true\n"}, {}, r"job.toml:\d+: unknown table"),
        ({"more": '[run]\nrate = "fast"\n'}, {}, r"job.toml:\d+"),
        ({"more": '[[hook]]\nat = "before-run"\nrun = ["no-such-program-anywhere"]\n'}, {}, "write its whole path"),
        ({"more": '[run]\ncluster = "local:2"\n'}, {}, "closed too tightly for a cluster's workers"),
        ({"plugins": '["no-such-plugin"]'}, {}, "'no-such-plugin' is not installed .*install its package"),
    ],
)  # fmt: skip
def test_a_job_that_would_fail_at_night_is_refused(
    job: Job, file: dict[str, str], environment: dict[str, str], why: str
) -> None:
    job.write(**file)
    (job.cli.place / "out").mkdir()
    done = job.schedule("--out", "out", code=2, **environment)
    assert re.search(why, done.err), done.err
    assert list((job.cli.place / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "environment", "why"),
    [
        ((), {}, "no credentials are given.*--credential account=.*--credential password="),
        ((), {"BULKIMG_SESSION": "0" * 32}, "BULKIMG_SESSION is set in this shell only.*--credential session="),
        ((), {"BULKIMG_PASSWORD_FILE": "/etc/pw", "BULKIMG_ACCOUNT": "x"}, "--credential password=/etc/pw"),
        (("--credential", "account=./account"), {"BULKIMG_PASSWORD": "x"}, "nobody types it"),
        (("--credential", "session=./session", "--credential", "account=./account", "--credential", "password=./password"), {}, "two kinds"),
        (("--credential", "session=./missing"), {}, "missing: cannot be read: No such file"),
        (("--credential", "session=./open"), {}, "chmod 600"),
        (("--credential", "sesion=./session"), {}, "did you mean 'session'"),
        (("--credential", "session=./session", "--credential", "session=./session"), {}, "given twice"),
    ],
)  # fmt: skip
def test_credentials_that_nobody_has_at_night_are_refused(
    job: Job, words: tuple[str, ...], environment: dict[str, str], why: str
) -> None:
    job.cli.write("open", "x\n")
    (job.cli.place / "open").chmod(0o644)
    done = job.cli("schedule", "job.toml", "--when", "02:30", "--as", "cron", *words, code=2, **environment)
    assert re.search(why, done.err, re.DOTALL), done.err
    assert done.out == ""


def test_a_profile_with_a_command_is_enough(job: Job) -> None:
    job.write(target='profile = "lab"')
    config = job.cli.place / "config" / "bulkimg"
    config.mkdir(parents=True)
    (config / "config.toml").write_text(
        '[profile.lab]\nendpoint = "http://127.0.0.1:9"\naccount = "admin"\npassword_command = ["/bin/cat", "x"]\n'
    )
    done = job.cli("schedule", "job.toml", "--when", "02:30", "--as", "cron")
    assert f"XDG_CONFIG_HOME={job.cli.place}/config" in done.out
    assert (
        "is a file of this machine" in job.cli("schedule", "job.toml", "--when", "02:30 UTC", "--as", "k8s", code=2).err
    )


def test_options_of_this_shell_are_said_to_be_missing_at_night(job: Job) -> None:
    assert "BULKIMG_RATE is set in this shell only" in job.schedule(kind="cron", BULKIMG_RATE="5/s").err


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (None, "q.sql: does not exist; write the query there"),
        ("DELETE FROM image", "DELETE is not a query; write one statement that only reads"),
        ("SELECT 1; SELECT 2", "a second statement begins here"),
    ],
)
def test_a_query_that_no_database_would_take_is_refused(job: Job, query: str | None, why: str) -> None:
    place = job.cli.place
    (place / "job.toml").write_text(
        '[source]\nsql_file = "q.sql"\nurl_file = "url"\n[target]\nendpoint = "http://127.0.0.1:9"\n'
    )
    (place / "url").write_text("sqlite:///x.db\n")
    (place / "url").chmod(0o600)
    if query:
        (place / "q.sql").write_text(query)
    assert why in job.schedule(kind="cron", code=2).err
    (place / "q.sql").write_text("SELECT uuid, name FROM image -- `#` and \\' as MySQL has them\n")
    assert "next time" in job.schedule(kind="cron").err


def test_what_an_image_must_have_for_a_plugin_is_said(job: Job) -> None:
    job.write(plugins='["house-names"]')
    assert "build one with their packages, and give --image" in job.schedule(kind="k8s").err


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_a_secret_that_bulkimg_would_refuse_at_night_is_refused_now(job: Job) -> None:
    """The job reads these itself: group bits count, but for root's own files."""
    rule = '[[notify]]\nwebhook_file = "hook.url"\n'
    job.write(rule)
    assert "hook.url: cannot be read: No such file" in job.schedule(code=2).err
    job.cli.write("hook.url", "https://x/y\n")
    for mode, code in ((0o644, 2), (0o600, 0)):
        (job.cli.place / "hook.url").chmod(mode)
        assert ("readable by all users" in job.schedule(code=code).err) is (code == 2)
    os.chown(job.cli.place / "account", 54321, 54321)
    (job.cli.place / "account").chmod(0o640)
    assert "readable by its group" in job.schedule(kind="cron", code=2).err
    assert job.schedule(kind="systemd").code == 0, "systemd hands it over, whatever its group may"


def test_a_manifest_that_is_not_there_yet_and_a_session_are_said(job: Job) -> None:
    (job.cli.place / "m.csv").unlink()
    assert "does not exist yet" in job.schedule(kind="cron").err
    words = ("schedule", "job.toml", "--when", "02:30", "--as", "cron", "--credential", "session=./session")
    assert "a session ends after some hours" in job.cli(*words).err


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_what_the_jobs_user_cannot_read_is_refused(job: Job) -> None:
    words = ("schedule", "job.toml", "--when", "02:30", "--as", "systemd", "--user", "nobody", *job.account)
    (job.cli.place).chmod(0o755)
    job.file.chmod(0o600)
    why = job.cli(*words, code=2).err
    assert "job.toml: cannot be re" in why
    assert "--user" in why
    assert (
        "no such user"
        in job.cli("schedule", "job.toml", "--when", "02:30", "--as", "systemd", "--user", "n0b0dy", code=2).err
    )
    root = job.cli("schedule", "job.toml", "--when", "02:30", "--as", "systemd", *job.account, code=2).err
    assert "should not run as root" in root


def test_access_is_that_of_the_first_class_a_user_is_in() -> None:
    with tempfile.TemporaryDirectory() as name:  # not pytest's folder: only its owner may enter that
        folder = Path(name)
        folder.chmod(0o755)
        file = folder / "f"
        file.write_text("x")
        file.chmod(0o604)
        found = file.stat()
        owner = User("owner", found.st_uid, frozenset())
        member = User("member", 54321, frozenset({found.st_gid}))
        other = User("other", 54321, frozenset({54321}))
        assert refusal(other, file, READ) == ""
        assert "by member (mode 0604)" in refusal(member, file, READ), (
            "the group's bits count, although others may read"
        )
        folder.chmod(0o700)
        assert "cannot be reached by other" in refusal(other, file, READ)
        assert refusal(owner, file, READ) == ""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every user may enter: pytest's own is only for its owner."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def written(path: Path, text: str, mode: int) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


OTHER = User("other", 54321, frozenset({54321}))
WITH_A_QUERY = """[job]
name = "x"
plugins = ["house"]
[run]
runs_dir = "."
[target]
endpoint = "http://127.0.0.1:9"
ca_file = "ca.pem"
[source]
sql_file = "q.sql"
url_file = "url"
[[hook]]
at = "after-run"
run = ["./hook"]
"""


def reasons(place: Path) -> list[str]:
    """Return why the job would fail for a user who is neither the owner of its files nor in their group."""
    given = [f"{name}={place / name}" for name in ("account", "password")]
    with pytest.raises(UsageError) as caught:
        read_job(place / "job.toml", "systemd", OTHER, given, ("/bin/sh",), {})
    return str(caught.value).splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_what_the_user_of_the_job_may_not_read_or_run_is_refused_by_name(
    open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database of a query, the certificate, the programs of hooks, and the files of plugins."""
    packages = open_place / "packages"
    (packages / "house.dist-info").mkdir(parents=True)
    (packages / "house.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1\n")
    (packages / "house.dist-info" / "entry_points.txt").write_text("[bulkimg]\nhouse = house:plugin\n")
    monkeypatch.syspath_prepend(str(packages))
    importlib.invalidate_caches()
    for name, text in {"account": "x", "password": "x", "url": f"sqlite:///{open_place}/own.db\n"}.items():
        os.chown(written(open_place / name, text, 0o600), OTHER.uid, -1)
    for name, text in {"job.toml": WITH_A_QUERY, "q.sql": "SELECT uuid, name FROM image"}.items():
        written(open_place / name, text, 0o644)
    for name in ("own.db", "ca.pem", "hook", "packages/house.py"):
        written(open_place / name, "", 0o600)
    found = [line for line in reasons(open_place) if not line.startswith(f"{open_place}: ")]
    assert found == [
        f"{packages}/house.py: cannot be read by other (mode 0600); "
        "install the plugin where every user can read it, as bulkimg itself",
        f"{open_place}/ca.pem: cannot be read by other (mode 0600); allow it (chmod, chown), or choose another --user",
        f"{open_place}/own.db: cannot be read by other (mode 0600); allow it (chmod, chown), or choose another --user",
        f"{open_place}/hook: cannot be used by other (mode 0600); allow it (chmod, chown)",
    ]
    (open_place / "hook").unlink()
    (open_place / "ca.pem").unlink()
    found = [line for line in reasons(open_place) if "does not exist" in line]
    assert found == [
        f"{open_place}/ca.pem: does not exist; correct ca_file in [target]",
        f"{open_place}/hook: does not exist; correct its path",
    ]


def test_of_an_address_that_is_not_of_sqlite_only_the_beginning_is_read(tmp_path: Path) -> None:
    url = written(tmp_path / "url", "postgresql://u:secret@host/images\n", 0o600)
    source = SqlSource(sql_file=tmp_path / "q.sql", url_file=url)
    assert sqlite_file(source) is None
    url.write_text("sqlite:///own.db\n")
    assert sqlite_file(source) == tmp_path / "own.db"
    url.write_text("sqlite:////srv/own.db")
    assert sqlite_file(source) == Path("/srv/own.db")


def test_a_unit_sees_the_directories_of_its_hooks_plugins_and_database() -> None:
    hook = Hook(at="after-run", run=("/home/me/hook", "x"))
    for more in (
        {"settings": Settings.model_validate({"hook": (hook,)})},
        {"database": Path("/home/d")},
        {"plugin_paths": (Path("/home/p"),)},
    ):
        given: dict[str, Any] = {"settings": Settings()} | more
        made = SchedulerJob(Path("/etc/job.toml"), "x", user=None, credentials={}, program=("/bin/sh",), **given)
        assert made.needs("/home")
        assert not made.needs("/root")


def test_the_time_of_another_zone_is_nothing_for_cron() -> None:
    with pytest.raises(UsageError, match="zone of its machine"):
        read_times("02:30 Asia/Tokyo", "cron", lambda: NOW, "Europe/Berlin")
    assert read_times("02:30 Europe/Berlin", "cron", lambda: NOW, "Europe/Berlin").text == "30 2 * * *"
    assert read_times("02:30 UTC", "cron", lambda: NOW, "Etc/UTC").text == "30 2 * * *"
    with pytest.raises(UsageError, match="names no zone"):
        read_times("02:30", "k8s", lambda: NOW, "")


def test_changed_clocks_are_said() -> None:
    found = read_times("02:30 Europe/Berlin", "k8s", lambda: NOW, "UTC")
    assert "does not exist on 2027-03-28" in found.remarks[0]
    assert "comes twice on 2027-10-31" in found.remarks[1]
    by_cron = {
        when: read_times(when, "cron", lambda: NOW, "Europe/Berlin").remarks for when in ("30 2 * * *", "*/15 2 * * *")
    }
    assert ["right after the change" in remarks[0] for remarks in by_cron.values()] == [True, False]
    assert found.sentences[0] == "Sat 2026-11-28 02:30 Europe/Berlin (2026-11-28 01:30 UTC)"


# -- files --------------------------------------------------------------------------------------------------------------


def test_list_tells_what_has_changed_since(job: Job) -> None:
    out = job.cli.place / "out"
    out.mkdir()
    job.schedule("--out", "out")
    job.schedule("--out", "out", kind="cron")
    (out / "bulkimg-foreign.service").write_text("[Unit]\n")
    (out / "bulkimg-link.timer").symlink_to(out / "bulkimg-nightly.timer")

    def listed() -> dict[str, list[str]]:
        return {
            Path(one["file"]).name: one["changed"]
            for one in job.cli("schedule", "--list", "--out", "out", "--json").json()
        }

    assert listed() == {"bulkimg-nightly": [], "bulkimg-nightly.service": [], "bulkimg-nightly.timer": []}
    timer = out / "bulkimg-nightly.timer"
    timer.write_text(timer.read_text().replace("02:30", "03:30"))
    assert listed()["bulkimg-nightly.timer"] == ["edited by hand"]
    job.file.write_text(job.file.read_text() + "# more\n")
    assert listed()["bulkimg-nightly.service"] == ["the job file has changed since"]
    line = out / "bulkimg-nightly"
    line.write_text(line.read_text().replace(f'"version": "{__version__}"', '"version": "0.0.1"', 1))
    assert any("written by bulkimg 0.0.1" in change for change in listed()["bulkimg-nightly"])
    job.file.unlink()
    assert "gone" in listed()["bulkimg-nightly"][0]


def test_remove_takes_the_files_of_the_job_and_nothing_else(job: Job) -> None:
    out = job.cli.place / "out"
    out.mkdir()
    job.schedule("--out", "out")
    foreign = out / "bulkimg-nightly"
    foreign.write_text("* * * * * true\n")
    assert "no files of bulkimg schedule" in job.cli("schedule", "--remove", "other", "--out", "out", code=2).err
    job.cli("schedule", "--remove", "job.toml", "--out", "out")
    assert list(out.iterdir()) == [foreign]


def test_a_file_of_another_origin_is_left(job: Job) -> None:
    out = job.cli.place / "out"
    out.mkdir()
    (out / "bulkimg-nightly.timer").write_text("[Timer]\n")
    assert "was not written by bulkimg schedule" in job.schedule("--out", "out", code=2).err
    assert [path.name for path in out.iterdir()] == ["bulkimg-nightly.timer"], "none is written"
    (out / "bulkimg-nightly.timer").unlink()
    job.schedule("--out", "out")
    job.schedule("--out", "out", when="03:30")
    assert "03:30" in (out / "bulkimg-nightly.timer").read_text()
    other = job.cli.place / "other.toml"
    other.write_text(job.file.read_text())
    words = ("--when", "02:30", "--as", "cron", *job.account, "--out", "out")
    job.cli("schedule", "job.toml", *words)
    assert "is of the job" in job.cli("schedule", "other.toml", *words, code=2).err


@pytest.mark.parametrize("name", ["Ünïcode nightly", "a/b c", "x" * 200])
def test_any_name_becomes_one_that_files_may_have(job: Job, name: str) -> None:
    job.name = name
    job.write()
    for kind in ("systemd", "cron", "k8s"):
        for file in job.schedule("--json", kind=kind, when="02:30 UTC" if kind == "k8s" else "02:30").json()["files"]:
            assert re.fullmatch(r"bulkimg-[A-Za-z0-9_-]{1,50}(\.service|\.timer|\.yaml)?", file["name"])


def test_a_name_of_nothing_is_refused(job: Job) -> None:
    job.name = "夜"
    job.write()
    assert "[job] name" in job.schedule(kind="cron", code=2).err


def test_install_is_refused_where_systemd_does_not_run(job: Job) -> None:
    if Path("/run/systemd/system").is_dir() and os.geteuid() == 0:
        pytest.skip("systemd runs here")
    done = job.schedule("--install", code=2)
    assert re.search("systemd does not run this machine|needs root", done.err)
    assert not Path("/etc/systemd/system/bulkimg-nightly.timer").exists()
    assert "--as systemd only" in job.schedule("--install", kind="cron", code=2).err


def test_the_nightly_sample_is_refused_for_its_manifest_and_the_sentence_helps(cli: Cli) -> None:
    done = cli("schedule", str(ROOT / "jobs" / "nightly.toml"), "--when", "02:30", "--as", "cron", code=2)
    assert "outside the job's folder" in done.err
    assert "write its absolute path" in done.err
