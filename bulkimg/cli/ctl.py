"""`bulkimg ctl`: tell a run in another process to go faster, to pause or to stop."""

from typing import Annotated

import typer

from bulkimg.cli import complete, screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, with_options
from bulkimg.cli.resume import Run, find
from bulkimg.engine.control import ask
from bulkimg.engine.steering import in_words

Orders = Annotated[
    list[str],
    typer.Argument(
        metavar="ORDER…",
        autocompletion=complete.orders,
        help="rate=N/s, concurrency=N, pause, go, stop or status, carried out in this order.",
    ),
]


@with_options("runs_dir", *SPEECH)
def command(run: Run, orders: Orders, flags: Flags) -> None:
    """What is changed holds for the rest of the run, also when it is resumed. Shows the status once the run has obeyed."""
    status = ask(find(run, flags).path, orders)
    if CommandContext(flags).settings.json_summary:
        screen.out_json(status)
        return
    screen.out(screen.one_line(in_words(status)))
