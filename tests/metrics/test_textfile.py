"""A job's file is complete, readable for all, replaced at once, and keeps the time of the last success."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bulkimg
from bulkimg.errors import UsageError
from bulkimg.metrics.exposition import sample_line
from bulkimg.metrics.textfile import Ended, Job, check_directory, write
from bulkimg.model import Status
from tests.conftest import ROOT, Cli, Server
from tests.metrics.reading import Metrics, accepted, by, described, parsed, value

GAUGES = {
    "bulkimg_last_run_timestamp_seconds", "bulkimg_last_success_timestamp_seconds", "bulkimg_last_run_duration_seconds",
    "bulkimg_last_run_exit_code", "bulkimg_last_run_rows", "bulkimg_last_run_requests", "bulkimg_build_info",
}  # fmt: skip
NOBODY = "f" * 32
SUCCESS = "bulkimg_last_success_timestamp_seconds"


@pytest.fixture
def at(cli: Cli, server: Server) -> Cli:
    """The command line with the server, and a directory for metrics."""
    (cli.place / "prom").mkdir()
    return cli.at(server)


def rows(server: Server, count: int, *more: str) -> str:
    """Return a manifest that renames images, each time in another way."""
    names = [f"{uuid},name {time.time_ns()}\n" for uuid in [*sorted(server.images())[:count], *more]]
    return "uuid,name\n" + "".join(names)


def job(cli: Cli, name: str, manifest: str = "m.csv", more: str = "") -> str:
    text = f'[job]\nname = "{name}"\nmanifest = "{manifest}"\n{more}\n[run]\nmetrics_file = "prom"\n'
    return cli.write(f"{name}.toml", text)


def told(cli: Cli, name: str) -> Metrics:
    return parsed((cli.place / "prom" / f"bulkimg-{name}.prom").read_text())


def test_the_file_has_every_metric_zeros_too_and_agrees_with_the_summary(at: Cli, server: Server) -> None:
    at.write("m.csv", rows(server, 3, NOBODY))
    process = at.start("run", job(at, "nightly"), umask=0o077)
    process.communicate(timeout=60)
    assert process.returncode == 1
    (path,) = (at.place / "prom").iterdir()
    assert path.name == "bulkimg-nightly.prom"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    found, summary = told(at, "nightly"), at.summary()
    assert set(found) == GAUGES
    assert by(found, "bulkimg_last_run_rows", "status") == summary["counts"]
    assert set(by(found, "bulkimg_last_run_rows", "status")) == {status.value for status in Status}
    assert value(found, "bulkimg_last_run_requests") == summary["pace"]["requests"] > 0
    assert value(found, "bulkimg_last_run_exit_code", job="nightly") == 1
    assert value(found, "bulkimg_last_run_duration_seconds") == summary["duration_s"]
    assert value(found, SUCCESS) == 0
    assert abs(value(found, "bulkimg_last_run_timestamp_seconds") - time.time()) < 100
    assert {name for values in found.values() for labels in values for name, _ in labels} == {
        "job",
        "status",
        "version",
    }


def test_promtool_accepts_the_files_of_a_directory(at: Cli, server: Server, promtool: str) -> None:
    at.write("m.csv", rows(server, 1))
    at("run", job(at, "one"))
    accepted(promtool, "check", "metrics", given=(at.place / "prom" / "bulkimg-one.prom").read_text())


@pytest.mark.parametrize("ending", ["rows", "manifest", "no manifest", "server", "guard"])
def test_a_run_that_fails_keeps_the_time_of_the_last_success(at: Cli, server: Server, ending: str) -> None:
    at.write("m.csv", rows(server, 2))
    at("run", job(at, "j"))
    before = value(told(at, "j"), SUCCESS)
    assert before == value(told(at, "j"), "bulkimg_last_run_timestamp_seconds")
    at.write("m.csv", rows(server, 2, *([NOBODY] if ending == "rows" else ["no uuid"] if ending == "manifest" else [])))
    if ending == "no manifest":
        (at.place / "m.csv").unlink()
    code = {"rows": 1, "manifest": 3, "no manifest": 3, "server": 5, "guard": 7}[ending]
    elsewhere = {"BULKIMG_ENDPOINT": "http://127.0.0.1:9", "BULKIMG_MAX_OUTAGE": "100ms"} if ending == "server" else {}
    at("run", "j.toml", *(["--max-changes", "1"] if ending == "guard" else []), code=code, **elsewhere)
    found = told(at, "j")
    assert value(found, "bulkimg_last_run_exit_code") == code
    assert value(found, SUCCESS) == before < value(found, "bulkimg_last_run_timestamp_seconds")
    assert set(found) == GAUGES
    at.write("m.csv", rows(server, 2))
    at("run", "j.toml")
    assert value(told(at, "j"), SUCCESS) > before


def test_two_jobs_in_one_directory_describe_their_metrics_in_the_same_words(at: Cli, server: Server) -> None:
    at.write("m.csv", rows(server, 1))
    at.write("bad.csv", "uuid,name\nno,x\n")
    at("run", job(at, "one"))
    at("run", job(at, "two", "bad.csv"), code=3)
    one, two = ((at.place / "prom" / f"bulkimg-{name}.prom").read_text() for name in ("one", "two"))
    assert described(one) == described(two)
    parsed(one + two)  # no value is there twice


def test_resume_and_retry_tell_of_the_job_and_an_undo_of_itself(at: Cli, server: Server) -> None:
    at.write("m.csv", rows(server, 2, NOBODY))
    at("run", job(at, "j"), code=1)
    assert value(told(at, "j"), "bulkimg_last_run_rows", status="failed") == 1
    at("retry", "last", "--metrics-file", "prom", code=1)
    found = told(at, "j")
    assert (
        value(found, "bulkimg_last_run_rows", status="failed"),
        value(found, "bulkimg_last_run_rows", status="updated"),
    ) == (1, 0)
    first = at.runs()[0]
    at("undo", first, "--metrics-file", "prom")
    assert value(told(at, "j+undo"), "bulkimg_last_run_exit_code", job="j (undo)") == 0
    assert value(told(at, "j"), SUCCESS) == 0, "an undo is no success of the job"
    at("resume", first, BULKIMG_METRICS_FILE="prom", code=1)
    assert value(told(at, "j"), "bulkimg_last_run_rows", status="updated") == 2


def test_a_plan_is_no_run_of_its_job_and_its_apply_is(at: Cli, server: Server) -> None:
    at.write("m.csv", rows(server, 2))
    at("plan", job(at, "j"))
    at("run", "j.toml", "--dry-run")
    at("undo", "last", "--plan", "--metrics-file", "prom", code=None)
    assert list((at.place / "prom").iterdir()) == []
    at("apply", at.runs()[0], "--metrics-file", "prom")
    assert value(told(at, "j"), "bulkimg_last_run_rows", status="updated") == 2


def test_a_resumed_run_needs_the_option_again(at: Cli, server: Server) -> None:
    at.write("m.csv", rows(server, 2))
    at("run", "m.csv", "--metrics-file", "prom")
    (at.place / "prom" / "bulkimg.prom").unlink()
    (at.place / "prom").rmdir()
    at("resume", "last")
    assert not (at.place / "prom").exists()


@pytest.mark.parametrize("place", ["missing", "m.csv", "/proc/self"])
def test_a_directory_that_cannot_be_written_to_is_said_before_anything_is_sent(
    at: Cli, server: Server, place: str
) -> None:
    at.write("m.csv", rows(server, 1))
    before = len(server.requests())
    said = at("run", "m.csv", "--metrics-file", place, code=2).err
    assert said.startswith(f"bulkimg: --metrics-file {place}: cannot be written to: ")
    assert said.count("\n") == 1
    assert len(server.requests()) == before
    assert not (at.place / "runs").exists() or at.runs() == []


def test_a_write_that_fails_at_the_end_is_a_warning(at: Cli, server: Server) -> None:
    at.write("m.csv", rows(server, 5))
    before = len(server.puts())
    process = at.start("run", "m.csv", "--metrics-file", "prom", "--rate", "5/s")
    server.wait_for_put(before)
    (at.place / "prom").rmdir()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "--metrics-file: prom/bulkimg.prom: No such file or directory; the run and its exit code" in err
    at.write("bad.csv", "uuid,name\nno,x\n")
    (at.place / "prom" / "bulkimg.prom").mkdir(parents=True)
    said = at("run", "bad.csv", "--metrics-file", "prom", code=3).err
    assert "warning: --metrics-file: prom/bulkimg.prom: Is a directory" in said
    assert [path.name for path in (at.place / "prom").iterdir()] == ["bulkimg.prom"], "no temporary file is left"


async def test_the_library_writes_it_too(server: Server, tmp_path: Path) -> None:
    changes = [{"uuid": sorted(server.images())[0], "name": f"lib {time.time_ns()}"}]
    options: bulkimg.Options = {"endpoint": server.url, "runs_dir": tmp_path / "runs", "metrics_file": tmp_path}
    credentials = bulkimg.Session(server.session)
    assert (await bulkimg.arun(changes, credentials=credentials, **options)).ok
    path = tmp_path / "bulkimg.prom"
    assert value(parsed(path.read_text()), "bulkimg_last_run_exit_code") == 0
    with pytest.raises(bulkimg.ManifestRefused):
        await bulkimg.arun([{"uuid": "no", "name": "x"}], credentials=credentials, **options)
    assert value(parsed(path.read_text()), "bulkimg_last_run_exit_code") == 3


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """Another process writes all the time; every reading is complete, with numbers that belong together."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom bulkimg.metrics import Ended, Job, write\n"
        "for n in range(1, 301):\n"
        "    assert write(Path(sys.argv[1]), Ended(Job('j'), n, n % 2, n, {'updated': n, 'failed': n}, n)) == ''\n"
    )
    path, seen = tmp_path / "bulkimg-j.prom", set()
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) as process:
        while process.poll() is None:
            if not path.exists():
                continue
            found = parsed(path.read_text())
            number = value(found, "bulkimg_last_run_timestamp_seconds")
            assert set(found) == GAUGES
            assert by(found, "bulkimg_last_run_rows", "status")["failed"] == number
            assert value(found, SUCCESS) == number - number % 2
            seen.add(number)
    assert process.returncode == 0
    assert len(seen) > 3
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_jobs_are_escaped_and_no_two_jobs_share_a_file(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "a b", '"quoted\\"', "line\nline", "ü", "x" * 300, "x" * 301, "../up", "run", "j-undo"]
    for at, name in enumerate(names, 1):
        assert write(tmp_path, Ended(Job(name), at, 0)) == ""
    assert len({Job(name).file_name for name in names}) == len(names) == len(list(tmp_path.iterdir()))
    for name in names:
        write(tmp_path, Ended(Job(name), 100, 1))
    everything = "".join(path.read_text() for path in tmp_path.iterdir())
    assert sorted(parsed(everything)[SUCCESS].values()) == list(range(1, len(names) + 1))
    assert sample_line("m", {"job": 'a"b\\c\nd'}, 1) == 'm{job="a\\"b\\\\c\\nd"} 1'


