"""The health that an answer shows: only failures that every request would meet are the server's."""

from typing import Any

import pytest

from bulkimg.applier.health import health_of
from bulkimg.pace import State
from bulkimg.zstack import Answer
from tests.applier.test_judge import answer, error


@pytest.mark.parametrize(
    ("given", "state", "wait"),
    [
        (answer(200, {}), State.WELL, None),
        (answer(202, {}), State.WELL, None),
        (answer(404, "the job has been expired"), State.WELL, None),
        (answer(400, "no"), State.WELL, None),
        (answer(503, error("SYS.1003")), State.WELL, None),
        (answer(503, error("SYS.1000")), State.WELL, None),
        (answer(503, error("SYS.1003"), 30.0), State.WELL, None),
        (answer(503, error("SYS.1010")), State.WELL, None),
        (answer(501, "no"), State.WELL, None),
        (answer(500, "boom"), State.SICK, None),
        (answer(502, "<html>"), State.SICK, None),
        (answer(503, "busy"), State.SICK, None),
        (answer(503, "busy", 7.0), State.ASKED, 7.0),
        (answer(429, ""), State.ASKED, None),
        (answer(429, "", 3.0), State.ASKED, 3.0),
        (Answer(429, quota=(0, 9.0)), State.ASKED, 9.0),
        (Answer(None, failure="NOT_CONNECTED", sent=False), State.SICK, None),
        (Answer(None, failure="TIMEOUT"), State.SICK, None),
        (Answer(None, failure="ANSWER_CUT"), State.SICK, None),
        (Answer(None, failure="TLS", sent=False), State.SILENT, None),
        (Answer(None, failure="BODY_TOO_LARGE"), State.SILENT, None),
        (None, State.SILENT, None),
    ],
)
def test_how_the_server_is(given: Any, state: State, wait: float | None) -> None:
    found = health_of(given)
    assert (found.state, found.wait) == (state, wait)


def test_what_is_left_of_a_quota_goes_with_a_good_answer() -> None:
    assert health_of(Answer(200, quota=(3, 9.0))).quota == (3, 9.0)
