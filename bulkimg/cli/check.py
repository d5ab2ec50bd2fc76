"""This file is `bulkimg check`: every problem of a manifest, offline."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import MANIFEST, Flags, takes
from bulkimg.cli.problems import document
from bulkimg.cli.run import Source, ask_for
from bulkimg.engine import begin
from bulkimg.errors import Exit
from bulkimg.ledger import tally


@takes(*MANIFEST, "json")
def command(source: Source, flags: Flags) -> None:
    """List every problem with its fix; sends nothing."""
    asked, source = ask_for(source, flags)
    with tempfile.TemporaryDirectory(prefix="bulkimg-") as place:
        run = begin(source, asked.settings.model_copy(update={"runs_dir": Path(place), "results": None}))
        found, bad, _ = tally.problem_counts(run.ledger)
        rows, merged = tally.rows_in_all(run.ledger), run.ledger.meta("merged")
        if asked.settings.json_summary:
            listed = [asdict(problem) for problem in tally.problems(run.ledger)]
            head = {"manifest": source, "sha256": run.ledger.meta("sha256"), "rows": rows, "merged": merged}
            screen.out_json(head | {"rows_with_problems": bad, "problems": listed})
        else:
            for line in document(run.ledger):
                screen.out(line)
            also = f", {merged:,} merged into others of the same image" if merged else ""
            screen.note(f"{source}: {rows:,} rows, {found:,} problems in {bad:,} of them{also}")
        run.close()
    if found:
        raise typer.Exit(Exit.MANIFEST)