def test_no_job_shares_a_file_or_a_label_with_runs_without_a_name_or_with_an_undo() -> None:
    """A job keeps its name in both, and a name that looks like ours gets another label."""
    for name in ("nightly", "run", "nightly-undo", "undo"):
        assert (Job(name).file_name, Job(name).label) == (f"bulkimg-{name}.prom", name)
    assert (Job("").file_name, Job("").label) == ("bulkimg.prom", "(no name)")
    names = [
        "", "run", "undo", "nightly", "nightly-undo", "nightly+undo", "nightly (undo)", "nightly (undo) (job)", "(no name)",
        "(no name) (job)", "(no name) (undo)", "+undo", " (undo)",
    ]  # fmt: skip
    jobs = [Job(name, is_undo) for name in names for is_undo in (False, True)]
    assert len({job.label for job in jobs}) == len({job.file_name for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    "text", ["", "garbage", f'{SUCCESS}{{job="j"}} NaN\n', f'{SUCCESS}{{job="other"}} 5\n', "\0\xff"]
)
def test_an_earlier_file_that_is_broken_counts_as_no_success(tmp_path: Path, text: str) -> None:
    (tmp_path / "bulkimg-j.prom").write_bytes(text.encode("latin-1"))
    assert write(tmp_path, Ended(Job("j"), 7, 1)) == ""
    assert value(parsed((tmp_path / "bulkimg-j.prom").read_text()), SUCCESS) == 0


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "other"
    target.write_text("kept")
    (tmp_path / "bulkimg-j.prom").symlink_to(target)
    assert write(tmp_path, Ended(Job("j"), 7, 0)) == ""
    assert target.read_text() == "kept"
    assert not (tmp_path / "bulkimg-j.prom").is_symlink()


def test_what_is_no_directory(tmp_path: Path) -> None:
    check_directory(tmp_path)
    with pytest.raises(UsageError, match="No such file or directory"):
        check_directory(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_in_the_place_of_the_file_holds_nothing_up(cli: Cli, server: Server) -> None:
    cli = cli.at(server)
    (cli.place / "prom").mkdir()
    os.mkfifo(cli.place / "prom" / "bulkimg.prom")
    image = next(iter(server.images()))
    cli.write("m.csv", f"uuid,description\n{image},through a pipe\n")
    cli("run", "m.csv", "--yes", "--metrics-file", "prom")
    assert (cli.place / "prom" / "bulkimg.prom").is_file()
