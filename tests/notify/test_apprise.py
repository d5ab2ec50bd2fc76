"""apprise: in a process of its own, without our credentials, its address on standard input.

A stand-in package is on PYTHONPATH, so that the tests need no network and see what the child gets. One test takes the
real package where it is installed.
"""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from bulkimg.notifications import NotifyRule
from bulkimg.notify import Attendants, by_apprise
from bulkimg.notify.message import Message
from tests.conftest import ROOT, Cli
from tests.notify.conftest import Job
from tests.notify.receiver import Receiver

STAND_IN = """
import json, os, sys, time
from pathlib import Path

class Apprise:
    def __init__(self):
        self.added = []
    def add(self, address):
        self.added.append(address)
        if address.startswith("sleep:"):
            time.sleep(300)
        (Path(__file__).parent / "checked.json").write_text(json.dumps(dict(os.environ)))
        return not address.startswith("unknown:")
    def notify(self, **what):
        place = Path(__file__).parent
        if "hang" in self.added[0]:
            time.sleep(300)
        print("apprise says", self.added)
        print("apprise complains about", self.added, file=sys.stderr)
        kept = {"added": self.added, "argv": sys.argv, "env": dict(os.environ), **what}
        (place / "sent.json").write_text(json.dumps(kept))
        return "refused" not in self.added[0]
"""
RULE = '[[notify]]\non = ["always"]\napprise_file = "chat.url"\n'


@pytest.fixture
def with_apprise(job: Job, cli: Cli, tmp_path: Path) -> Job:
    """Return the job of a command that has the stand-in."""
    place = tmp_path / "packages" / "apprise"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text(STAND_IN)
    path = f"{ROOT}{os.pathsep}{place.parent}"
    job.cli = Cli(job.place, {**job.cli.environment, "PYTHONPATH": path})
    job.write(RULE)
    return job


def sent(job: Job) -> dict[str, object]:
    found: dict[str, object] = json.loads((job.place / "packages" / "apprise" / "sent.json").read_text())
    return found


def test_a_message_goes_out_by_a_child_without_our_credentials(with_apprise: Job) -> None:
    job = with_apprise
    job.secret("chat.url", "# the team\nslack://token-a/b\n\nmailto://token-c")
    done = job.cli("run", "job.toml", CREDENTIALS_DIRECTORY=str(job.place), MINE="stays")
    found = sent(job)
    assert found["added"] == ["slack://token-a/b", "mailto://token-c"]
    assert found["title"] == "bulkimg nightly: finished, 2 updated"
    assert "2 updated" in str(found["body"])
    env = found["env"]
    assert isinstance(env, dict)
    assert env["MINE"] == "stays"
    assert [name for name in env if name.startswith("BULKIMG_") or name == "CREDENTIALS_DIRECTORY"] == []
    assert job.server.session not in json.dumps(found)
    assert "token" not in json.dumps(found["argv"])
    assert "token" not in done.err + done.out


def test_what_apprise_cannot_deliver_only_warns_without_the_address(with_apprise: Job) -> None:
    job = with_apprise
    job.secret("chat.url", "refused://token")
    done = job.run()
    assert "chat.url): not delivered: apprise could not deliver it" in done.err
    assert "token" not in done.err


def test_an_unknown_service_is_refused_before_the_start_without_the_address(with_apprise: Job) -> None:
    job = with_apprise
    job.write(f'{RULE}[[notify]]\non = ["always"]\napprise_file = "others.url"\n')
    job.secret("chat.url", "slack://token")
    job.secret("others.url", "slack://token\n# another\nunknown://token")
    before = len(job.server.puts())
    for words in (("run", "job.toml"), ("notify", "--test", "job.toml")):
        err = job.cli(*words, code=2, CREDENTIALS_DIRECTORY=str(job.place)).err
        assert (
            f"job.toml:11: [[notify]] apprise_file {job.place / 'others.url'}: apprise does not know the service" in err
        )
        assert "of address 2," in err
        assert len(err.strip().splitlines()) == 1
        assert "token" not in err
    assert len(job.server.puts()) == before
    assert not (job.place / "runs").exists()
    seen = json.loads((job.place / "packages" / "apprise" / "checked.json").read_text())
    assert [name for name in seen if name.startswith("BULKIMG_") or name == "CREDENTIALS_DIRECTORY"] == []


def test_a_plan_and_a_run_without_a_rule_of_apprise_start_no_process_for_it(with_apprise: Job) -> None:
    job = with_apprise
    job.secret("chat.url", "unknown://token")
    job.cli("plan", "job.toml")
    job.write("")
    job.run()
    assert not (job.place / "packages" / "apprise" / "checked.json").exists()


def test_an_address_that_cannot_be_checked_in_time_is_a_warning(
    with_apprise: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setattr(by_apprise, "START_UP", 0.5)
    path = with_apprise.place / with_apprise.secret("chat.url", "sleep://token")
    attendants = Attendants([NotifyRule(apprise_file=path)])
    assert [(doubt.what, doubt.why) for doubt in attendants.doubts] == [
        (f"notify 1 (apprise_file {path})", "the address could not be checked: apprise did not answer within 0.5 s")
    ]


def test_a_check_that_fails_is_told_once_and_the_run_goes_its_way(with_apprise: Job) -> None:
    job = with_apprise
    (job.place / "packages" / "apprise" / "__init__.py").write_text("raise RuntimeError('token')")
    job.secret("chat.url", "slack://token")
    err = job.run().err
    assert err.count("the address could not be checked: apprise failed (exit code 1)") == 1
    assert "token" not in err


async def test_an_apprise_that_hangs_is_stopped(
    with_apprise: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setattr(by_apprise, "START_UP", 0.5)
    why = await by_apprise.send("hang://x", Message("k", "t", "b", {}, 0.0), 0.5)
    assert why == "apprise did not end within 1 s and was stopped"


def test_a_file_without_addresses_is_refused(with_apprise: Job) -> None:
    job = with_apprise
    job.secret("chat.url", "token without scheme")
    err = job.run(code=2).err
    assert "chat.url does not hold addresses of apprise" in err
    assert "token" not in err


@pytest.mark.skipif(importlib.util.find_spec("apprise") is not None, reason="apprise is installed")
def test_without_apprise_a_run_is_refused_and_says_how_to_install_it(job: Job) -> None:
    job.write(RULE)
    job.secret("chat.url", "slack://token")
    before = len(job.server.puts())
    err = job.run(code=2).err
    assert "needs apprise, which is not installed" in err
    assert "uv tool install '.[notify]'" in err
    assert len(job.server.puts()) == before


@pytest.mark.skipif(importlib.util.find_spec("apprise") is None, reason="apprise is not installed")
def test_the_real_apprise_delivers(job: Job, receiver: Receiver) -> None:
    job.write(RULE)
    job.secret("chat.url", receiver.url.replace("http://", "json://"))
    job.run()
    assert receiver.requests[0].json()["title"] == "bulkimg nightly: finished, 2 updated"


@pytest.mark.skipif(importlib.util.find_spec("apprise") is None, reason="apprise is not installed")
def test_the_real_apprise_is_asked_for_a_misspelt_service_before_the_start(job: Job) -> None:
    job.write(RULE)
    job.secret("chat.url", "slakc://token/x")
    err = job.run(code=2).err
    assert "apprise does not know the service of its address" in err
    assert "token" not in err
