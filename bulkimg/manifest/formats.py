"""Recognise other file formats by their first bytes."""

ZIP, GZIP, PARQUET = b"PK\x03\x04", b"\x1f\x8b", b"PAR1"
OLD_OFFICE = b"\xd0\xcf\x11\xe0"  # the container of .xls files, and of .xlsx files with a password

_ADVICE = (
    (
        ZIP,
        "is an Excel workbook or a zip archive, whatever its name or --format says",
        "name it .xlsx, or give --format xlsx",
    ),
    (OLD_OFFICE, "is an old Excel workbook (.xls), which is not read", "save it as .xlsx"),
    (b"%PDF", "is a PDF", "export the table as CSV UTF-8 from the program that made it"),
    (
        b"SQLite format 3\0",
        "is a SQLite database",
        "name a query in [source] of a job file, or export the table as CSV",
    ),
    (PARQUET, "is a Parquet file", "end its name in .parquet, or give --format parquet"),
    (b"{\\rtf", "is a rich text document", "save it as CSV UTF-8"),
    (GZIP, "is compressed with gzip", "unpack it first: gunzip"),
    (b"BZh", "is compressed with bzip2", "unpack it first: bunzip2"),
    (b"\xfd7zXZ\0", "is compressed with xz", "unpack it first: unxz"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unpack it first: unzstd"),
)
_PAGES = (b"<!doctype", b"<html", b"<head", b"<body", b"<table", b"<?xml", b"<meta", b"<!--")
_SAMPLE = 512  # bytes that are searched for NULs


def other_format(start: bytes, encoding: str) -> tuple[str, str] | None:
    """Return (what is wrong, what to do) if these are the first bytes of a known other format, else None."""
    for magic, message, fix in _ADVICE:
        if start.startswith(magic):
            return message, fix
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:16].lower().startswith(_PAGES):
        return "is an HTML or XML page, perhaps a login page", "export the table as CSV UTF-8"
    return None if encoding.startswith(("utf-16", "utf-32")) else _utf_16_without_mark(start[:_SAMPLE])


def _utf_16_without_mark(start: bytes) -> tuple[str, str] | None:
    """Return whether the bytes look like UTF-16 without a mark: ASCII then has a NUL in every other byte."""
    if len(start) < 8 or start.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return None
    for order, nuls, texts in (("le", start[1::2], start[0::2]), ("be", start[0::2], start[1::2])):
        if nuls.count(0) > 0.8 * len(nuls) and texts.count(0) < 0.2 * len(texts):
            return "is UTF-16 without a byte order mark", f"save it as CSV UTF-8, or give --encoding utf-16-{order}"
    return None
