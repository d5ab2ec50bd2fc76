"""`bulkimg results`: write the results of a run in another format, while it runs, when it is done, or after it died."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bulkimg.campaign import Campaign
from bulkimg.cli import complete, screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, user_path, with_options
from bulkimg.cli.report import readable, readably
from bulkimg.cli.resume import find_any
from bulkimg.cli.status import Run
from bulkimg.errors import UsageError
from bulkimg.ledger import Ledger, RunDirectory, stats, write_results
from bulkimg.report.documents import ResultsDocument
from bulkimg.report.tables import check_library, check_size, write_table

WHOLE = ("xlsx", "parquet")  # files that are made as a whole
KINDS = ("csv", "jsonl", *WHOLE)

As = Annotated[
    str, typer.Option("--as", metavar="FORMAT", help="csv, jsonl, xlsx or parquet.  [default: the ending of --out, else csv]", autocompletion=complete.words(*KINDS), show_default=False)
]  # fmt: skip
Out = Annotated[
    str, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; - for standard output.  [default: standard output for csv and jsonl, else results.FORMAT in the run's directory]", show_default=False)
]  # fmt: skip
Force = Annotated[bool, typer.Option("--force", help="Replace --out where it exists.")]


@with_options("runs_dir", *SPEECH)
def command(flags: Flags, run: Run = "last", kind: As = "", out: Out = "", force: Force = False) -> None:
    """Reads only; never in the way of the run. Rows without an outcome are in it as they are now."""
    directory = find_any(run, flags)
    as_json = CommandContext({key: flags[key] for key in SPEECH if key in flags}).settings.json_summary
    if isinstance(directory, Campaign):
        from bulkimg.cli.campaign.results import write_campaign  # imported only now: most runs have one target

        write_campaign(directory, kind, out, force=force, as_json=as_json)
        return
    kind = kind_of(kind, out)
    path = place_of(directory, kind, out, force=force)
    if path is None and as_json:
        raise UsageError("--json: standard output is the results themselves; give a file with --out")
    if path is None and kind in WHOLE and sys.stdout.isatty():
        raise UsageError(f"--out -: a terminal cannot show {kind}; give a file, or send standard output to one")
    check_library(f"--as {kind}", kind)
    ledger = readable(directory)
    try:
        with readably(directory):
            ledger.db.execute("BEGIN")  # one state of a living run for all that is read
            check_size_of(ledger, kind)
            write(ledger, directory, kind, path)
    finally:
        ledger.close()
    if as_json:
        screen.out_json(ResultsDocument(run_id=directory.run_id, results=str(path)).as_json())
    elif path is not None:
        screen.out(str(path))


def check_size_of(ledger: Ledger, kind: str) -> None:
    """Raise UsageError if a file of this kind cannot hold the rows."""
    check_size(f"--as {kind}", kind, stats.rows_in_all(ledger), ledger.meta("columns"))


def kind_of(kind: str, out: str) -> str:
    """Return the format that --as or the ending of --out says. Raises UsageError for an unknown one, or for two."""
    ending = Path(out).suffix.removeprefix(".") if out not in ("", "-") else ""
    if kind and kind not in KINDS:
        raise UsageError(f"--as {kind!r}: is not a format; give {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if not kind and out not in ("", "-") and ending not in KINDS:
        raise UsageError(f"--out {out}: the file name does not say the format; give --as {', '.join(KINDS)}")
    if kind and ending in KINDS and ending != kind:
        raise UsageError(f"--out {out}: ends in .{ending}, but --as is {kind}; change one of them")
    return kind or ending or "csv"


def place_of(directory: RunDirectory, kind: str, out: str, *, force: bool) -> Path | None:
    """Return where to write, or None for standard output. Raises UsageError if it cannot be, or would replace a file."""
    if out == "-" or not (out or kind in WHOLE):
        return None
    if not out:
        return directory.path / f"results.{kind}"
    path = user_path(out)
    if path.is_dir():
        raise UsageError(f"--out {path}: is a directory; give a file")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: the directory {path.parent} does not exist; create it, or choose another path")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UsageError(f"--out {path}: not a regular file, and the results would replace it; choose another path")
    if path.exists() and not force:
        raise UsageError(f"--out {path}: exists already and is left as it is; choose another path, or add --force")
    return path


def write(ledger: Ledger, directory: RunDirectory, kind: str, path: Path | None) -> None:
    """Write the file; for standard output, a private file first: its reader gets all of it or nothing."""
    if path is not None:
        _write_file(ledger, directory, kind, path, f"{os.getpid()}.tmp")
        return
    with tempfile.TemporaryDirectory(prefix="bulkimg-") as place:
        made = Path(place) / "results"
        _write_file(ledger, directory, kind, made, "tmp")
        with made.open("rb") as file:
            screen.out_bytes(file)


def _write_file(ledger: Ledger, directory: RunDirectory, kind: str, path: Path, suffix: str) -> None:
    if kind in WHOLE:
        write_table(ledger, directory, path, kind, held=directory.is_held(), suffix=suffix)
    else:
        write_results(ledger, [path], kind="jsonl" if kind == "jsonl" else "csv", suffix=suffix)
