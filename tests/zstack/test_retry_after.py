"""Retry-After: seconds and the three date forms of RFC 9110, nothing else."""

import json

import pytest

from bulkimg.zstack.retry_after import parse_retry_after
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
