"""Webhooks: signed as Standard Webhooks says, tried three times, bounded in time, no redirect, no proxy."""

import base64
import hashlib
import hmac
import json
import ssl
import time

import jsonschema
import pytest
import trustme

from bulkimg.notify import webhook
from bulkimg.notify.message import Message
from bulkimg.notify.post import Patience, post
from bulkimg.report import schemas
from tests.notify.conftest import Job
from tests.notify.receiver import Received, Receiver, receiving

QUICK = Patience(60, (0.01, 0.02))
SHORT = Patience(0.3, (0.01, 0.02))  # for a receiver that never answers
MESSAGE = Message("run.finished", "title", "text", {"exit_code": 0}, 1.5)


def is_signed(request: Received, key: bytes) -> bool:
    """Verify the signature as the specification describes it."""
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    wanted = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return request.headers["webhook-signature"] == f"v1,{wanted}"


def test_a_run_sends_its_summary_signed(job: Job, receiver: Receiver) -> None:
    job.write(
        '[[notify]]\non = ["always", "started"]\nwebhook_file = "hook.url"\nsecret_file = "hook.secret"\n', rows=3
    )
    job.secret("hook.url", f"{receiver.url}/hook?token=x")
    key = bytes(range(24))
    job.secret("hook.secret", f"whsec_{base64.b64encode(key).decode()}")
    job.run()
    started, finished = receiver.requests
    assert started.path == finished.path == "/hook?token=x"
    for request in (started, finished):
        assert is_signed(request, key)
        assert not is_signed(request, b"another")
        assert abs(time.time() - int(request.headers["webhook-timestamp"])) < 60
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("bulkimg/")
        assert not {"authorization", "cookie"} & set(request.headers)
        assert job.server.session.encode() not in request.body
    assert started.headers["webhook-id"] != finished.headers["webhook-id"]
    assert started.json()["type"] == "run.started"
    assert started.json()["data"]["rows_to_do"] == 3
    body = finished.json()
    assert (body["type"], body["data"]["job"], body["data"]["event"]) == ("run.finished", "nightly", "always")
    own = {name: value for name, value in body["data"].items() if name not in ("job", "event")}
    jsonschema.validate(own, schemas.schema("summary"))
    assert own == job.cli.summary()
    assert body["timestamp"].endswith("Z")


async def test_a_plain_secret_is_the_key_itself_and_without_one_nothing_is_signed(receiver: Receiver) -> None:
    assert await webhook.send(receiver.url, webhook.key_of("plain text"), MESSAGE, QUICK) == ""
    assert await webhook.send(receiver.url, None, MESSAGE, QUICK) == ""
    signed, unsigned = receiver.requests
    assert is_signed(signed, b"plain text")
    assert "webhook-signature" not in unsigned.headers
    assert json.loads(signed.body) == {"type": "run.finished", "timestamp": "1970-01-01T00:00:01.500Z", "data": {"exit_code": 0}}  # fmt: skip


def test_the_example_of_the_specification() -> None:
    """The values of Standard Webhooks' own libraries."""
    key = webhook.key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = webhook.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_500_is_tried_three_times_with_one_id(receiver: Receiver) -> None:
    receiver.status = 500
    assert await webhook.send(receiver.url, b"k", MESSAGE, QUICK) == "answered 500 (3 tries)"
    assert len(receiver.requests) == 3
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert all(is_signed(request, b"k") for request in receiver.requests)


