"""Answers → verdicts: docs/dev/protocol.md §3.2 row by row, and totality over everything a server may say."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkimg.applier.decide import unknown
from bulkimg.applier.judge import Next, judge_poll, judge_read, judge_update, message_of
from bulkimg.model import Claim, Status
from bulkimg.zstack.rules import CODES, STATUSES, Move, rule_for_status
from bulkimg.zstack.wire import Answer
from tests.conftest import UUID

JOB = "f" * 32
OTHER = "e" * 32
CLAIM = Claim(1, 2, UUID, {"name": " new ", "virtio": True, "userTags": ["a"]}, 1, JOB)


def answer(status: int, body: Any, retry_after: float | None = None) -> Answer:
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer(status, raw, retry_after)


def error(code: str, details: str = "") -> dict[str, Any]:
    return {"error": {"code": code, "description": "something", "details": details}}


def image(**fields: Any) -> dict[str, Any]:
    return {"inventory": {"uuid": UUID, **fields}}


def put(status: int, body: Any, retry_after: float | None = None) -> tuple[Next, Status | None, str]:
    verdict = judge_update(answer(status, body, retry_after), CLAIM)
    return verdict.next, verdict.status, verdict.code


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, image(name="new", virtio=True), (Next.SETTLED, Status.UPDATED, "")),
        (200, image(name="new"), (Next.SETTLED, Status.UPDATED, "")),
        (200, image(name=" new "), (Next.READ, Status.DRIFTED, "DRIFTED")),
        (200, image(name="new", virtio="true"), (Next.READ, Status.DRIFTED, "DRIFTED")),
        (200, {"inventory": {"uuid": OTHER, "name": "new"}}, (Next.ASK, None, "NOT_BOUND")),
        (200, {"inventory": None}, (Next.ASK, None, "NOT_BOUND")),
        (200, {**image(name="new"), **error("SYS.1000")}, (Next.ASK, None, "NOT_BOUND")),
        (200, "", (Next.ASK, None, "NOT_BOUND")),
        (200, "<html>login</html>", (Next.ASK, None, "NOT_BOUND")),
        (200, b'{"inventory":{"uuid":"' + UUID.encode() + b'","name":"new"', (Next.ASK, None, "NOT_BOUND")),
        (202, {"location": f"http://h/zstack/v1/api-jobs/{JOB}"}, (Next.WAIT, None, "")),
        (202, {"location": f"http://h/zstack/v1/api-jobs/{OTHER}"}, (Next.ASK, None, "NOT_BOUND")),
        (202, {}, (Next.ASK, None, "NOT_BOUND")),
        (204, "", (Next.ASK, None, "HTTP_204")),
        (302, "", (Next.ASK, None, "HTTP_302")),
        (
            400,
            "the body doesn't contain action mapping to the URL[/v1/images/x/actions]",
            (Next.OTHER_KEY, None, "NO_SUCH_ACTION"),
        ),
        (400, f"Duplicate job uuid[{JOB}]", (Next.ASK, None, "DUPLICATE_JOB")),
        (400, "missing header 'Authorization'", (Next.HALT, None, "NO_AUTHORIZATION")),
        (400, "Invalid value for boolean field [system]", (Next.ASK, Status.FAILED, "HTTP_400")),
        (401, "", (Next.RENEW, None, "HTTP_401")),
        (403, "requestTimeTooSkewed", (Next.HALT, None, "CLOCK_SKEW")),
        (403, "wrong accessKey signature", (Next.HALT, None, "ACCESS_KEY")),
        (403, "no", (Next.ASK, Status.FAILED, "HTTP_403")),
        (404, "no api mapping to /v1/images/x/actions", (Next.HALT, None, "NO_SUCH_PATH")),
        (404, "gone", (Next.ASK, Status.FAILED, "HTTP_404")),
        (429, "", (Next.AGAIN, None, "HTTP_429")),
        (500, "boom", (Next.AGAIN, None, "HTTP_500")),
        (502, "<html>", (Next.AGAIN, None, "HTTP_502")),
        (503, "<html>", (Next.AGAIN, None, "HTTP_503")),
        (503, error("SYS.1003", f"resource[uuid:{UUID}]"), (Next.SETTLED, Status.FAILED, "SYS.1003")),
        (503, error("SYS.1007"), (Next.ASK, Status.FAILED, "SYS.1007")),
        (503, error("ID.1001"), (Next.RENEW, None, "ID.1001")),
        (503, error("ID.1000"), (Next.HALT, None, "ID.1000")),
        (503, error("SYS.1000"), (Next.AGAIN, None, "SYS.1000")),
        (503, error("NEW.42"), (Next.ASK, Status.FAILED, "NEW.42")),
        (503, error("SYS.1003", f"resource[uuid:{OTHER}, type:ImageVO] not found"), (Next.ASK, None, "NOT_BOUND")),
    ],
)
def test_answers_to_a_put(status: int, body: Any, expected: tuple[Next, Status | None, str]) -> None:
    assert put(status, body) == expected


def test_a_refusal_is_not_a_try_later_even_with_retry_after() -> None:
    """503 with a JSON error is the normal answer for a business failure (docs/dev/reliability.md F5)."""
    assert put(503, error("SYS.1003", f"image {UUID}"), 30.0) == (Next.SETTLED, Status.FAILED, "SYS.1003")


def test_a_refusal_that_names_nobody_is_kept_and_asked_about() -> None:
    """It may be a proxy's page, or the answer to another row (docs/dev/reliability.md F3)."""
    assert put(400, "Invalid value")[:2] == (Next.ASK, Status.FAILED)
    assert put(503, error("SYS.1003", f"resource[uuid:{UUID}]"))[:2] == (Next.SETTLED, Status.FAILED)


