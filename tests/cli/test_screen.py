"""The module that prints lets nothing through that a terminal or a log would obey."""

import json
import unicodedata

import pytest

from bulkimg.cli import screen
from bulkimg.cli.progress import Tally, Watcher
from bulkimg.engine.execute import Live
from bulkimg.model import Held, Outcome, Reopened, Retrying, Settled, Started, Status
from bulkimg.settings import Settings
from tests.conftest import corpus


def obeyed(text: str) -> list[str]:
    """Return the characters that a terminal obeys: controls but newline, separators, directions."""
    return [
        char
        for char in text
        if (char != "\n" and unicodedata.category(char) in {"Cc", "Zl", "Zp", "Cs"}) or char in "\u202e\u2066\ufeff"
    ]


def test_hostile_texts_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = json.loads(corpus("bulkimg-hostile/terminal_and_log.json").read_text("utf-8"))
    for text in hostile:
        screen.out(text)
        screen.note(text)
        screen.error(text)
    said = capsys.readouterr()
    assert obeyed(said.out) == []
    assert obeyed(said.err) == []
    assert all("\n" not in screen.one_line(text) for text in hostile)


def test_progress_counts_what_it_saw() -> None:
    now = 100.0
    requests = 100
    stats = Tally(lambda: now)
    stats.live = lambda: Live(requests, 50.0, 4, 16)
    stats.see(Started("r", "d", "t", 10, 10))
    stats.see(Retrying(3, "u", "HTTP_500", 1.0))
    now, requests = 102.0, 140
    stats.see(Settled([Outcome(1, 2, "u", Status.UPDATED), Outcome(2, 3, "u", Status.FAILED)]))
    sent = "1.0 rows/s, 20 requests/s (cap 50/s), 4 in flight"
    assert stats.line == f"2/10 rows, 0:08 left; {sent}; 1 failed, 1 waiting for a retry"
    stats.see(Settled([Outcome(3, 4, "u", Status.UNKNOWN), Outcome(4, 5, "u", Status.UPDATED)]))
    assert (stats.done, stats.troubles, stats.retrying) == (4, "1 failed, 1 unknown", 0)


def test_a_long_outage_is_a_few_lines_and_its_end_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watcher(Settings(progress="none"))
    for seconds in (1, 2.1, 3.9, 8, *(60 for _ in range(30))):
        watch(Held(seconds, "the server does not answer"))
    watch(Reopened(1860.2))
    watch(Held(1, "the server does not answer"))
    assert capsys.readouterr().err.splitlines() == [
        "the server does not answer; sending pauses for 1.0 s",
        "the server does not answer; sending pauses for 2.1 s",
        "the server does not answer; sending pauses for 8.0 s",
        "the server does not answer; sending pauses for 60.0 s",
        "the server answers again after 1860 s; sending resumes",
        "the server does not answer; sending pauses for 1.0 s",
    ]
