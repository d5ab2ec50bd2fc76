"""`bulkimg merge`: one run of the runs of all shards."""

import time
from typing import Annotated

import typer

from bulkimg.cli import complete, screen
from bulkimg.cli.execute import show
from bulkimg.cli.options import SPEECH, CommandContext, Flags, with_options
from bulkimg.cli.resume import find
from bulkimg.engine.merge import create_merged
from bulkimg.report import Narrator

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN",
        help="The runs of all shards: ids, their beginnings, or directories.",
        autocompletion=complete.runs,
    ),
]
Partial = Annotated[
    bool, typer.Option("--partial", help="Merge although a shard is missing or not finished; its rows stay open.")
]


@with_options("run_id", "note", "results", "runs_dir", *SPEECH)
def command(runs: Runs, flags: Flags, partial: Partial = False) -> None:
    """Sends nothing. status, report, retry and undo then work on the whole."""
    directories = [find(name, flags) for name in runs]
    settings = CommandContext(flags).settings
    narrator = Narrator()
    summary = create_merged(
        directories,
        settings,
        time.time,
        lambda event: screen.warning(screen.one_line(narrator.sentence(event))),
        partial=partial,
    )
    show(summary, settings)
    raise typer.Exit(summary.exit_code)
