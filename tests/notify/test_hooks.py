"""Hooks: programs around a run. One that fails before sending refuses the run; one after it only warns."""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bulkimg.notify import children
from tests.conftest import Cli
from tests.notify.conftest import Job

AT = ("before-run", "before-send", "after-run")
HOOKS = "".join(f'[[hook]]\nat = "{at}"\nrun = ["./hook", "{at}"]\n' for at in AT)
KEEPS = 'env > "$1.env"\ncat > "$1.json"\necho "$1" >> order'


def kept(job: Job, at: str) -> dict[str, str]:
    """Return the environment that a hook had."""
    lines = (job.place / f"{at}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


def test_hooks_get_the_facts_of_the_run_and_none_of_our_credentials(job: Job) -> None:
    job.script("hook", KEEPS)
    job.write(HOOKS, rows=2, bad=1)
    more = {"BULKIMG_ACCOUNT": "", "BULKIMG_PASSWORD_FILE": "", "BULKIMG_RATE": "40/s", "MINE": "stays"}
    job.cli("run", "job.toml", code=1, **more)
    assert (job.place / "order").read_text().split() == list(AT)
    run = job.cli.run_dir()
    for at in AT:
        env = kept(job, at)
        ours = {name for name in env if name.startswith("BULKIMG_")}
        facts = {"HOOK", "RUN_ID", "RUN_DIR", "JOB", "TARGET"}
        if at == "after-run":
            facts |= {"EXIT_CODE", *(f"COUNTS_{status.upper()}" for status in job.cli.summary()["counts"])}
        assert ours == {f"BULKIMG_{name}" for name in facts}
        assert (env["BULKIMG_HOOK"], env["BULKIMG_RUN_ID"], env["BULKIMG_RUN_DIR"]) == (at, run.name, str(run))
        assert (env["BULKIMG_JOB"], env["BULKIMG_TARGET"]) == ("nightly", f"{job.server.url}/zstack")
        assert env["MINE"] == "stays"
        for name in (f"{at}.env", f"{at}.json"):
            assert job.server.session not in (job.place / name).read_text()
    end = kept(job, "after-run")
    assert (end["BULKIMG_EXIT_CODE"], end["BULKIMG_COUNTS_UPDATED"], end["BULKIMG_COUNTS_FAILED"]) == ("1", "2", "1")
    assert json.loads((job.place / "after-run.json").read_text()) == job.cli.summary()
    assert json.loads((job.place / "before-run.json").read_text())["rows_to_do"] == 3


@pytest.mark.parametrize("at", ["before-run", "before-send"])
def test_a_hook_before_that_fails_refuses_the_run_and_nothing_is_sent(job: Job, at: str) -> None:
    before, asked = len(job.server.puts()), len(job.server.requests())
    job.script("freeze", 'echo more >&2\nprintf "no changes \\033[31muntil Monday\\n" >&2\nexit 3')
    job.write(f'[[hook]]\nat = "{at}"\nrun = ["./freeze"]\n')
    done = job.run(code=7)
    said = f"hook 1 ({at}, {job.place / 'freeze'}) ended with exit code 3: no changes \\x1b[31muntil Monday; nothing was sent"
    said += f"; bulkimg resume {job.cli.runs()[-1]} sends it once the hook succeeds"
    assert f"stopped: {said}" in done.err
    assert len(job.server.puts()) == before
    assert (at == "before-run") == (len(job.server.requests()) == asked)  # not even a login
    summary = job.cli.summary()
    assert (summary["exit_code"], summary["reason"], summary["next"]) == (7, said, None)
    assert summary["counts"]["unprocessed"] == 2
    job.script("freeze", "exit 0")
    job.cli("resume", "last", "--yes")
    assert job.cli.summary()["counts"]["updated"] == 2


def test_a_hook_that_quotes_our_credential_is_redacted(job: Job) -> None:
    job.secret("kept", job.server.session)
    job.script("hook", 'echo "token $(cat kept) is bad" >&2; exit 1')
    for at, code in (("before-run", 7), ("after-run", 0)):
        job.write(f'[[hook]]\nat = "{at}"\nrun = ["./hook"]\n')
        done = job.run(code=code)
        assert "token [hidden] is bad" in done.err
        assert job.server.session not in done.err


@pytest.mark.parametrize(("at", "code"), [("before-run", 7), ("after-run", 0)])
def test_a_hook_that_does_not_end_is_killed_with_its_children(job: Job, at: str, code: int) -> None:
    job.script("hang", "trap '' TERM INT\nsleep 300 & echo $! $$ > pids\necho waiting >&2\nwait; sleep 300")
    job.write(f'[[hook]]\nat = "{at}"\nrun = ["./hang"]\ntimeout = "500ms"\n')
    begun = time.monotonic()
    done = job.run(code=code)
    assert time.monotonic() - begun < 100, "the hook would sleep for 300 s"
    assert "did not end within 0.5 s and was killed: waiting" in done.err
    deadline = time.monotonic() + 60
    while any(is_alive(int(pid)) for pid in (job.place / "pids").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_hook_after_the_run_that_fails_only_warns_and_the_next_one_runs(job: Job) -> None:
    job.script("fails", "echo disk full >&2; exit 9")
    job.script("hook", KEEPS)
    job.write('[[hook]]\nat = "after-run"\nrun = ["./fails"]\n[[hook]]\nat = "after-run"\nrun = ["./hook", "x"]\n')
    done = job.run()
    assert "ended with exit code 9: disk full; the run and its exit code are not affected" in done.err
    assert (job.place / "x.json").exists()
    job.script("fails", "kill -9 $$")
    job.rows(1)
    assert "was ended by signal 9" in job.run().err


def test_ctrl_c_ends_a_hook_before_the_run(job: Job) -> None:
    job.script("hang", "echo $$ > pid.new; mv pid.new pid; exec sleep 300")
    job.write('[[hook]]\nat = "before-run"\nrun = ["./hang"]\n')
    before = len(job.server.requests())
    process = job.cli.start("run", "job.toml")
    deadline = time.monotonic() + 30
    while not (job.place / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not is_alive(int((job.place / "pid").read_text()))
    assert len(job.server.requests()) == before


def test_before_send_is_skipped_where_nothing_is_to_be_sent(job: Job) -> None:
    job.script("fails", "exit 1")
    job.write("")
    job.run()
    rules = '[job]\nname = "nightly"\nmanifest = "m.csv"\n[run]\nyes = true\n'
    job.cli.write("job.toml", rules + '[[hook]]\nat = "before-send"\nrun = ["./fails"]\n')
    assert "2 unchanged" in job.run().err


def test_a_hook_may_start_bulkimg(job: Job, cli: Cli) -> None:
    """The facts of the run are no options of the command that it starts, and no variables to warn of."""
    job.script("hook", f"{sys.executable} -m bulkimg runs --json > listed 2> said")
    job.write('[[hook]]\nat = "after-run"\nrun = ["./hook"]\n')
    job.run()
    assert (job.place / "said").read_text() == ""
    assert [run["run_id"] for run in json.loads((job.place / "listed").read_text())] == job.cli.runs()


async def test_a_daemon_that_keeps_the_pipe_open_holds_nothing_up(tmp_path: Path) -> None:
    begun = time.monotonic()
    words = ["sh", "-c", f"echo last >&2; setsid sleep 30 & echo $! > {tmp_path}/pid; exit 2"]
    ended = await children.run(words, b"", children.environment({}), 20)
    assert ended == (2, "last")
    assert time.monotonic() - begun < 28, "the daemon sleeps for 30 s"
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def test_a_program_that_closes_its_standard_error_costs_no_processor_time() -> None:
    begun = time.process_time()
    ended = await children.run(["sh", "-c", "exec 2>&-; sleep 1"], b"", children.environment({}), 20)
    assert ended == (0, "")
    assert time.process_time() - begun < 0.5


async def test_a_program_that_writes_without_end_is_bounded() -> None:
    ended = await children.run(["sh", "-c", "yes xxxxxxxx >&2"], b"", children.environment({}), 0.5)
    assert ended.code is None
    assert len(ended.last_line) <= 300
