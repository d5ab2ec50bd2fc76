"""Secrets in what a server said: redacted in every usual encoding, at a cut too; what holds none stays the same object."""

import base64
import json
from urllib.parse import quote

import pytest

from bulkimg.model import HIDDEN
from bulkimg.zstack.redaction import Redactor
from bulkimg.zstack.wire import Answer

SECRET = 'p"ss wörd/hunter22'


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.add_secret(SECRET)
    return made


@pytest.mark.parametrize(
    "code",
    [
        SECRET,
        SECRET.upper(),
        quote(SECRET, safe=""),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        "".join(f"\\u{ord(char):04x}" for char in SECRET),
    ],
)
def test_a_secret_is_redacted_in_each_of_its_encodings(redactor: Redactor, code: str) -> None:
    said = redactor.text(f"before {code} after")
    assert said.startswith("before ")
    assert HIDDEN in said
    assert "hunter22" not in said.lower()


@pytest.mark.parametrize("kept", range(4, len(SECRET)))
def test_the_beginning_of_a_secret_at_a_cut_is_redacted(redactor: Redactor, kept: int) -> None:
    """Messages are cut at so many characters: the cut may go through a secret."""
    assert redactor.text(f"it is {SECRET[:kept]}") == f"it is {HIDDEN}"


def test_values_are_redacted_however_deep(redactor: Redactor) -> None:
    value = {"name": f"x {SECRET}", "tags": [SECRET, "t"], "flag": True, "size": 3, "none": None}
    assert redactor.value(value) == {
        "name": f"x {HIDDEN}",
        "tags": [HIDDEN, "t"],
        "flag": True,
        "size": 3,
        "none": None,
    }


def test_what_holds_no_secret_is_the_same_object(redactor: Redactor) -> None:
    raw, text = b'{"name": "p"}', "a text with a p"
    assert redactor.raw(raw) is raw
    assert redactor.text(text) is text


def test_an_answer_is_redacted_in_body_and_location(redactor: Redactor) -> None:
    answer = redactor.answer(Answer(302, SECRET.encode(), location=f"http://x/?p={quote(SECRET)}"))
    assert "hunter22" not in f"{answer}"


def test_short_words_are_no_secrets() -> None:
    redactor = Redactor()
    redactor.add_secret("abc")
    assert redactor.text("abc") == "abc"
