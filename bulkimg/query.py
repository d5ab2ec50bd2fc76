"""Define `[source]` of a job file: a query whose rows are the manifest. It names files and commands, never a URL."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from bulkimg.notifications import WrongEntry, parse_command, parse_file
from bulkimg.values import expanded, nearest, parse_duration

_FILES = ("sql_file", "url_file")
_NO_PATH = re.compile(r"[\0\n]|://")  # what validating refuses with a reason
_WITH_SECRET = re.compile(r"(?:postgres|mysql|mariadb|sqlite)[\w+]*://\S*@")


def _parse_sql_file(value: Any) -> Any:
    if isinstance(value, str) and (not value or "\0" in value or "\n" in value):
        raise ValueError("is not the name of a file; write the query in a file and name it")
    return value if isinstance(value, Path) else expanded(_text(value))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not the name of a file; write the query in a file and name it")
    return value


def _parse_url_command(value: Any) -> Any:
    words = parse_command(value)
    if any(_WITH_SECRET.search(word) for word in words):
        raise ValueError("holds an address with a user, which is a secret; write it in a file (chmod 600): url_file")
    return words


class SqlSource(BaseModel):
    """A query, and where the URL of its database is found. `timeout` is the longest wait for rows, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sql_file: Annotated[Path, BeforeValidator(_parse_sql_file, json_schema_input_type=str)]
    url_file: Annotated[Path | None, BeforeValidator(parse_file, json_schema_input_type=str)] = None
    url_command: Annotated[tuple[str, ...], BeforeValidator(_parse_url_command, json_schema_input_type=list[str])] = ()
    allow_empty: Annotated[bool, Field(strict=True)] = False
    timeout: Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str | float)] = 60.0

    @property
    def place(self) -> str:
        """Return where the URL comes from, for messages: they must not show it."""
        return f"url_file {self.url_file}" if self.url_file else f"url_command {self.url_command[0]}"

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if not self.url_file and not self.url_command:
            raise ValueError("has no database; add url_file or url_command, which say its URL")
        if self.url_file and self.url_command:
            raise ValueError("has url_file and url_command; keep one")
        return self


def read_source(content: Any, base: Path) -> SqlSource:
    """Return the table `[source]` of a job file. Paths are relative to `base`. Raises WrongEntry."""
    if not isinstance(content, Mapping):
        raise WrongEntry(1, "", "source is not a table; write [source] once, with sql_file and url_file")
    for key, value in content.items():
        if key not in SqlSource.model_fields:
            raise WrongEntry(1, key, _unknown(key, value))
    try:
        return SqlSource.model_validate({key: _placed(key, value, base) for key, value in content.items()})
    except ValidationError as error:
        raise _wrong(error) from None


def _unknown(key: str, value: Any) -> str:
    if key == "url" or (isinstance(value, str) and "://" in value):
        return f"{key} would hold an address, and an address is a secret; write it in a file (chmod 600): url_file"
    if key in {"sql", "query"}:
        return f"{key} is not read from the job file; write the query in a file and name it: sql_file"
    return f"unknown key {key!r} in [source]{nearest(key, SqlSource.model_fields)}"


def _placed(key: str, value: Any, base: Path) -> Any:
    """Return paths as absolute ones. A program without a slash is searched for in PATH."""
    try:
        if key in _FILES and isinstance(value, str) and value and not _NO_PATH.search(value):
            path = base / expanded(value)
            return path.absolute() if key == "url_file" else path  # the query's file is shown as a manifest is
        if key == "url_command" and isinstance(value, list) and value and isinstance(value[0], str) and "/" in value[0]:
            program = value[0] if "://" in value[0] else str((base / expanded(value[0])).absolute())
            return [program, *value[1:]]
    except ValueError:
        pass  # validating the table says why
    return value


def _wrong(error: ValidationError) -> WrongEntry:
    found = error.errors(include_url=False)[0]
    key = str(found["loc"][0]) if found["loc"] else ""
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "missing":
        return WrongEntry(1, "", f'[source] has no {key}; add {key} = "FILE"')
    if found["type"] != "value_error":
        message = f"is not valid: {message[0].lower()}{message[1:]}"
    return WrongEntry(1, key, f"[source] {key} {message}" if key else f"[source] {message}")
