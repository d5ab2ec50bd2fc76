"""The decisions after each step: by tables, and for every possible verdict."""

import json
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkimg.applier.decide import (
    JOB_LOST,
    NOTHING,
    Decision,
    Known,
    Resolve,
    Retry,
    Settle,
    Step,
    Stop,
    decide,
    first_step,
    give_up,
)
from bulkimg.applier.health import Paced
from bulkimg.applier.judge import Next, Verdict, is_clean, is_plain, judge_update, message_of
from bulkimg.credentials import Session
from bulkimg.model import Claim, Fields, Status
from bulkimg.pace import Pace
from bulkimg.zstack import Answer, ImageApi, Transport, make_auth

UUID, JOB = "1" * 32, "2" * 32
CLAIM = Claim(1, 2, UUID, {"name": "a"}, 1, JOB)
TAGGED = CLAIM._replace(fields={"name": "a", "userTags": ["t"]})
UPDATED = Verdict(Next.SETTLED, Status.UPDATED, http_status=200)
REFUSED = Verdict(Next.SETTLED, Status.FAILED, "SYS.1006", http_status=503, from_server=True)
LOST = Verdict(Next.ASK, code="NO_ANSWER", maybe_applied=True)
AGAIN = Verdict(Next.AGAIN, code="SYS.1000", maybe_applied=True, from_server=True)
RUNNING = Verdict(Next.WAIT, http_status=202)
NO_RESULT = Verdict(Next.READ, code="NO_RESULT", maybe_applied=True, job_used=True)
GONE = Verdict(Next.READ, code="JOB_NOT_KNOWN", http_status=404, maybe_applied=True, job_used=True)
SILENT = Verdict(Next.WAIT, code="NO_ANSWER")
OTHER = Verdict(Next.NOT_APPLIED, http_status=200, message="the image shows other values in name")
UNREADABLE = Verdict(Next.CANNOT_TELL)
DEAD = Verdict(Next.HALT, code="LOGIN_REFUSED")


def known(so_far: Verdict = NOTHING, claim: Claim = CLAIM, **more: Any) -> Known:
    return Known(claim, so_far, **more)


def short(decision: Decision) -> tuple[Any, ...]:
    match decision:
        case Resolve(step, _, last_try):
            return ("resolve", step, last_try is not None)
        case Settle(verdict):
            return ("settle", verdict.status)
        case Retry(verdict):
            return ("retry", verdict.next)
        case Stop(verdict):
            return ("stop", verdict.code)


