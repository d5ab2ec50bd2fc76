"""Retry-After: seconds and the three date forms of RFC 9110, nothing else."""

import json

import pytest

from bulkimg.zstack.limits import parse_rate_limit, parse_retry_after
from tests.conftest import corpus

NOW = 1_795_435_200.0  # 2026-11-23 12:00:00 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 5 ", 5),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30),
        ("Mon Nov 23 12:00:30 2026", 30),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Friday, 31-Dec-99 23:59:59 GMT", 0),
        ("-1", None),
        ("+5", None),
        ("1e3", None),
        ("5.5", None),
        ("0x10", None),
        ("\u0665", None),
        ("5, 10", None),
        ("Wed, 30 Feb 2050 00:00:00 GMT", None),
        ("Mon, 23 Nov 2026 12:00:30 +0900", None),
        ("", None),
    ],
)
def test_forms(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


def test_the_corpus_never_crashes_and_never_goes_back_in_time() -> None:
    for text in json.loads(corpus("bulkimg-hostile/retry_after.json").read_text("utf-8")):
        seconds = parse_retry_after(text, NOW)
        assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"RateLimit": '"default";r=0;t=30'}, (0, 30.0)),
        ({"RateLimit": '"burst";r=7;t=2, "daily";r=3;t=4000'}, (3, 4000.0)),
        ({"RateLimit": "limit=100, remaining=5, reset=9"}, (5, 9.0)),
        ({"RateLimit": "nonsense"}, None),
        ({"RateLimit": '"x";r=-1;t=5'}, None),
        ({"RateLimit-Limit": "10", "RateLimit-Remaining": "1", "RateLimit-Reset": "7"}, (1, 7.0)),
        ({"RateLimit-Remaining": "1"}, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"}, (0, 60.0)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795435260"}, (0, 60.0)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795435100"}, (0, 0.0)),
        ({"X-RateLimit-Remaining": "none", "X-RateLimit-Reset": "5"}, None),
        ({"X-RateLimit-Remaining": "\u0665", "X-RateLimit-Reset": "5"}, None),
        ({"X-RateLimit-Remaining": "9" * 400, "X-RateLimit-Reset": "5"}, None),
    ],
)
def test_rate_limit_headers_in_all_their_shapes(headers: dict[str, str], expected: tuple[int, float] | None) -> None:
    assert parse_rate_limit(headers, 1_795_435_200.0) == expected
