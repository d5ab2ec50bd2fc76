"""Find blank texts and invisible characters in cells, names, headers and tags (docs/reference/manifest.md)."""

# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt 15.1), what the server trims, and the braille blank.
_RANGES = (
    (0x00, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0xAD, 0xAD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x1680, 0x1680),
    (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2000, 0x200F), (0x2028, 0x202F), (0x205F, 0x206F), (0x2800, 0x2800),
    (0x3000, 0x3000), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
_INVISIBLE = "".join(chr(code) for first, last in _RANGES for code in range(first, last + 1))

# White space and similar invisible characters that people type or paste next to a text without meaning them.
PADDING = "".join(
    char for char in _INVISIBLE if char.isspace() or 0x200B <= ord(char) <= 0x200F or char in "\u2060\u2800\u3164\ufeff"
)
_IN_A_LINE = "".join(char for char in PADDING if char not in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")


def is_blank(text: str) -> bool:
    """Return whether the text is empty or holds only invisible characters."""
    if text and "!" <= text[0] <= "~":  # nearly every text ends here; the set below is large
        return False
    return not text.strip(_INVISIBLE)


def trim(text: str) -> str:
    """Return the text without white space and invisible characters at its ends."""
    return text.strip(PADDING)


def trim_in_line(text: str) -> str:
    """Trim the text like `trim`, but keep a line break at an end, so that an id with one is still refused."""
    return text.strip(_IN_A_LINE)


def has_invisible_end(text: str) -> bool:
    """Return whether the text begins or ends with an invisible character."""
    return text != text.strip(_INVISIBLE)
