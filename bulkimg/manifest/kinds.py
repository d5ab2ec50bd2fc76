"""Decide the format of a manifest from its name and the options, and refuse options of another format."""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, Literal

from bulkimg.errors import UsageError
from bulkimg.settings import Settings

Format = Literal["csv", "tsv", "jsonl", "xlsx", "parquet", "sql"]
_SPREADSHEETS = frozenset({".xls", ".xlsm", ".xlsb", ".ods", ".numbers"})
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".xlsx": "xlsx", ".parquet": "parquet",
}  # fmt: skip


def find_format(name: str, given: str | None) -> Format:
    """Return the format that the option or the file's name says; CSV for standard input."""
    if given:
        return _SUFFIXES[f".{given}"]
    if name == "-":
        return "csv"
    suffix = PurePath(name.lower().removesuffix(".gz")).suffix
    if suffix in (".xlsx", ".parquet") and name.lower().endswith(".gz"):
        raise UsageError(f"{name}: {suffix} is compressed inside and is not read from .gz; unpack it: gunzip")
    if suffix == ".sql":
        raise UsageError(f"{name}: a query needs a job file that names its database; see bulkimg help sql-and-parquet")
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix in _SPREADSHEETS:
        kind = f"the format {suffix}"
        raise UsageError(f"{name}: {kind} is not read; save it as .xlsx or as CSV UTF-8")
    if suffix == ".json":
        raise UsageError(
            f"{name}: .json is not read; convert an array with jq -c '.[]', or give --format jsonl for one object a line"
        )
    raise UsageError(
        f"{name}: the name does not say the format; end it in .csv, .tsv, .jsonl, .ndjson (or .gz), .xlsx or .parquet, "
        "or give --format"
    )


def format_of(name: str, settings: Settings, changes: Iterable[Mapping[str, Any]] | None) -> Format:
    if changes is not None:
        return "jsonl"
    return "sql" if settings.source else find_format(name, settings.format)


_KINDS: Mapping[str, str] = {"xlsx": "a workbook", "parquet": "a Parquet file", "sql": "a query of a database"}


def refuse_what_cannot_apply(name: str, settings: Settings, kind: Format) -> None:
    """Raise UsageError for an option that says how to read another kind of manifest.

    An encoding in the environment, a job file or a profile is for those manifests that have one.
    """
    what = ""
    if kind != "xlsx" and (option := next((o for o in ("sheet", "hidden_rows") if getattr(settings, o)), "")):
        what, why = option, f"{name} is not a spreadsheet (.xlsx)"
    elif kind == "sql" and settings.format:
        what, why = "format", f"{name} is {_KINDS[kind]}, which has no file format"
    elif kind in _KINDS and "encoding" in settings.model_fields_set and not settings.encoding_is_configured:
        what, why = "encoding", f"{name} is {_KINDS[kind]}, whose texts have no other encoding"
    if what:
        given = f"--{what.replace('_', '-')} {getattr(settings, what)}"
        raise UsageError(f"{given}: {why}; leave the option out")