TABLE: list[tuple[str, Known, Step, Verdict, tuple[Any, ...]]] = [
    ("an answer that shows everything", known(), Step.PUT, UPDATED, ("settle", Status.UPDATED)),
    ("a refusal", known(), Step.PUT, REFUSED, ("settle", Status.FAILED)),
    ("a lost answer is asked about", known(), Step.PUT, LOST, ("resolve", Step.ASK, False)),
    ("a job is waited for", known(), Step.PUT, RUNNING, ("resolve", Step.WAIT, False)),
    ("another value is read again", known(), Step.PUT, NO_RESULT, ("resolve", Step.READ, False)),
    ("a temporary error is tried again", known(), Step.PUT, AGAIN, ("retry", Next.AGAIN)),
    ("nothing can succeed", known(), Step.PUT, DEAD, ("stop", "LOGIN_REFUSED")),
    ("a refusal after a try in doubt", known(maybe_applied=True), Step.PUT, REFUSED, ("resolve", Step.ASK, True)),
    ("fields that no answer carried", known(), Step.PUT, UPDATED._replace(unconfirmed=("name",)),
     ("resolve", Step.CONFIRM, False)),
    ("the same where nothing can be read", known(can_read=False), Step.PUT, UPDATED._replace(unconfirmed=("name",)),
     ("settle", Status.UPDATED)),
    ("tags", known(claim=TAGGED), Step.PUT, UPDATED, ("resolve", Step.TAGS, False)),
    ("tags after the other fields", known(claim=TAGGED), Step.CONFIRM, UPDATED, ("resolve", Step.TAGS, False)),
    ("tags that are there", known(claim=TAGGED), Step.TAGS, UPDATED, ("settle", Status.UPDATED)),
    ("fields that drifted", known(claim=TAGGED), Step.CONFIRM, UPDATED._replace(status=Status.DRIFTED),
     ("settle", Status.DRIFTED)),
    ("the job still runs", known(LOST), Step.ASK, RUNNING, ("resolve", Step.WAIT, False)),
    ("nobody knows the job", known(LOST), Step.ASK, GONE, ("resolve", Step.READ, False)),
    ("a refusal that never became a job", known(REFUSED, jobs_exist=True), Step.ASK, GONE, ("settle", Status.FAILED)),
    ("a refusal where there are no jobs", known(REFUSED), Step.ASK, GONE, ("resolve", Step.READ, False)),
    ("the job cannot be asked", known(LOST), Step.ASK, SILENT, ("resolve", Step.READ, False)),
    ("the job's result", known(), Step.WAIT, UPDATED, ("settle", Status.UPDATED)),
    ("no result in time", known(), Step.WAIT, JOB_LOST, ("resolve", Step.READ, False)),
    ("the image shows the change", known(LOST), Step.READ, UPDATED, ("settle", Status.UPDATED)),
    ("the image shows another value", known(LOST), Step.READ, OTHER, ("retry", Next.AGAIN)),
    ("another value while the job may still come", known(JOB_LOST), Step.READ, OTHER, ("settle", Status.UNKNOWN)),
    ("nothing can be read: the row is sent again", known(LOST), Step.READ, UNREADABLE, ("retry", Next.AGAIN)),
    ("a refusal in doubt stands", known(REFUSED), Step.READ, OTHER, ("settle", Status.FAILED)),
    ("no session to read with", known(LOST), Step.READ, DEAD, ("stop", "LOGIN_REFUSED")),
    ("the last look finds it", known(LOST, last_try=REFUSED), Step.READ, UPDATED, ("settle", Status.UPDATED)),
    ("the last look finds nothing", known(LOST, last_try=AGAIN), Step.READ, UNREADABLE, ("settle", Status.UNKNOWN)),
    ("the server refused the last try, and no earlier one is in doubt", known(AGAIN, last_try=AGAIN), Step.READ, OTHER,
     ("settle", Status.FAILED)),
    ("the same with an earlier one in doubt", known(AGAIN, last_try=AGAIN, maybe_applied=True), Step.READ, OTHER,
     ("settle", Status.UNKNOWN)),
    ("after a crash, a server that is not there", known(claim=CLAIM._replace(interrupted=True), reached=False), Step.READ,
     UNREADABLE, ("stop", "NOT_CONNECTED")),
]  # fmt: skip


@pytest.mark.parametrize(("case", "what", "step", "verdict", "follows"), TABLE, ids=[row[0] for row in TABLE])
def test_what_follows(case: str, what: Known, step: Step, verdict: Verdict, follows: tuple[Any, ...]) -> None:
    assert short(decide(what, step, verdict)) == follows


def test_a_row_that_an_earlier_process_left_open_is_asked_about_before_it_is_sent() -> None:
    assert first_step(CLAIM).step is Step.PUT
    assert first_step(CLAIM._replace(interrupted=True)).step is Step.ASK


def test_giving_up_is_failed_only_where_nothing_may_have_been_applied() -> None:
    refused = AGAIN._replace(maybe_applied=False)
    assert short(give_up(known(), refused)) == ("settle", Status.FAILED)
    assert short(give_up(known(), AGAIN)) == ("resolve", Step.ASK, True)
    assert short(give_up(known(maybe_applied=True), refused)) == ("resolve", Step.ASK, True)


STATUSES = (None, Status.UPDATED, Status.FAILED, Status.UNKNOWN, Status.DRIFTED)
CLAIMS = (CLAIM, TAGGED, CLAIM._replace(interrupted=True), CLAIM._replace(before={"name": "b"}))
ORDER = list(Step)


def is_so(rng: random.Random) -> bool:
    return rng.random() < 0.5


def any_verdict(rng: random.Random) -> Verdict:
    return Verdict(
        rng.choice(list(Next)),
        rng.choice(STATUSES),
        rng.choice(("", "NO_ANSWER", "JOB_TIMEOUT")),
        "",
        "",
        rng.choice((None, 200, 202, 404, 503)),
        is_so(rng),
        is_so(rng),
        is_so(rng),
        is_so(rng),
        unconfirmed=rng.choice(((), ("name",))),
    )


def any_situation(rng: random.Random) -> Known:
    return Known(
        rng.choice(CLAIMS),
        JOB_LOST if rng.random() < 0.2 else any_verdict(rng),
        any_verdict(rng) if is_so(rng) else None,
        is_so(rng),
        is_so(rng),
        is_so(rng),
        is_so(rng),
    )


