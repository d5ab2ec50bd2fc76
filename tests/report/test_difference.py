"""The part of two texts that differs, and texts with hidden characters escaped."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkimg.report.difference import clean, common, shown, units


def marked(before: str, after: str) -> tuple[str, str] | None:
    """Return both texts with the differing part in brackets."""
    cut = common(before, after)
    if cut is None:
        return None
    head, tail = cut
    texts = (f"{text[:head]}[{text[head : len(text) - tail]}]{text[len(text) - tail :]}" for text in (before, after))
    return next(texts), next(texts)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("web-01-edge", "web-02-edge", ("web-0[1]-edge", "web-0[2]-edge")),
        ("debian-12", "prod-debian-12", ("[]debian-12", "[prod-]debian-12")),
        ("pfsense-2.7", "prod-pfsense-2.7", ("[]pfsense-2.7", "[prod-]pfsense-2.7")),
        ("web", "web-old", ("web[]", "web[-old]")),
        ("aa", "aaa", ("aa[]", "aa[a]")),
        ("Other", "Linux", None),
        ("same", "same", None),
        ("", "new", None),
        ("cafe\u0301 1", "cafe\u0300 1", ("caf[e\u0301] 1", "caf[e\u0300] 1")),
        ("cafe 1", "cafe\u0301 1", ("caf[e] 1", "caf[e\u0301] 1")),
        ("a 👍🏽 b", "a 👍🏿 b", ("a [👍🏽] b", "a [👍🏿] b")),
        ("from 👨‍👩‍👧 home", "from 👨‍👩‍👦 home", ("from [👨‍👩‍👧] home", "from [👨‍👩‍👦] home")),
        ("flag 🇩🇪 x", "flag 🇩🇰 x", ("flag [🇩🇪] x", "flag [🇩🇰] x")),
        ("😀 name", "😁 name", ("[😀] name", "[😁] name")),
    ],
)
def test_only_what_differs_is_marked(before: str, after: str, expected: tuple[str, str] | None) -> None:
    assert marked(before, after) == expected


@given(*[st.text(st.sampled_from("ab-\u0301\u200d👍🏽🇩🇪\u1100\u1161"), max_size=12)] * 2)
def test_no_mark_begins_or_ends_inside_a_character(before: str, after: str) -> None:
    cut = common(before, after)
    if cut is None:
        return
    head, tail = cut
    assert before[:head] == after[:head]
    assert before[len(before) - tail :] == after[len(after) - tail :]
    assert head + tail <= min(len(before), len(after))
    for text in (before, after):
        for at in {head, len(text) - tail} - {0, len(text)}:
            assert not unicodedata.category(text[at]).startswith("M")
            assert text[at] not in "\u200d🏽"
            assert text[at - 1] != "\u200d"


def test_lengths_are_those_of_scripts() -> None:
    assert [units(text) for text in ("", "ab", "ä", "😀", "e\u0301")] == [0, 2, 1, 2, 2]


@pytest.mark.parametrize(
    "char", ["\x00", "\t", "\r", "\x1b", "\xad", "\u200b", "\u2028", "\u202e", "\u2066", "\ufeff", "\ud800"]
)
def test_a_hidden_character_is_written_out(char: str) -> None:
    assert clean([f"a{char}b"]) == [f"a{ascii(char)[1:-1]}b"]


@pytest.mark.parametrize("text", ["a\nb", "👨‍👩‍👧", "نام\u200cها", "é", "应用"])
def test_what_writing_needs_stays(text: str) -> None:
    assert clean(text) == text


def test_values_are_shown_as_a_manifest_writes_them() -> None:
    assert [shown(value) for value in (True, False, None, "", ["a", "b"], [])] == ["true", "false", "", "", "a; b", ""]
