"""Healthchecks: a ping at the start and at the end, tied by one id."""

import re
import uuid

from tests.notify.conftest import Job
from tests.notify.receiver import Receiver

RULE = '[[notify]]\nhealthchecks_file = "hc.url"\n'


def test_a_run_pings_its_start_and_its_exit_code_with_one_id(job: Job, receiver: Receiver) -> None:
    job.secret("hc.url", f"{receiver.url}/ping/the-check/")
    job.write(RULE, bad=1)
    job.run(code=1)
    start, end = receiver.requests
    found = re.fullmatch(r"/ping/the-check/start\?rid=([0-9a-f-]+)", start.path)
    assert found
    assert uuid.UUID(found[1])
    assert end.path == f"/ping/the-check/1?rid={found[1]}"
    assert start.body == b""
    text = end.body.decode()
    assert "2 updated, 1 failed" in text
    assert f"next: bulkimg retry {job.cli.runs()[0]}" in text
    assert len(end.body) <= 100_000
    job.write(RULE)
    job.run()
    assert receiver.requests[3].path.startswith("/ping/the-check/0?rid=")
    assert found[1] not in receiver.requests[3].path


def test_a_refused_manifest_pings_only_its_end(job: Job, receiver: Receiver) -> None:
    job.secret("hc.url", receiver.url)
    job.write(RULE)
    job.cli.write("m.csv", "uuid,name\nnonsense,x\n")
    job.run(code=3)
    assert [request.path.partition("?")[0] for request in receiver.requests] == ["/3"]


def test_a_test_leaves_the_state_of_the_check(job: Job, receiver: Receiver) -> None:
    job.secret("hc.url", receiver.url)
    job.write(RULE)
    job.cli("notify", "--test", "job.toml")
    assert [request.path.partition("?")[0] for request in receiver.requests] == ["/log"]