def test_what_a_server_says_is_made_safe_to_show_and_to_keep() -> None:
    """A code that is a formula, texts with escapes, absurd values as evidence."""
    verdict = judge_update(answer(503, error("=HYPERLINK(1)\x1b", "a\x1b[2J\u202eb")), CLAIM)
    assert (verdict.code, verdict.message) == ("?HYPERLINK?1??", "something — a [2J b")
    shown = judge_update(Answer(200, b'{"inventory":{"uuid":"%s","name":1e999}}' % UUID.encode()), CLAIM)
    assert (shown.status, shown.after) == (Status.DRIFTED, {"name": "inf"})
    big = judge_update(answer(200, image(name="x" * 10_000_000)), CLAIM)
    assert big.after is not None
    assert len(str(big.after["name"])) == 4096


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (503, "<html><body>the proxy is not well</body></html>", '503 from a proxy ("the proxy is not well")'),
        (502, "<html>", "502 from a proxy"),
        (500, "<html><title>Tomcat</title>x</html>", '500 with a web page ("Tomcat")'),
        (503, "busy", "busy"),
        (503, "", "HTTP 503"),
    ],
)
def test_a_page_is_said_by_its_title(status: int, body: str, message: str) -> None:
    verdict = judge_update(answer(status, body), CLAIM)
    assert verdict.message == message
    assert unknown(verdict).message == f"{message}; outcome not known"


def test_fields_that_the_answer_does_not_carry_are_named() -> None:
    verdict = judge_update(answer(200, image(name="new")), CLAIM)
    assert message_of(verdict) == "not confirmed (missing from the answer): virtio, userTags"
    assert verdict.after == {"name": "new"}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, image(name="new", virtio=True), (Next.SETTLED, Status.UPDATED)),
        (200, {}, (Next.READ, None)),
        (200, {"inventory": {"uuid": OTHER}}, (Next.READ, None)),
        (202, {}, (Next.WAIT, None)),
        (404, "the job has been expired", (Next.READ, None)),
        (503, error("SYS.1003", f"resource[uuid:{UUID}, type:ImageVO]"), (Next.SETTLED, Status.FAILED)),
        (503, error("SYS.1003", f"resource[uuid:{OTHER}, type:ImageVO]"), (Next.READ, None)),
        (503, error("ID.1001"), (Next.RENEW, None)),
        (503, error("SYS.1001"), (Next.AGAIN, None)),
        (503, "<html>", (Next.WAIT, None)),
        (429, "", (Next.WAIT, None)),
        (302, "", (Next.READ, None)),
    ],
)
def test_answers_to_a_poll(status: int, body: Any, expected: tuple[Next, Status | None]) -> None:
    verdict = judge_poll(answer(status, body), CLAIM)
    assert (verdict.next, verdict.status) == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"inventories": [{"uuid": UUID, "name": "new", "virtio": True}]}, (Next.SETTLED, Status.UPDATED)),
        (200, {"inventories": [{"uuid": UUID, "name": "old", "virtio": True}]}, (Next.NOT_APPLIED, None)),
        (200, {"inventories": [{"uuid": OTHER, "name": "new"}]}, (Next.CANNOT_TELL, None)),
        (200, {"inventories": []}, (Next.SETTLED, Status.FAILED)),
        (200, {"inventories": [{"uuid": UUID}]}, (Next.NOT_SHOWN, None)),
        (200, {"inventories": [{"uuid": UUID, "name": "new"}]}, (Next.NOT_SHOWN, None)),
        (404, "no api mapping", (Next.CANNOT_TELL, None)),
        (503, error("ID.1001"), (Next.RENEW, None)),
    ],
)
def test_reading_the_image(status: int, body: Any, expected: tuple[Next, Status | None]) -> None:
    verdict = judge_read(answer(status, body), CLAIM)
    assert (verdict.next, verdict.status) == expected


@given(
    st.integers(100, 999),
    st.binary(max_size=200)
    | st.sampled_from([b"{}", b"[]", json.dumps(error("X")).encode(), json.dumps(image()).encode()]),
    st.none() | st.floats(0, 1e6),
)
def test_judging_is_total_and_never_finds_success_without_the_image(
    status: int, raw: bytes, after: float | None
) -> None:
    given_ = Answer(status, raw, after)
    for verdict in (
        judge_update(given_, CLAIM),
        judge_poll(given_, CLAIM),
        judge_read(given_, CLAIM),
    ):
        assert verdict.next is not Next.SETTLED or verdict.status is not None
        if verdict.status in (Status.UPDATED, Status.DRIFTED):
            assert status == 200
            assert UUID.encode() in raw


def test_every_status_has_a_rule() -> None:
    moves = {status: rule_for_status(status).move for status in range(100, 1000)}
    assert {moves[s] for s in (*range(100, 200), *range(201, 400), *range(600, 1000))} == {Move.ASK}
    assert set(STATUSES) <= set(moves)
    assert all(rule.hint or rule.move is Move.RENEW for rule in CODES.values())


def test_lost_answers_are_asked_about_and_unsent_ones_are_sent_again() -> None:
    lost = judge_update(Answer(None, failure="TIMEOUT", sent=True), CLAIM)
    unsent = judge_update(Answer(None, failure="NOT_CONNECTED", sent=False), CLAIM)
    assert (lost.next, lost.maybe_applied, unsent.next, unsent.maybe_applied) == (Next.ASK, True, Next.AGAIN, False)
