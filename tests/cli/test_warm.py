"""A warm fork is the same for a test as a new process: output, exit codes, signals and files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Cli, forge
from tests.warm import Warm, fits
from tests.warm_shell import write_program


@pytest.mark.parametrize("words", [("--version",), ("runs",), ("nonsense",), ("check", "none.csv"), ("init", "j.toml")])
def test_a_fork_says_what_a_cold_process_says(cli: Cli, words: tuple[str, ...]) -> None:
    said = []
    for cold in (False, True):
        process = cli.start(*words, cold=cold)
        out, err = process.communicate(timeout=60)
        said.append((process.wait(), out, err))
        (cli.place / "j.toml").unlink(missing_ok=True)
    assert said[0] == said[1]


def test_forks_run_at_the_same_time_and_get_signals(cli: Cli) -> None:
    started = [cli.start("sandbox", "--port", "0", group=True) for _ in range(2)]
    urls = {process.stdout.readline().split()[1] for process in started if process.stdout}
    assert len(urls) == 2
    with pytest.raises(subprocess.TimeoutExpired):
        started[0].wait(0.01)
    assert [process.poll() for process in started] == [None, None]
    started[0].kill()
    os.killpg(started[1].pid, signal.SIGTERM)
    for process in started:
        process.communicate(timeout=30)
    assert started[0].returncode == -signal.SIGKILL
    assert started[1].wait() >= 0, "it has ended by itself"
    assert started[1].poll() == started[1].returncode


def test_a_fork_has_the_umask_and_the_folder_it_is_given(cli: Cli) -> None:
    process = cli.start("init", "j.toml", umask=0o077)
    assert isinstance(process, Warm)
    process.communicate(timeout=30)
    assert (cli.place / "j.toml").stat().st_mode & 0o777 == 0o600


def test_what_an_interpreter_reads_as_it_starts_needs_a_cold_one(cli: Cli) -> None:
    assert not fits({"LC_ALL": "C"})
    process = cli.start("--version", LC_ALL="C")
    process.communicate(timeout=30)
    assert isinstance(process, subprocess.Popen)


def test_a_command_of_a_shell_is_forked_and_ends_as_the_installed_one(cli: Cli, tmp_path: Path) -> None:
    """Output, exit code, folder and a signal; with a variable that an interpreter reads it is not forked."""
    (folder := tmp_path / "bin").mkdir()
    installed = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    forked = cli.env(PATH=f"{folder}:{installed}")
    descriptor = write_program(forge(), folder, forked)
    script = (
        'bulkimg runs; bulkimg nonsense; echo "$?"; (umask 077; bulkimg init j.toml > said); stat -c %a j.toml; rm j.toml\n'
        'bulkimg sandbox --port 0 > greeting & until test -s greeting; do sleep 0.05; done; kill "$!"; wait "$!"; echo "$?"'
    )
    said = []
    for environment in (forked, cli.env(PATH=installed), {**forked, "PYTHONUNBUFFERED": "1"}):
        done = subprocess.run(
            ["bash", "-c", script], cwd=cli.place, env=environment, capture_output=True, text=True, timeout=60,
            pass_fds=[descriptor], check=True,
        )  # fmt: skip
        said.append((done.stdout, done.stderr))
        (cli.place / "greeting").unlink()
    assert said[0] == said[1] == said[2]
    assert said[0][0].split()[-3:-1] == ["2", "600"]
