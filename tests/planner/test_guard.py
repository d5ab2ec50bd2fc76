"""Plans that are too large, change fields that need permission, or are for another server's images."""

from typing import Any

import pytest

from bulkimg.model import Action, PlanCounts
from bulkimg.planner.guard import refusal, too_many_missing
from bulkimg.values import parse_limit


def counts(update: int, unchanged: int = 0, missing: int = 0, **fields: int) -> PlanCounts:
    actions: dict[str, Any] = {action.value: 0 for action in Action}
    actions |= {"update": update, "unchanged": unchanged, "missing": missing}
    return PlanCounts(update + unchanged + missing, actions, fields or {"name": update}, (), "", surveyed=True)


@pytest.mark.parametrize(
    ("limit", "update", "unchanged", "refused"),
    [("10", 10, 0, False), ("10", 11, 0, True), ("0", 1, 9, True), ("5%", 5, 95, False), ("5%", 6, 94, True),
     ("none", 9999, 0, False), ("0%", 1, 9999, True), ("100%", 5, 0, False)],
)  # fmt: skip
def test_the_number_of_changes(limit: str, update: int, unchanged: int, refused: bool) -> None:
    assert bool(refusal(counts(update, unchanged), parse_limit(limit), ())) is refused


@pytest.mark.parametrize("name", ["architecture", "mediaType", "format"])
def test_fields_with_side_effects_need_a_word_and_the_refusal_says_which(name: str) -> None:
    why = refusal(counts(3, **{name: 2}), parse_limit("none"), ())
    assert f"{name} of 2 images" in why
    assert "the server" in why or "the record" in why
    assert "These fields change only with --allow-field" in why
    assert f"--allow-field {name}" not in why, "a guard sells no way around"
    assert refusal(counts(3, **{name: 2}), parse_limit("none"), (name,)) == ""


@pytest.mark.parametrize(
    ("limit", "found", "missing", "stops"),
    [("3", 7, 3, False), ("3", 6, 4, True), ("50%", 4, 6, False), ("50%", 40, 150, True), ("none", 0, 5000, False)],
)
def test_images_that_do_not_exist_are_errors_before_anything_is_sent(
    limit: str, found: int, missing: int, stops: bool
) -> None:
    assert bool(too_many_missing(counts(found, missing=missing), parse_limit(limit))) is stops
