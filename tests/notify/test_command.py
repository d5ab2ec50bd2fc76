"""`bulkimg notify --test`: one line for each address, exit 0, 1 or 2, and nothing is run."""

from tests.notify.conftest import Job
from tests.notify.receiver import Receiver, receiving


def test_every_address_gets_a_test_and_has_a_line(job: Job, receiver: Receiver) -> None:
    before = len(job.server.requests())
    job.secret("good.url", receiver.url)
    job.write('[[notify]]\nwebhook_file = "good.url"\n[[hook]]\nat = "before-run"\nrun = ["./missing"]\n')
    done = job.cli("notify", "--test", "job.toml")
    assert done.out == f"notify 1 (webhook_file {job.place / 'good.url'}): sent\n"
    assert receiver.kinds == ["notify.test"]
    assert receiver.requests[0].json()["data"]["job"] == "nightly"
    with receiving(404) as bad:
        job.secret("bad.url", f"{bad.url}/T0")
        rules = '[[notify]]\nwebhook_file = "good.url"\n[[notify]]\nwebhook_file = "bad.url"\n'
        job.write(rules)
        done = job.cli("notify", "--test", "job.toml", code=1)
        document = job.cli("notify", "--test", "job.toml", "--json", code=1).json()
    assert done.out.splitlines()[0].endswith("good.url): sent")
    assert done.out.splitlines()[1].endswith("bad.url): not sent: answered 404")
    assert "T0" not in done.out
    assert [(item["sent"], item["message"]) for item in document["addresses"]] == [(True, ""), (False, "answered 404")]
    assert len(job.server.requests()) == before
    assert not (job.place / "runs").exists()


def test_it_needs_a_job_with_addresses_and_the_word_test(job: Job, receiver: Receiver) -> None:
    job.write("")
    assert "has no [[notify]]" in job.cli("notify", "--test", "job.toml", code=2).err
    assert "is not a job file" in job.cli("notify", "--test", "m.csv", code=2).err
    assert "cannot be read" in job.cli("notify", "--test", "other.toml", code=2).err
    job.secret("hook.url", receiver.url)
    job.write('[[notify]]\nwebhook_file = "hook.url"\n')
    assert "add --test" in job.cli("notify", "job.toml", code=2).err
    assert receiver.requests == []
