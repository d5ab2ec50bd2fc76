"""Show two values of a field: harmless texts, and the part of them that differs."""

import re
from os.path import commonprefix
from typing import Any
from unicodedata import category

# What a page obeys instead of showing, and what is invisible: controls except newline, soft hyphens, zero-width spaces,
# bidirectional marks and overrides, invisible operators, and halves of surrogate pairs. Joiners stay: scripts need
# them.
_HIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_JOINER = "\u200d"
_SIMILAR = 2  # texts are similar if they share at least this part (a half) of the shorter one


def clean(value: Any) -> Any:
    """Return the value with every hidden character escaped, such as `\\u202e`."""
    if isinstance(value, str):
        return _HIDDEN.sub(lambda found: ascii(found.group())[1:-1], value)
    return [clean(part) for part in value] if isinstance(value, list) else value


def shown(value: Any) -> str:
    """Return a value as text; "" if there is none."""
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def common(before: str, after: str) -> tuple[int, int] | None:
    """Return how many characters both texts share at their beginning and end, or None if they are not similar.

    Neither part ends inside what a reader takes for one character.
    """
    shorter = min(len(before), len(after))
    whole = len(commonprefix((before, after)))  # noqa: RUF071 - of characters, not of paths
    tail = len(commonprefix((before[::-1], after[::-1])))  # noqa: RUF071
    if tail > whole:  # the longer one first: `pfsense` in `prod-pfsense` is its end, not its `p`
        tail = _at_a_gap(before, after, tail, from_end=True)
        head = _at_a_gap(before, after, min(whole, shorter - tail))
    else:
        head = _at_a_gap(before, after, whole)
        tail = _at_a_gap(before, after, min(tail, shorter - head), from_end=True)
    return (head, tail) if 0 < shorter <= (head + tail) * _SIMILAR and before != after else None


def _at_a_gap(before: str, after: str, length: int, *, from_end: bool = False) -> int:
    """Return the most characters up to `length` after which both texts may be split."""
    while length:
        places = ((text, len(text) - length if from_end else length) for text in (before, after))
        if all(_may_part(text, at) for text, at in places):
            break
        length -= 1
    return length


def _may_part(text: str, at: int) -> bool:
    """Return whether a reader sees the characters before and after this place as two. In doubt, it is False."""
    if at in (0, len(text)):
        return True
    left, right = text[at - 1], text[at]
    if left < "\u0300" and right < "\u0300":  # nearly every text
        return True
    return not (_joins(right) or left == _JOINER or (_is_flag_letter(left) and _is_flag_letter(right)))


def _joins(char: str) -> bool:
    """Return whether the character belongs to the one before it: marks, joiners, skin tones, tags, vowels of Hangul."""
    return (
        category(char)[0] == "M"
        or char in "\u200c\u200d"
        or "\u1160" <= char <= "\u11ff"
        or "\U0001f3fb" <= char <= "\U0001f3ff"
        or "\U000e0020" <= char <= "\U000e007f"
    )


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def units(text: str) -> int:
    """Return the text's length as scripts count it: in UTF-16 units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2
