"""Turn a program's source into rows: mappings or a pandas DataFrame, with uuids and NaN as they are there."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from bulkimg.errors import UsageError
from bulkimg.model import TAGS

Source = str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Any  # a path, mappings, or a DataFrame


def job_of(source: Source) -> Path | None:
    """Return the job file if the source is one, else None."""
    if isinstance(source, str | os.PathLike) and os.fspath(source).lower().endswith(".toml"):
        return Path(os.fspath(source))
    return None


def rows_of(source: Source) -> Iterable[Mapping[str, Any]] | None:
    """Return the rows, or None if the source is a path. Raises UsageError for anything else."""
    if isinstance(source, str | os.PathLike):
        return None
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # a DataFrame, of any library
        source = source.to_dict("records")
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise UsageError(f"the source is of type {type(source).__name__}; give a path, mappings, or a DataFrame")
    return _rows(source)


def _rows(source: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(source, 1):
        if not isinstance(row, Mapping):
            raise UsageError(
                f"row {number} of the source is of type {type(row).__name__}; give mappings such as {{'uuid': …}}"
            )
        yield {str(name): _value(str(name), value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    """Return the value as JSON has it. A missing value leaves the field as it is."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, tuple | set | frozenset) and name in TAGS:
        return sorted(value)
    if isinstance(value, Mapping):
        return {key: _value(str(key), item) for key, item in value.items()}
    if _is_missing(value):
        return None
    return value.item() if hasattr(value, "item") and not isinstance(value, str | list) else value  # numpy's scalars


def _is_missing(value: Any) -> bool:
    """Return whether the value is None, NaN, or pandas' NA or NaT, which no test of equality finds."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(value, float) and math.isnan(value)
