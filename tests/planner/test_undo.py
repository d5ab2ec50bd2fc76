"""Undo: old values are restored where the run's own values are still there. What cannot be restored is reported."""

from typing import Any

import pytest

from bulkimg.ledger.plans import Written
from bulkimg.model import Status
from bulkimg.planner.undo import boot_mode_after, undo_row


def written(before: Any, send: Any, *, aside: Any = None, after: Any = None) -> Written:
    return Written(2, "0" * 32, Status.UPDATED, before, send, aside or {}, after or {}, send, None)


def test_old_values_come_back_where_ours_still_are() -> None:
    row = undo_row(written({"name": "old", "platform": "Other", "virtio": True}, {"name": "new", "virtio": False}))
    assert row.fields == {"name": "old", "virtio": True}
    assert row.expects == {"name": "new", "virtio": False}
    assert row.problems == ()


def test_no_text_comes_back_as_an_empty_one_where_that_is_allowed() -> None:
    assert undo_row(written({"description": None}, {"description": "x"})).fields == {"description": ""}


@pytest.mark.parametrize("before", [{"architecture": None}, {"architecture": "[hidden]"}])
def test_what_cannot_be_put_back_is_a_problem(before: Any) -> None:
    row = undo_row(written(before, {"architecture": "x86_64"}))
    assert row.fields == {}
    assert [problem.code for problem in row.problems] == ["CANNOT_RESTORE"]


def test_tags_go_back_to_exactly_those_there_were() -> None:
    row = undo_row(written({"userTags": ["a"]}, {"userTags": ["b"]}))
    assert (row.fields, row.expects) == ({"userTags": ["a"]}, {"userTags": ["a", "b"]})
    seen = undo_row(written({"userTags": []}, {"userTags": ["b"]}, after={"userTags": ["b", "z"]}))
    assert seen.expects == {"userTags": ["b"]}, "z is somebody's, though it was there when the tags were read back"
    replaced = undo_row(written({"userTags": ["a", "c"]}, {"userTags": ["c", "b"]}), replace_tags=True)
    assert (replaced.fields, replaced.expects) == ({"userTags": ["a", "c"]}, {"userTags": ["b", "c"]})


def test_the_boot_mode_goes_back_with_the_architecture() -> None:
    aside = {"systemTags": ["bootMode::Legacy", "x"], "system": True}
    row = undo_row(written({"architecture": "x86_64"}, {"architecture": "aarch64"}, aside=aside))
    assert row.fields == {"architecture": "x86_64", "systemTags": ["bootMode::Legacy", "x"]}
    assert row.expects == {"architecture": "aarch64", "systemTags": ["bootMode::UEFI", "x"]}


@pytest.mark.parametrize(
    ("architecture", "system", "tags", "after"),
    [
        ("aarch64", False, ["bootMode::Legacy"], ["bootMode::UEFI"]),
        ("x86_64", True, ["bootMode::UEFI"], ["bootMode::Legacy"]),
        ("x86_64", False, ["bootMode::UEFI"], ["bootMode::UEFI"]),
        ("mips64el", True, [], []),
    ],
)
def test_what_the_server_makes_of_the_boot_mode(
    architecture: str, system: bool, tags: list[str], after: list[str]
) -> None:
    """docs/dev/protocol.md §5.2."""
    assert boot_mode_after(tags, {"architecture": architecture}, {"system": system}) == after
