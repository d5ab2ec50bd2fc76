"""Compare what a row asks for with the present image: what would be sent, and what changed since. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from bulkimg.model import MAY_BE_EMPTY, SERVER_TRIMS, TAGS, Action, Fields, Planned, Seen, Value, as_stored

BOOT_MODE = "bootMode::"
_SHOWN = 60  # characters of a value in a message


def present(image: Mapping[str, Any], name: str) -> Value | None:
    """What the image shows of a field; servers leave out what is null (docs/dev/protocol.md §1)."""
    value = image.get(name)
    if isinstance(value, list):
        return sorted(map(str, value))
    return value if value is None or isinstance(value, bool) else str(value)


def is_shown(image: Mapping[str, Any], name: str) -> bool:
    """Whether it is known what the image has: tags that the server does not show are missing (reading.Reader)."""
    return name not in TAGS or name in image


def redacted(image: Mapping[str, Any], name: str) -> Value | None:
    """The same with credentials redacted (reading.Image)."""
    return present(getattr(image, "redacted", image), name)


def same(name: str, asked: Value | None, shown: Value | None) -> bool:
    """Whether they are the same to the server: strings trimmed, tags in any order, an empty text like none."""
    if name in TAGS:
        return _tag_set(asked) == _tag_set(shown)
    if asked == shown:  # whatever way a value came there, it is itself
        return True
    if name in MAY_BE_EMPTY:
        return (as_stored(asked) if asked is not None else "") == (shown if shown is not None else "")
    return (as_stored(asked) if asked is not None else None) == shown


def _tag_set(value: Value | None) -> set[str]:
    return {tag.strip(SERVER_TRIMS) for tag in value} if isinstance(value, list) else set()


def fulfilled(name: str, asked: Value, shown: Value | None, *, replace_tags: bool) -> bool:
    """Whether the image already is as asked: tags that are only added must be among those it has."""
    if name in TAGS and not replace_tags:
        return not missing_tags(asked, shown)
    return same(name, asked, shown)


def missing_tags(asked: Value, shown: Value | None) -> list[str]:
    """The asked tags that the image does not have, as the server would store them."""
    assert isinstance(asked, list)
    has = _tag_set(shown)
    return [tag for tag in dict.fromkeys(tag.strip(SERVER_TRIMS) for tag in asked) if tag not in has]


def plan(fields: Fields, expects: Fields, image: Mapping[str, Any] | None, *, replace_tags: bool = False) -> Planned:
    """What to do with a row. `image` is what was read of it, tags included where the row names some; None: no image.

    Only what differs is sent. An expectation of a field that already has the value asked for has nothing left to protect.
    """
    if image is None:
        return Planned(Action.MISSING, message="the server has no image with this uuid")
    now = {name: present(image, name) for name in dict.fromkeys([*fields, *expects]) if is_shown(image, name)}
    before = {name: redacted(image, name) for name in now}
    send = left_to_send(fields, image, replace_tags=replace_tags)
    already = fields.keys() - send.keys()
    left = {name: value for name, value in expects.items() if name not in already}
    broken = [name for name, value in left.items() if name not in now or not same(name, value, now[name])]
    if broken:
        said = (
            f"if_{name} expects {show(expects[name])}, but the image has {show(before[name])}"
            if name in now
            else f"if_{name} cannot be checked, because the server does not show {name}"
            for name in broken
        )
        return Planned(Action.CONFLICT, before, {}, _aside({}, before, image), "; ".join(said))
    if not send:
        return Planned(Action.UNCHANGED, before, {}, _aside({}, before, image), "the image already has these values")
    return Planned(Action.UPDATE, before, send, _aside(send, before, image))


def _aside(send: Fields, before: Seen, image: Mapping[str, Any]) -> Seen:
    """What is kept besides the row's own fields: the name, for people, and the system tags that a change of the architecture
    rewrites (docs/dev/protocol.md §5.2)."""
    names = [] if "name" in before else ["name"]
    if "architecture" in send and "systemTags" not in send:
        names += ["systemTags", "system"]
    return {name: redacted(image, name) for name in names if name in image}


def names_to_read(fields: Iterable[str], expects: Iterable[str]) -> set[str]:
    """What has to be read of an image to plan its row."""
    names = {*fields, *expects, "name"}
    return names | {"systemTags", "system"} if "architecture" in fields else names


def changed_since(
    before: Seen, send: Fields, image: Mapping[str, Any], *, replace_tags: bool = False, partly: bool = False
) -> list[str]:
    """The fields that show neither the plan's value nor ours: another client changed them.

    Tags that are only added conflict with no other change. `partly`: our own earlier attempt may have set some of the tags.
    """
    return [
        name
        for name, was in before.items()
        if is_shown(image, name)
        and not same(name, was, redacted(image, name))
        and not (name in send and _ours(name, send[name], was, present(image, name), replace_tags, partly))
    ]


def _ours(name: str, sent: Value, was: Value | None, now: Value | None, replace_tags: bool, partly: bool) -> bool:
    """Whether what a field shows now is what we make of it, or are about to."""
    if name not in TAGS:
        return fulfilled(name, sent, now, replace_tags=replace_tags)
    if not replace_tags:
        return True
    asked, had, has = _tag_set(sent), _tag_set(was), _tag_set(now)
    return has == asked or (partly and asked & had <= has <= asked | had)


def left_to_send(fields: Fields, image: Mapping[str, Any], *, replace_tags: bool = False) -> Fields:
    """What still differs from what is asked: of tags that are only added, those that the image does not have."""
    now = {name: present(image, name) for name in fields}
    return {
        name: missing_tags(value, now[name]) if name in TAGS and not replace_tags else value
        for name, value in fields.items()
        if not is_shown(image, name) or not fulfilled(name, value, now[name], replace_tags=replace_tags)
    }


def show(value: Value | None) -> str:
    """A value as a message shows it."""
    if value is None:
        return "no value"
    text = (
        repr(value)
        if isinstance(value, str)
        else ";".join(value) or "no tags"
        if isinstance(value, list)
        else str(value).lower()
    )
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
