"""Tell from its number format what a number looks like. Pure.

A number is taken only where its digits are what the sheet shows: `12`, but not `12%`, `12.00` or a date.
"""

import re
from collections.abc import Iterable
from enum import Enum

from bulkimg.manifest.xlsx.markup import Element, main_names

_NAMES = main_names("numFmt", "xf")
MOST_STYLES = 1 << 17  # Excel allows 65,490


class Shown(Enum):
    """What a number of this format looks like."""

    PLAIN = "as it is"
    GROUPED = "with thousands separators"
    DATE = "as a date or a time"
    PERCENT = "as a percentage"
    OTHER = "in a format of its own"


# The built-in formats (ECMA-376, 18.8.30), and those of East Asian versions of Excel, which are dates.
_DATES = frozenset([*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)])
_BUILT_IN = {0: Shown.PLAIN, 1: Shown.PLAIN, 3: Shown.GROUPED, 9: Shown.PERCENT, 10: Shown.PERCENT, 49: Shown.PLAIN}
_BUILT_IN |= dict.fromkeys(_DATES, Shown.DATE)
_PLAIN = frozenset({"general", "0", "@", "#", "standard"})
_GROUPED = frozenset({"#,##0", "#,###"})
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.')
_BRACKETS = re.compile(r"\[([^\]]*)\]")
_ELAPSED = re.compile(r"h+|m+|s+", re.IGNORECASE)


def shown_as(code: str) -> Shown:
    """Return what a format code makes of a number."""
    plain = code.strip().casefold()
    if plain in _PLAIN:
        return Shown.PLAIN
    if plain in _GROUPED:
        return Shown.GROUPED
    bare = _LITERAL.sub("", code)
    elapsed = any(_ELAPSED.fullmatch(found) for found in _BRACKETS.findall(bare))
    bare = _BRACKETS.sub("", bare).casefold().replace("general", "")
    if elapsed or re.search("[ymdhs\u5e74\u6708\u65e5]", bare):
        return Shown.DATE
    return Shown.PERCENT if "%" in bare else Shown.OTHER


def read_styles(elements: Iterable[Element]) -> list[Shown]:
    """Return what numbers look like, by the number of a cell's style."""
    codes: dict[str, str] = {}
    styles: list[Shown] = []
    for element in elements:
        kind = _NAMES.get(element.name)
        if kind == "numFmt" and element.path == ("styleSheet", "numFmts"):
            codes[element.attributes.get("numFmtId", "")] = element.attributes.get("formatCode", "")
        elif kind == "xf" and element.path == ("styleSheet", "cellXfs") and len(styles) < MOST_STYLES:
            styles.append(_of(element.attributes.get("numFmtId", "0"), codes))
    return styles


def _of(number: str, codes: dict[str, str]) -> Shown:
    if number in codes:
        return shown_as(codes[number])
    return _BUILT_IN.get(int(number), Shown.OTHER) if number.isdecimal() and len(number) < 6 else Shown.OTHER
