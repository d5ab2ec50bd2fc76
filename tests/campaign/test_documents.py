"""What `--json` prints of a campaign is on the page of JSON documents, and is what its schema says."""

import json
import re

from bulkimg.report.documents import CampaignDocument, CampaignStatusDocument
from tests.campaign.jobs import NAMES
from tests.conftest import Cli
from tests.docs.test_reference import section

SLOW = ("--rate", "10/s", "--max-duration", "900ms")


def named(heading: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", section("reference/json.md", heading)))


def test_every_document_of_a_campaign_is_on_the_page(ready: Cli) -> None:
    ends = {
        "plan": ready("plan", "job.toml", "--run-id", "p", "--json").json(),
        "run": ready("run", "job.toml", "--run-id", "c", "--json", *SLOW, code=6).json(),
        "resume": ready("resume", "c", "--json", "--max-duration", "1m", "--rate", "unlimited").json(),
        "undo": ready("undo", "c", "--json").json(),
    }
    ready("run", "job.toml", "--run-id", "d", *SLOW, code=6)
    ends["retry"] = ready("retry", "d", "--json", "--max-duration", "1m", "--rate", "unlimited").json()
    now = ready("status", "c", "--json").json()
    others = [
        ready("verify", "c", "--json").json(),  # d wrote the same
        ready("results", "c", "--out", "all.csv", "--json").json(),
        ready("report", "c", "--json").json(),
    ]
    known = named("Campaign")
    for document in (*ends.values(), now, *others):
        assert {"schema", "campaign"} <= set(document)
        assert set(document) <= known
        assert all(set(each) <= known for each in document.get("targets", ()))
    for document in ends.values():
        CampaignDocument.model_validate(document)  # its schema is made of it
        assert [each["target"] for each in document["targets"]] == list(NAMES)
    CampaignStatusDocument.model_validate(now)
    assert {kind: (end["kind"], end["of"]) for kind, end in ends.items()} == {
        "plan": ("run", None),
        "run": ("run", None),
        "resume": ("run", None),
        "undo": ("undo", "c"),
        "retry": ("retry", "d"),
    }
    assert all(each["changes"] for each in ends["plan"]["targets"])
    nothing = ready("retry", "c", "--json").json()
    assert set(nothing) == {"schema", "exit_code", "message"}
    assert nothing["message"].count("nothing to retry") == len(NAMES)


def test_the_summary_event_is_the_end_of_the_campaign(ready: Cli) -> None:
    done = ready("run", "job.toml", "--log-format", "json")
    last = json.loads(done.err.splitlines()[-1])
    assert last["event"] == "summary"
    assert {*last} - {"at", "event", "message"} == set(ready("run", "job.toml", "--json").json())
