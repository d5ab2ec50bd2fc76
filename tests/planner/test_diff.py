"""What is sent and what has changed since, with values as the server stores them, and only fields that differ."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkimg.model import Action, Fields
from bulkimg.planner.diff import changed_since, left_to_send, names_to_read, plan, present, same, show

UUID = "0123456789abcdef0123456789abcdef"
IMAGE: dict[str, Any] = {
    "uuid": UUID,
    "name": "old",
    "platform": "Other",
    "architecture": "x86_64",
    "system": False,
    "virtio": True,
    "userTags": ["a", "b"],
    "systemTags": ["bootMode::Legacy"],
}


def test_only_what_differs_is_sent_and_everything_asked_is_remembered() -> None:
    planned = plan({"name": "new", "platform": "Other"}, {"virtio": True}, IMAGE)
    assert planned.action is Action.UPDATE
    assert planned.send == {"name": "new"}
    assert planned.before == {"name": "old", "platform": "Other", "virtio": True}


def test_an_image_that_is_not_there_is_missing_whatever_is_asked() -> None:
    assert plan({"name": "new"}, {"name": "other"}, None).action is Action.MISSING


@pytest.mark.parametrize(
    ("name", "asked", "shown", "equal"),
    [
        ("name", " a\t", "a", True),
        ("name", "\u00a0a", "a", False),  # Java's trim does not remove it
        ("name", "a", "A", False),
        ("description", "", None, True),  # servers leave out null values, and an empty text means the same
        ("description", "", "", True),
        ("description", "x", None, False),
        ("name", "x", None, False),
        ("virtio", True, True, True),
        ("virtio", False, None, False),
        ("userTags", ["b", " a "], ["a", "b"], True),
        ("userTags", [], None, True),
        ("userTags", ["a"], ["a", "b"], False),
    ],
)
def test_values_are_compared_as_the_server_stores_them(name: str, asked: Any, shown: Any, equal: bool) -> None:
    assert same(name, asked, shown) is equal


def test_an_expectation_that_does_not_hold_is_a_conflict_and_says_what_is_there() -> None:
    planned = plan({"name": "new"}, {"platform": "Linux"}, IMAGE)
    assert planned.action is Action.CONFLICT
    assert planned.message == "if_platform expects 'Linux', but the image has 'Other'"
    assert planned.send == {}


def test_an_expectation_of_what_is_already_as_asked_protects_nothing_any_more() -> None:
    """In a second run of the same manifest, the first run has already made all the changes."""
    assert plan({"platform": "Other"}, {"platform": "Linux"}, IMAGE).action is Action.UNCHANGED
    # but an expectation of another field holds
    assert plan({"platform": "Other"}, {"name": "x"}, IMAGE).action is Action.CONFLICT


def test_tags_are_added_unless_they_replace() -> None:
    assert plan({"userTags": ["b", "c"]}, {}, IMAGE).send == {"userTags": ["c"]}
    assert plan({"userTags": ["b"]}, {}, IMAGE).action is Action.UNCHANGED
    assert plan({"userTags": ["b"]}, {}, IMAGE, replace_tags=True).send == {"userTags": ["b"]}
    assert plan({"userTags": ["b", "a"]}, {}, IMAGE, replace_tags=True).action is Action.UNCHANGED


def test_a_change_of_architecture_remembers_the_tags_that_the_server_rewrites() -> None:
    planned = plan({"architecture": "aarch64"}, {}, IMAGE)
    assert planned.aside == {"name": "old", "systemTags": ["bootMode::Legacy"], "system": False}
    assert {"systemTags", "system"} <= names_to_read({"architecture": "aarch64"}, {})
    assert plan({"architecture": "x86_64"}, {}, IMAGE).action is Action.UNCHANGED, "sending it again would rewrite them"


def test_somebody_elses_change_is_seen_and_ours_is_not_taken_for_it() -> None:
    before = {"name": "old", "platform": "Other"}
    send: Fields = {"name": "new"}
    assert changed_since(before, send, IMAGE) == []
    assert changed_since(before, send, IMAGE | {"name": "new"}) == []
    assert changed_since(before, send, IMAGE | {"name": "theirs"}) == ["name"]
    assert changed_since(before, send, IMAGE | {"platform": "Linux"}) == ["platform"]
    assert changed_since(before, send, {"uuid": UUID, "platform": "Other"}) == ["name"], "it has no name any more"
    added: Fields = {"userTags": ["c"]}
    assert changed_since({"userTags": ["a"]}, added, IMAGE) == [], "added tags get in nobody's way"
    assert changed_since({"userTags": ["a"]}, added, IMAGE, replace_tags=True) == ["userTags"]
    assert changed_since({"userTags": ["a"]}, {}, IMAGE) == ["userTags"], "tags that are only expected are held"
    half = IMAGE | {"userTags": ["b"]}
    assert changed_since({"userTags": ["a"]}, {"userTags": ["b", "c"]}, half, replace_tags=True) == ["userTags"]
    assert changed_since({"userTags": ["a"]}, {"userTags": ["b", "c"]}, half, replace_tags=True, partly=True) == []
    theirs = IMAGE | {"userTags": ["b", "z"]}
    assert changed_since({"userTags": ["a"]}, {"userTags": ["b"]}, theirs, replace_tags=True, partly=True) == [
        "userTags"
    ]


VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
JAVA_BLANK = "".join(map(chr, range(0x21)))
FIELDS = st.dictionaries(st.sampled_from(["name", "description", "guestOsType"]), VALUES, min_size=1).filter(
    lambda fields: fields.get("name", "x").strip(JAVA_BLANK) != ""
)
IMAGES = st.dictionaries(st.sampled_from(["name", "description", "guestOsType"]), VALUES)


@given(fields=FIELDS, image=IMAGES)
def test_after_what_is_sent_has_been_stored_nothing_is_left_to_send(fields: Fields, image: dict[str, Any]) -> None:
    planned = plan(fields, {}, image)
    stored = image | {name: str(value).strip(JAVA_BLANK) for name, value in planned.send.items()}
    assert plan(fields, {}, stored).action is Action.UNCHANGED
    assert left_to_send(planned.send, stored) == {}
    assert changed_since(planned.before, planned.send, stored) == []
    assert changed_since(planned.before, planned.send, image) == []
    for name in planned.send:
        assert not same(name, fields[name], present(image, name))


def test_values_are_shown_short_and_in_words() -> None:
    assert [show(value) for value in (None, True, ["a", "b"], [], "x")] == ["no value", "true", "a;b", "no tags", "'x'"]
    assert len(show("x" * 500)) == 60
