"""Which ends are told, and what a message says: how many, why, the next command, and no value of a row."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import bulkimg
from bulkimg.notify import message
from bulkimg.notify.message import event_of
from tests.conftest import Cli, Server, sandbox_process
from tests.notify.conftest import Job
from tests.notify.receiver import Receiver

ALL = '["failed", "recovered", "changed", "stopped", "started", "always"]'


def rule(job: Job, receiver: Receiver, on: str = ALL, more: str = "") -> str:
    """Return a rule that sends to the receiver."""
    job.secret("hook.url", receiver.url)
    return f'[[notify]]\non = {on}\nwebhook_file = "hook.url"\n{more}\n'


def events(receiver: Receiver) -> list[tuple[str, int]]:
    """Return the event and the exit code of each end that was told."""
    ends = [request.json()["data"] for request in receiver.requests if request.json()["type"] == "run.finished"]
    return [(data["event"], data["exit_code"]) for data in ends]


@pytest.mark.parametrize(
    ("code", "before", "updated", "asked", "event"),
    [
        (0, 1, 3, ("failed", "recovered"), "recovered"),
        (0, 0, 3, ("failed", "recovered"), None),
        (0, None, 3, ("failed", "recovered"), None),
        (0, 3, 0, ("changed",), None),
        (1, 0, 2, ("changed",), "changed"),
        (1, 0, 2, ("changed", "failed"), "failed"),
        (4, 0, 0, ("failed", "stopped"), "stopped"),
        (4, 0, 0, ("failed",), "failed"),
        (3, 0, 0, ("stopped",), None),
        (7, 0, 0, ("failed", "stopped"), "failed"),
        (130, 0, 0, ("stopped",), "stopped"),
        (0, None, 0, ("always",), "always"),
        (1, None, 0, ("started",), None),
    ],
)
def test_which_event_an_end_is(code: int, before: int | None, updated: int, asked: Any, event: str | None) -> None:
    assert event_of({"exit_code": code, "counts": {"updated": updated}}, before, asked) == event


def test_recovered_is_told_once(job: Job, receiver: Receiver) -> None:
    rules = rule(job, receiver, '["failed", "recovered"]')
    for bad in (0, 1, 1, 0, 0):
        job.write(rules, bad=bad)
        job.run(code=1 if bad else 0)
    assert events(receiver) == [("failed", 1), ("failed", 1), ("recovered", 0)]


def test_another_job_a_plan_and_an_undo_are_no_recovery(job: Job, receiver: Receiver) -> None:
    job.write(rule(job, receiver, '["recovered"]'), bad=1)
    job.run(code=1)
    job.cli("undo", "last", "--yes")
    job.name = "another"
    job.write(rule(job, receiver, '["recovered"]'))
    job.run()
    job.cli("plan", "job.toml")
    assert receiver.requests == []
    job.name = "nightly"
    job.write(rule(job, receiver, '["recovered"]'))
    job.run()
    assert events(receiver) == [("recovered", 0)]


def test_a_refused_manifest_is_a_failure_and_the_next_good_run_a_recovery(job: Job, receiver: Receiver) -> None:
    job.script("hook", 'echo "$BULKIMG_HOOK $BULKIMG_EXIT_CODE" >> hooked')
    hooks = "".join(f'[[hook]]\nat = "{at}"\nrun = ["./hook"]\n' for at in ("before-run", "after-run"))
    job.write(rule(job, receiver, '["failed", "recovered", "started"]') + hooks)
    job.cli.write("m.csv", "uuid,name\nnonsense-value,x\n")
    job.run(code=3)
    assert events(receiver) == [("failed", 3)]
    assert receiver.kinds == ["run.finished"]
    assert b"nonsense-value" not in receiver.requests[0].body
    assert (job.place / "hooked").read_text() == "after-run 3\n"
    job.rows(1)
    job.run()
    assert events(receiver) == [("failed", 3), ("recovered", 0)]
    job.cli.write("m.csv", "uuid,name\nnonsense,x\n")
    receiver.status = 403
    assert "not delivered: answered 403" in job.run(code=3).err


def test_a_server_that_cannot_be_reached_is_a_stop_and_resume_a_recovery(job: Job, receiver: Receiver) -> None:
    job.write(rule(job, receiver, '["stopped", "recovered"]'))
    job.cli("run", "job.toml", "--max-outage", "1s", code=5, BULKIMG_ENDPOINT="http://127.0.0.1:9")
    assert events(receiver) == [("stopped", 5)]
    job.run()
    assert events(receiver) == [("stopped", 5), ("recovered", 0)]


def test_resume_retry_and_undo_tell_too(job: Job, receiver: Receiver) -> None:
    job.write(rule(job, receiver, '["always"]'), rows=6, bad=1)
    job.run("--canary", "1", "--max-duration", "1ms", code=6)
    run = job.cli.runs()[0]
    (job.place / "job.toml").unlink()
    job.cli("resume", run, "--yes", "--max-duration", "60s", code=1)
    job.cli("retry", run, "--yes", code=1)
    job.cli("undo", run, "--yes")
    assert [code for _, code in events(receiver)] == [6, 1, 1, 0]
    resumed, retried, undone = (request.json()["data"] for request in receiver.requests[1:])
    assert (resumed["run_id"], retried["retry_of"], undone["undo_of"]) == (run, run, run)
    assert {data["job"] for data in (resumed, retried, undone)} == {"nightly"}
    assert resumed["next"] == f"bulkimg retry {run}"
    job.cli("resume", run, code=1)  # finished: its files are written again
    assert len(receiver.requests) == 4


def test_apply_tells_and_plan_does_not(job: Job, receiver: Receiver) -> None:
    job.write(rule(job, receiver))
    job.cli("plan", "job.toml")
    assert receiver.requests == []
    job.cli("apply", "last", "--yes")
    assert receiver.kinds == ["run.started", "run.finished"]


def test_no_value_of_a_row_leaves_unless_it_is_asked_for(job: Job, receiver: Receiver) -> None:
    """In no text, whatever refused the row: our own check, or the server, which quotes it."""
    job.write(rule(job, receiver, '["always"]'), bad=2)
    text = (job.place / "m.csv").read_text() + "f" * 32 + ",\nnot-a-uuid,secretname\n"
    job.cli.write("m.csv", text.replace("name ", "secretname ") + f"{'e' * 32},{'secretname' * 50}\n")
    job.run("--skip-invalid", code=1)
    first = receiver.requests[0].body.decode()
    for value in ("secretname", "not-a-uuid", f"{0:032x}", f"{1:032x}"):
        assert value not in first
    data = json.loads(first)["data"]
    assert data["counts"]["failed"] == 2
    assert [(cause["rows"], cause["code"], cause["message"]) for cause in data["causes"] if cause["status"] == "failed"] == [(2, "NO_SUCH_IMAGE", "")]  # fmt: skip
    assert "first_rows" not in data
    settings = (job.place / "job.toml").read_text()
    job.cli.write("job.toml", settings.replace("[[notify]]", "[[notify]]\nrows = 3"))
    job.run("--skip-invalid", code=1)
    data = receiver.requests[1].json()["data"]
    assert len(data["first_rows"]) == 3
    assert data["first_rows"][0]["uuid"] == f"{0:032x}"
    assert set(data["first_rows"][0]) == {"line", "uuid", "status", "code", "message"}


def test_a_canary_that_fails_does_not_quote_its_row() -> None:
    reason = "1 of 5 canary rows did not succeed; the first is in line 4: failed: name 'web: 1; x' is bad; nothing else was sent"
    shown = message.without_values({"exit_code": 4, "reason": reason, "causes": []})
    assert (
        shown["reason"] == "1 of 5 canary rows did not succeed; the first is in line 4: failed; nothing else was sent"
    )


def test_a_canary_that_the_server_refuses_stops_the_run_and_its_value_stays_here(job: Job, receiver: Receiver) -> None:
    job.write(rule(job, receiver, '["stopped"]'))
    images = sorted(job.server.images())[:3]
    job.cli.write("m.csv", "uuid,format\n" + "".join(f"{image},secretformat\n" for image in images))
    job.run("--canary", "2", "--allow-value", "format=secretformat", "--allow-field", "format", code=4)
    assert "secretformat" in job.cli.summary()["reason"]
    assert events(receiver) == [("stopped", 4)]
    assert b"secretformat" not in receiver.requests[0].body
    reason = receiver.requests[0].json()["data"]["reason"]
    assert reason.startswith("2 of 2 canary rows did not succeed; the first is in line ")
    assert reason.endswith(": failed; nothing else was sent")


def test_the_text_says_what_how_many_why_and_what_next() -> None:
    summary = {
        "run_id": "r1", "directory": "/srv/runs/r1", "target": "http://h:1/zstack", "exit_code": 1, "reason": "",
        "counts": {"updated": 1056, "failed": 4}, "duration_s": 12.4, "by": {"host": "box"}, "next": "bulkimg retry r1",
        "causes": [{"status": "failed", "code": "NO_SUCH_IMAGE", "rows": 4, "first_line": 6, "message": "x\x1b[1m", "hint": "check the uuid"}],
    }  # fmt: skip
    made = message.finished(summary, "nightly", "failed", (), 0.0)
    assert made.title == "bulkimg nightly: failed, 1,056 updated, 4 failed"
    assert made.text.splitlines() == [
        "run r1 of job nightly on http://h:1/zstack: exit code 1 after 12 s",
        "1,056 updated, 4 failed",
        "4 failed: NO_SUCH_IMAGE, first in line 6 (check the uuid)",
        "results: box:/srv/runs/r1",
        "next: bulkimg retry r1",
    ]
    row = {"line": 6, "uuid": "u", "status": "failed", "code": "C", "message": "\x1b[31mred\nnew"}
    lines = message.finished(summary, "", "failed", [row], 0.0).text.splitlines()
    assert lines[3] == r"line 6: image u: failed C \x1b[31mred\nnew"
    assert len(message.finished({**summary, "note": ""}, "", "failed", [row] * 5000, 0.0).text) <= 90_000


def test_a_disk_that_fails_is_told(job: Job, receiver: Receiver) -> None:
    job.write(rule(job, receiver, '["failed"]'))
    job.cli("plan", "job.toml")
    run = job.cli.run_dir()
    (run / "results.csv").unlink(missing_ok=True)
    (run / "results.csv").mkdir()  # cannot be written, whoever runs the test
    job.cli("apply", "last", "--yes", code=8)
    assert len(receiver.requests) == 1
    data = receiver.requests[0].json()["data"]
    assert (data["exit_code"], data["next"]) == (8, f"bulkimg resume {run.name}")


def test_two_signals_end_at_once_and_tell_nobody(job: Job, receiver: Receiver) -> None:
    with sandbox_process("--images", "40", "--service-time", "90000") as slow:
        job.server, job.cli = slow, job.cli.at(slow)
        job.write(rule(job, receiver, '["stopped"]'), rows=4)
        process = job.cli.start("run", "job.toml")
        slow.wait_for_put()
        process.send_signal(2)
        process.send_signal(15)
        _, err = process.communicate(timeout=25)  # after one signal it takes more than half a minute
    assert "notify: no message was sent and no hook run at the end, because the run was interrupted" in err
    assert process.returncode in (130, 143)
    assert receiver.requests == []


# -- the library --------------------------------------------------------------------------------------------------------


def library_job(place: Path, server: Server, receiver: Receiver, cli: Cli) -> Path:
    job = Job(cli, server)
    job.write(rule(job, receiver))
    return place / "job.toml"


def test_the_library_tells_too(tmp_path: Path, server: Server, receiver: Receiver, cli: Cli) -> None:
    path = library_job(tmp_path, server, receiver, cli)
    who = bulkimg.Session(server.session)
    result = bulkimg.run(path, endpoint=server.url, credentials=who, runs_dir=tmp_path / "runs")
    assert result.ok
    assert receiver.kinds == ["run.started", "run.finished"]
    (tmp_path / "m.csv").write_text("uuid,name\nnonsense,x\n")
    with pytest.raises(bulkimg.ManifestRefused):
        bulkimg.run(path, endpoint=server.url, credentials=who, runs_dir=tmp_path / "runs")
    assert events(receiver)[-1] == ("failed", 3)


def test_the_library_takes_rules_without_a_job_file_relative_to_the_working_directory(
    tmp_path: Path, server: Server, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hook.url").write_text(receiver.url)
    (tmp_path / "hook.url").chmod(0o600)
    image = sorted(server.images())[0]
    options: bulkimg.Options = {
        "endpoint": server.url,
        "notify": [
            {"on": ["always"], "webhook_file": "hook.url"},
            {"on": ("failed",), "webhook_file": Path("hook.url")},
        ],
        "hooks": [{"at": "before-run", "run": ["sh", "-c", "touch before"]}],
    }
    result = bulkimg.run(
        [{"uuid": image, "name": f"by rules {time.time_ns()}"}], credentials=bulkimg.Session(server.session), **options
    )
    assert result.ok
    assert receiver.kinds == ["run.finished"]
    assert (tmp_path / "before").exists()


def test_rules_of_a_call_replace_those_of_the_job_file(
    tmp_path: Path, server: Server, receiver: Receiver, cli: Cli
) -> None:
    path = library_job(tmp_path, server, receiver, cli)
    who = bulkimg.Session(server.session)
    bulkimg.run(path, endpoint=server.url, credentials=who, runs_dir=tmp_path / "runs", notify=[])
    assert receiver.requests == []


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"notify": {"webhook_file": "u"}}, "notify is not a list of mappings; see bulkimg.NotifyOptions"),
        ({"notify": "u"}, "notify is not a list of mappings"),
        ({"hooks": [5]}, "hooks[0] is not a mapping; see bulkimg.HookOptions"),
        (
            {"notify": [{"webhook_file": "u"}, {"on": ["fialed"], "webhook_file": "u"}]},
            'notify[1]: on contains "fialed"',
        ),
        ({"notify": [{"webhook": "https://h/s3cr3t"}]}, "notify[0]: webhook would hold an address"),
        ({"hooks": [{"at": "before-run", "run": []}]}, "hooks[0]: run names no program"),
        ({"hooks": [{"at": "before-run"}]}, "hooks[0]: has no run; add run = "),
        ({"notify": [{"webhook_file": "missing"}]}, "missing cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_rule_of_a_call_is_named(tmp_path: Path, rules: Any, said: str) -> None:
    who = bulkimg.Session("0" * 32)
    with pytest.raises(bulkimg.UsageError) as error:
        bulkimg.run(
            [{"uuid": "1" * 32, "name": "x"}],
            endpoint="http://127.0.0.1:9",
            credentials=who,
            runs_dir=tmp_path,
            **rules,
        )
    assert said in str(error.value)
    assert "s3cr3t" not in str(error.value)


async def test_in_the_library_a_failure_is_an_event_and_a_line_of_the_log(
    tmp_path: Path, server: Server, receiver: Receiver, cli: Cli, caplog: pytest.LogCaptureFixture
) -> None:
    path = library_job(tmp_path, server, receiver, cli)
    receiver.status = 410
    who = bulkimg.Session(server.session)
    with caplog.at_level("WARNING", logger="bulkimg"):
        async with bulkimg.Run(path, endpoint=server.url, credentials=who, runs_dir=tmp_path / "runs") as run:
            seen = [event async for event in run]
    failed = [event for event in seen if isinstance(event, bulkimg.NotifyFailed)]
    assert [event.why for event in failed] == [
        "the message of the start was not delivered: answered 410",
        "not delivered: answered 410",
    ]
    assert isinstance(seen[-1], bulkimg.Summary)
    assert sum("answered 410" in line for line in caplog.messages) == 2
    assert run.result.ok


def test_the_library_runs_hooks_in_any_thread(tmp_path: Path, server: Server, cli: Cli) -> None:
    """Also where a refused manifest ends without an engine."""
    job = Job(cli, server)
    hook = job.script("hook", f'echo "$BULKIMG_HOOK $BULKIMG_EXIT_CODE" >> {tmp_path}/hooked')
    job.write(
        "".join(f'[[hook]]\nat = "{at}"\nrun = ["{hook}"]\n' for at in ("before-run", "before-send", "after-run"))
    )
    who = bulkimg.Session(server.session)
    ended: list[Any] = []

    def run() -> None:
        try:
            result = bulkimg.run(
                tmp_path / "job.toml", endpoint=server.url, credentials=who, runs_dir=tmp_path / "runs"
            )
            ended.append(result.exit_code)
        except bulkimg.ManifestRefused as refused:
            ended.append(refused.exit_code)

    for manifest in ("", "uuid,name\nnonsense,x\n"):
        if manifest:
            (tmp_path / "m.csv").write_text(manifest)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(60)
    assert ended == [0, 3]
    lines = (tmp_path / "hooked").read_text().splitlines()
    assert lines == ["before-run ", "before-send ", "after-run 0", "after-run 3"]