@pytest.mark.parametrize("status", [400, 401, 404, 410])
async def test_a_refusal_is_not_tried_again(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert await webhook.send(receiver.url, None, MESSAGE, QUICK) == f"answered {status}"
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    with receiving() as other:
        receiver.status, receiver.location = status, f"{other.url}/elsewhere"
        why = await webhook.send(receiver.url, b"k", MESSAGE, QUICK)
        assert other.requests == []
    assert len(receiver.requests) == 1
    assert why == f"answered {status}, a redirect, which is not followed; name the final address"


async def test_a_receiver_that_hangs_costs_no_more_than_its_tries(receiver: Receiver) -> None:
    receiver.status = -1
    begun = time.monotonic()
    why = await webhook.send(receiver.url, None, MESSAGE, SHORT)
    assert why == "no answer within 0.3 s (3 tries)"
    assert 0.9 <= time.monotonic() - begun < 50, "the receiver hangs for 60 s"


async def test_nobody_there_is_one_sentence_without_the_address() -> None:
    with receiving() as gone:
        pass
    why = await post(f"{gone.url}/T0/secret", b"", dict, QUICK.once)
    assert why == "no connection could be made: Connection refused"
    assert await post("http://nowhere.invalid/secret", b"", dict, SHORT.once) in (
        "the host name is not known",
        "no answer within 0.3 s",
    )


async def test_a_certificate_that_is_not_trusted_gets_nothing() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    with receiving(tls=tls) as receiver:
        why = await webhook.send(receiver.url, b"k", MESSAGE, QUICK)
        assert receiver.requests == []
    assert why == "the TLS certificate is not trusted"


def test_a_proxy_in_the_environment_is_not_used(job: Job, receiver: Receiver) -> None:
    with receiving() as proxy:
        job.write('[[notify]]\non = ["always"]\nwebhook_file = "hook.url"\n')
        job.secret("hook.url", receiver.url)
        names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
        job.cli.environment.update(dict.fromkeys(names, proxy.url))
        job.run()
        assert proxy.requests == []
    assert len(receiver.requests) == 1


def test_what_a_receiver_answers_only_warns(job: Job, receiver: Receiver) -> None:
    receiver.status = 404
    job.write('[[notify]]\non = ["always"]\nwebhook_file = "hook.url"\n')
    job.secret("hook.url", receiver.url)
    done = job.run()
    sentence = "hook.url): not delivered: answered 404; the run and its exit code are not affected"
    assert sentence in done.err
    assert receiver.url not in done.err
    job.rows(1)
    event = next(
        json.loads(line) for line in job.run("--log-format", "json").err.splitlines() if "answered 404" in line
    )
    assert event["event"] == "notifyfailed"
    assert sentence in event["message"]


def test_a_receiver_that_hangs_holds_up_neither_the_sending_nor_a_signal(job: Job, receiver: Receiver) -> None:
    """The message of the start hangs while the rows are sent; Ctrl-C ends the waiting for it."""
    receiver.status = -1
    job.write('[[notify]]\non = ["started", "always"]\nwebhook_file = "hook.url"\ntimeout = "50s"\n')
    job.secret("hook.url", receiver.url)
    process = job.cli.start("run", "job.toml")
    deadline = time.monotonic() + 30
    while not list(job.place.glob("runs/*/summary.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert job.cli.summary()["counts"]["updated"] == 2
    process.send_signal(2)
    out, err = process.communicate(timeout=40)  # its rule would wait for 50 s, three times
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "hook.url): the message of the end was not waited for, because the run was interrupted; the run and" in err
    assert receiver.url not in err
    assert "2 updated" in err
    assert out == ""


def test_what_is_not_waited_for_at_the_end_is_named_and_the_exit_code_stays(job: Job, receiver: Receiver) -> None:
    """One message hangs, one is delivered, one is of a rule that has nothing to say; and a hook hangs."""
    job.script("hang", "echo $$ > pid.new; mv pid.new pid; exec sleep 300")
    with receiving() as other:
        job.write(
            '[[notify]]\non = ["always"]\nwebhook_file = "hook.url"\ntimeout = "50s"\n'
            '[[notify]]\non = ["always"]\nwebhook_file = "other.url"\n'
            '[[notify]]\non = ["stopped"]\nwebhook_file = "hook.url"\n'
            '[[hook]]\nat = "after-run"\nrun = ["./hang"]\ntimeout = "50s"\n',
            bad=1,
        )
        job.secret("hook.url", receiver.url)
        job.secret("other.url", other.url)
        receiver.status = -1
        process = job.cli.start("run", "job.toml")
        deadline = time.monotonic() + 30
        while not (receiver.requests and other.requests and (job.place / "pid").exists()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(2)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    unwaited = [line for line in err.splitlines() if "not waited for" in line]
    assert any("hook 1 (after-run, " in line for line in unwaited)
    assert any("notify 1 (webhook_file " in line for line in unwaited)
    assert not any("notify 3" in line for line in unwaited), "it had nothing to say"
    assert "Traceback" not in err


def test_an_interrupted_message_about_a_refused_manifest_is_named_too(job: Job, receiver: Receiver) -> None:
    job.write('[[notify]]\nwebhook_file = "hook.url"\ntimeout = "50s"\n')
    job.secret("hook.url", receiver.url)
    job.cli.write("m.csv", "uuid,name\nno,x\n")
    receiver.status = -1
    process = job.cli.start("run", "job.toml")
    deadline = time.monotonic() + 30
    while not receiver.requests:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(2)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3, err
    assert "the message of the end was not waited for, because the run was interrupted" in err