def test_every_way_goes_forward() -> None:
    """No row goes round in circles: the next step is a later one, or it begins the last recheck.

    The cases are small choices without an order, so that a seed finds more of them in a second than hypothesis does.
    """
    rng = random.Random(1)
    for _ in range(20_000):
        what, step = any_situation(rng), rng.choice(ORDER)
        verdict = JOB_LOST if rng.random() < 0.2 else any_verdict(rng)
        decision = decide(what, step, verdict)
        case = (what, step, verdict, decision)
        assert isinstance(decision, get_args(Decision)), case
        if isinstance(decision, Resolve):
            begins_last_look = decision.last_try is not None and what.last_try is None
            assert begins_last_look or ORDER.index(decision.step) > ORDER.index(step), case
        if isinstance(decision, Settle):
            assert decision.verdict.status is not None or verdict.status is None, case


# -- the straight line ------------------------------------------------------------------------------------------------


class Recorder:
    """Keep what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, request: bytes, begin: Callable[[], Awaitable[bool]]) -> Answer:
        assert await begin()
        self.sent.append(request)
        return Answer(200)

    async def close(self) -> None:
        pass


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
FIELDS = st.fixed_dictionaries(
    {"name": TEXTS},
    optional={
        "description": TEXTS,
        "platform": st.sampled_from(["Linux", "Windows"]),
        "architecture": st.just("x86_64"),
        "virtio": st.booleans(),
        "userTags": st.just(["t"]),
    },
)
CHANGED: st.SearchStrategy[Any] = st.none() | st.sampled_from(["", " ", "other", True, False, 1, 0, None, [], {}, 1.0])


def claim_of(fields: Fields, **more: Any) -> Claim:
    return CLAIM._replace(fields=fields, text=json.dumps(fields, ensure_ascii=False, separators=(",", ":")), **more)


@settings(max_examples=500, deadline=None)
@given(
    fields=FIELDS,
    changed=st.dictionaries(st.sampled_from(["uuid", "name", "virtio", "platform"]), CHANGED, max_size=2),
    missing=st.sets(st.sampled_from(["uuid", "name", "virtio"]), max_size=1),
    status=st.sampled_from([200, 200, 200, 202, 503, 404]),
    raw=st.none() | st.binary(max_size=20),
    before=st.booleans(),
)
def test_the_straight_line_and_the_general_way_agree(
    fields: Fields, changed: dict[str, Any], missing: set[str], status: int, raw: bytes | None, *, before: bool
) -> None:
    """What the straight line settles as `updated`, the general way settles as exactly that, in one step."""
    claim = claim_of(fields, before={"name": "old"} if before else None)
    inventory = {key: value for key, value in {"uuid": UUID, **fields, **changed}.items() if key not in missing}
    answer = Answer(status, json.dumps({"inventory": inventory}).encode() if raw is None else raw)
    if not is_plain(claim) or not is_clean(answer, claim):
        return
    decision = decide(known(claim=claim), Step.PUT, judge_update(answer, claim))
    assert isinstance(decision, Settle)
    verdict = decision.verdict
    assert verdict == Verdict(Next.SETTLED, Status.UPDATED, http_status=200, after=claim.fields)
    assert message_of(verdict) == ""


def test_an_answer_that_shows_all_of_a_plain_row_is_clean() -> None:
    """So the property above is not empty."""
    claim = claim_of({"name": "a", "virtio": True})
    answer = Answer(200, json.dumps({"inventory": {"uuid": UUID, "name": "a", "virtio": True, "url": "x"}}).encode())
    assert is_plain(claim)
    assert is_clean(answer, claim)


@pytest.mark.parametrize(
    "claim",
    [
        claim_of({"name": " a"}),
        claim_of({"name": "é"}),
        claim_of({"userTags": ["t"]}),
        claim_of({"architecture": "x86_64"}, before={}),
        claim_of({"name": "a"}, interrupted=True),
        claim_of({"name": "a"}, doubtful=True),
        CLAIM,
    ],
)
def test_what_is_not_plain_takes_the_general_way(claim: Claim) -> None:
    assert not is_plain(claim)


@settings(max_examples=200, deadline=None)
@given(fields=FIELDS)
async def test_both_ways_send_the_same_bytes(fields: Fields) -> None:
    claim = claim_of(fields)
    if not is_plain(claim):
        return
    client = Recorder()
    transport = Transport(client, "http://node:8080/zstack", Paced(Pace(math.inf, 1)))
    api = ImageApi(transport, make_auth(Session("5" * 32), transport, lambda: 0.0), "updateImage")
    await api.update_plain(await api.admit(), claim)
    await api.update(await api.admit(), claim.uuid, claim.fields, claim.job_uuid)
    assert client.sent[0] == client.sent[1]
