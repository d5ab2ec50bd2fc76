"""`bulkimg export`: write images as a manifest, to be edited and run."""

import asyncio
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from bulkimg.cli import complete, screen
from bulkimg.cli.options import CommandContext, Flags, option_path, with_options
from bulkimg.cli.progress import Watcher
from bulkimg.credentials import Credentials
from bulkimg.engine.look import all_images, reading
from bulkimg.errors import UsageError
from bulkimg.ledger.files import replacing
from bulkimg.manifest.writer import ManifestWriter
from bulkimg.model import FIELDS, TAGS
from bulkimg.process import event_loop, leave_no_core
from bulkimg.settings import Settings
from bulkimg.values import nearest
from bulkimg.words import count

# What an image shows besides the fields that can be changed (docs/dev/protocol.md §6).
ALSO = ("uuid", "state", "status", "size", "actualSize", "md5Sum", "url", "type", "createDate", "lastOpDate")
_CONDITION = re.compile(r"(\w+)(!=|>=|<=|!\?=|!~=|~=|\?=|=|>|<| is null| not null)(.*)", re.DOTALL)
_OPERATORS = ("!=", ">=", "<=", "!?=", "!~=", "~=", "?=", "=", ">", "<", "is null", "not null")

Where = Annotated[
    list[str],
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only images that meet this condition, as the API writes it: platform=Linux, name~=prod%, size>1000, uuid?=A,B, 'description is null'. Repeatable.",
    ),
]
Output = Annotated[
    str, typer.Option("--output", "-o", envvar="BULKIMG_OUTPUT", metavar="FILE", help="Where to; - is standard output.")
]
Chosen = Annotated[
    list[str],
    typer.Option(
        "--fields",
        envvar="BULKIMG_FIELDS",
        metavar="NAMES",
        help="Which fields, with commas.  [default: all but tags]",
        autocompletion=complete.field_names,
    ),
]
Expectations = Annotated[
    bool,
    typer.Option(
        "--with-expectations",
        envvar="BULKIMG_WITH_EXPECTATIONS",
        help="Add if_ columns, so that later edits by others are not overwritten.",
    ),
]

Force = Annotated[bool, typer.Option("--force", help="Replace --output where it exists.")]


@with_options(
    "endpoint", "base_path", "profile", "ca_file", "rate", "timeout", "max_outage", "retries", "format", "empty_token",
    "log_format", "quiet",
)  # fmt: skip
def command(
    flags: Flags,
    output: Output = "-",
    where: Where = [],  # noqa: B006 - Typer never changes it
    fields: Chosen = [],  # noqa: B006
    with_expectations: Expectations = False,
    force: Force = False,
) -> None:
    """Export, edit, run: a cell that is left as it is changes nothing."""
    asked = CommandContext(flags)
    settings = asked.settings
    conditions = [_condition(text) for text in where]
    names = _names(fields)
    kind = _format(output, settings)
    asked.require_endpoint()
    credentials = asked.credentials()
    leave_no_core()
    with asyncio.Runner(loop_factory=event_loop()) as runner, _writing(output, kind, force=force) as file:
        writer = ManifestWriter(file.write, kind, names, settings.empty_token, expectations=with_expectations)
        runner.run(_export(settings, credentials, conditions, names, writer.write))
        writer.close()
        file.flush()
    for name, number in writer.left_out.items():
        screen.note(f"{count(number, 'image')} with a {name} that UpdateImage does not accept: those cells are blank")
    following = "" if output == "-" else f"; edit {output}, then: {shlex.join(['bulkimg', 'plan', output])}"
    screen.note(f"{count(writer.count, 'image')} exported{following}")


async def _export(
    settings: Settings,
    credentials: Credentials,
    conditions: Sequence[str],
    names: Collection[str],
    write: Callable[[dict[str, Any]], None],
) -> None:
    watcher = Watcher(settings.model_copy(update={"progress": "none"}))
    async with reading(settings, credentials, watcher) as reader:
        async for image in all_images(reader, conditions, names):
            write(image)
            if not screen.has_reader():
                break


@contextmanager
def _writing(output: str, kind: str, *, force: bool) -> Iterator[TextIO]:
    """Replace the file as a whole, or not at all."""
    if output == "-":
        yield sys.stdout
        return
    path = option_path("--output", output)
    if not path.parent.is_dir():
        raise UsageError(
            f"--output {output}: the directory {path.parent} does not exist; create it, or choose another path"
        )
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError(f"--output {output}: not a regular file; choose another path")
    if path.exists() and not force:
        raise UsageError(f"--output {output}: exists already and is left as it is; choose another path, or add --force")
    with replacing(path) as file:
        if kind != "jsonl":
            file.write("\ufeff")  # so that a spreadsheet, and bulkimg with any configuration, read UTF-8
        yield file


def _condition(text: str) -> str:
    """Check that the server splits the condition as it is meant: at the first of its operators, wherever it is (§6)."""
    found = _CONDITION.fullmatch(text)
    if not found:
        raise UsageError(f"--where {text!r}: is not a condition such as platform=Linux, name~=prod% or size>1000")
    name, sign = found[1], found[2].strip()
    known = (*(field for field in FIELDS if field not in TAGS), *ALSO)
    if name not in known:
        raise UsageError(f"--where {text!r}: {name!r} is not a field to ask for{nearest(name, known)}")
    first = next(operator for operator in _OPERATORS if operator in text)
    if first != sign or text.index(first) != len(name) + (len(found[2]) - len(sign)):
        raise UsageError(
            f"--where {text!r}: the server splits conditions at {first!r}, so this value cannot be searched for; use ~= with % in its place"
        )
    return text


def _names(fields: Sequence[str]) -> list[str]:
    names = [name.strip() for text in fields for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FIELDS:
            raise UsageError(f"--fields: {name!r} is not a field{nearest(name, FIELDS)}")
    return list(dict.fromkeys(names)) or [name for name in FIELDS if name not in TAGS]


def _format(output: str, settings: Settings) -> str:
    if settings.format in ("xlsx", "parquet"):
        raise UsageError(f"--format {settings.format}: an export is CSV, TSV or JSONL; choose one of them")
    if settings.format:
        return "jsonl" if settings.format in ("jsonl", "ndjson") else settings.format
    suffix = Path(output).suffix.lower()
    kinds = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", "": "csv"}
    if suffix not in kinds:
        raise UsageError(f"--output {output}: name it .csv, .tsv, .jsonl or .ndjson, or give --format")
    return kinds[suffix]
