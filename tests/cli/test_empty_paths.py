"""An empty path is refused, wherever it is given: an unset variable of a script must not mean the present directory."""

from pathlib import Path

import pytest

import bulkimg
from bulkimg.credentials import find_credentials
from bulkimg.errors import UsageError
from bulkimg.layers import job_layer, merge
from tests.conftest import Cli

EMPTY = "is empty; give a path, or leave the option out"
GIVEN = {
    "run m.csv --metrics-file": f"--metrics-file '' {EMPTY}",
    "run m.csv --runs-dir": f"--runs-dir '' {EMPTY}",
    "run m.csv --results": f"--results '' {EMPTY}",
    "run m.csv --ca-file": f"--ca-file '' {EMPTY}",
    "run m.csv --profile": "--profile '' is not the name of a profile; give one, or leave the option out",
    "runs --runs-dir": f"--runs-dir '' {EMPTY}",
    "export -o": f"--output '' {EMPTY}",
    "run": "SOURCE is empty; give a manifest, a job file, or - for standard input",
    "init": "'': a job file's name ends in .toml",
    "notify --test": "is not a job file",
    "ui": "no run is named",
    "status": "no run is named",
}


@pytest.mark.parametrize("words", GIVEN)
def test_an_empty_path_is_a_wrong_use_and_leaves_nothing(cli: Cli, words: str) -> None:
    cli.write("m.csv", "uuid,name\n")
    done = cli(*words.split(), "", code=2, BULKIMG_ENDPOINT="http://127.0.0.1:9", BULKIMG_SESSION="0" * 32)
    assert GIVEN[words] in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert [path.name for path in cli.place.iterdir()] == ["m.csv"]


def test_a_report_is_not_written_to_an_empty_path(cli: Cli) -> None:
    (cli.place / "runs" / "r").mkdir(parents=True)
    (cli.place / "runs" / "r" / "run.db").touch()
    assert f"--out '' {EMPTY}" in cli("report", "r", "--out", "", code=2).err
    assert "no run is named" in cli("report", "r", "--compare", "", code=2).err


@pytest.mark.parametrize(
    "table",
    ['[run]\nmetrics_file = ""', '[run]\nruns_dir = " "', '[results]\npath = ""', '[target]\nca_file = ""'],
)
def test_in_a_job_file_too_with_its_line(tmp_path: Path, table: str) -> None:
    (tmp_path / "job.toml").write_text(f'[job]\nmanifest = "m.csv"\n{table}\n')
    with pytest.raises(UsageError, match=f"job.toml:4: .*{EMPTY}"):
        merge(job_layer(tmp_path / "job.toml")[0])
    (tmp_path / "job.toml").write_text('[job]\nmanifest = ""\n')
    with pytest.raises(UsageError, match=f"job.toml:2: .*{EMPTY}"):
        job_layer(tmp_path / "job.toml")


def test_in_a_profile_too() -> None:
    with pytest.raises(UsageError, match="session_file in the profile is not a path; write the name of a file"):
        find_credentials({}, {"session_file": ""})
    with pytest.raises(UsageError, match="session_command in the profile is not a command"):
        find_credentials({}, {"session_command": []})


def test_in_the_library_too() -> None:
    credentials = bulkimg.Session("0" * 32)
    for name in ("metrics_file", "runs_dir", "results", "ca_file"):
        options: bulkimg.Options = {"endpoint": "http://127.0.0.1:9", name: ""}  # type: ignore[misc] # one of them
        with pytest.raises(UsageError, match=EMPTY):
            bulkimg.run([], credentials=credentials, **options)
    with pytest.raises(UsageError, match=EMPTY):
        bulkimg.open_run("last", runs_dir="")
    with pytest.raises(UsageError, match=EMPTY):
        bulkimg.retry("last", runs_dir="", credentials=credentials)
