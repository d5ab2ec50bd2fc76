"""Complete words in the shell: run ids, fields, values, profiles, orders. Nothing fails; a Tab then shows nothing."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import typer

Found = list[tuple[str, str]]  # a word, and what it is


def words(*known: str) -> Callable[[str], Found]:
    """Complete one of a few words."""

    def complete(incomplete: str) -> Found:
        return [(word, "") for word in known if word.startswith(incomplete)]

    return complete


orders = words("rate=", "concurrency=", "pause", "go", "stop", "status")
_COLUMNS = ("uuid=", "line=", "status=")


def runs(ctx: typer.Context, incomplete: str) -> Found:
    """Complete run ids, newest first, each with its manifest and state, and `last`."""
    from pathlib import Path

    from bulkimg.errors import BulkimgError
    from bulkimg.ledger import Ledger, list_runs

    found: Found = [("last", "the newest run")] if "last".startswith(incomplete) else []
    with suppress(OSError, BulkimgError):
        place = Path(ctx.params.get("runs_dir") or os.environ.get("BULKIMG_RUNS_DIR") or "runs")
        for directory in reversed(list_runs(place)):
            if not directory.run_id.startswith(incomplete):
                continue
            with suppress(OSError, BulkimgError):
                ledger = Ledger.open(directory.ledger, read_only=True)
                found.append((directory.run_id, f"{ledger.meta('manifest')}, {ledger.meta('state')}"))
                ledger.close()
    return found


def fields(incomplete: str) -> Found:
    """Complete the field of COLUMN=FIELD."""
    column, equals, start = incomplete.partition("=")
    names = ("uuid", *_fields()) if equals else ()
    return [(f"{column}={name}", "") for name in names if name.startswith(start)]


def assignments(incomplete: str) -> Found:
    """Complete the field of FIELD=VALUE, then a value that the API knows."""
    return _valued(incomplete, _fields())


def choices(incomplete: str) -> Found:
    """Complete FIELD=VALUE for the fields with a list of values."""
    from bulkimg.model import CHOICES

    return _valued(incomplete, tuple(CHOICES))


def columns(incomplete: str) -> Found:
    """Complete the column of COLUMN=VALUE with fields: the manifest's columns are not known here."""
    return [(name, "") for name in _COLUMNS if name.startswith(incomplete)] + _valued(incomplete, _fields())


def field_names(incomplete: str) -> Found:
    """Complete field names, separated by commas."""
    before, comma, start = incomplete.rpartition(",")
    return [(f"{before}{comma}{name}", "") for name in _fields() if name.startswith(start)]


def profiles(incomplete: str) -> Found:
    """Complete the profiles of the configuration file."""
    from bulkimg.errors import BulkimgError
    from bulkimg.layers import config_file, read_toml

    with suppress(OSError, BulkimgError):
        path = config_file(os.environ)
        found = read_toml(path).get("profile")
        names = found if isinstance(found, dict) else ()
        return [(name, str(path)) for name in names if name.startswith(incomplete)]
    return []


def plugins(incomplete: str) -> Found:
    """Complete the installed plugins, each with its package. None is imported."""
    from importlib.metadata import entry_points

    with suppress(Exception):  # damaged files of any installed package
        found = sorted(entry_points(group="bulkimg"), key=lambda entry: entry.name)
        return [
            (entry.name, entry.dist.name if entry.dist else "") for entry in found if entry.name.startswith(incomplete)
        ]
    return []


def _fields() -> tuple[str, ...]:
    from bulkimg.model import FIELDS

    return FIELDS


def _valued(incomplete: str, names: tuple[str, ...]) -> Found:
    name, equals, start = incomplete.partition("=")
    if equals:
        return [(f"{name}={value}", "") for value in _values(name) if value.startswith(start)]
    return [(f"{known}=", "") for known in names if known.startswith(incomplete)]


def _values(name: str) -> Iterator[Any]:
    from bulkimg.model import CHOICES, FLAGS

    yield from CHOICES.get(name, ("true", "false") if name in FLAGS else ())
