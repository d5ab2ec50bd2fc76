"""`bulkimg ctl`: tell a run in another process to go faster, to pause or to stop."""

from typing import Annotated, Any

import typer

from bulkimg.campaign import Campaign
from bulkimg.cli import complete, screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, with_options
from bulkimg.cli.resume import Run, find_any
from bulkimg.engine.control import ask, parse_orders
from bulkimg.engine.steering import in_words
from bulkimg.errors import Exit, RunRefused
from bulkimg.live import status_of

_ENDED = frozenset({"done", "stopped", "refused"})  # states of a run that its process executes no more

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
    found = find_any(run, flags)
    is_json = CommandContext(flags).settings.json_summary
    if isinstance(found, Campaign):
        _campaign(found, orders, is_json=is_json)
        return
    status = ask(found.path, orders)
    if is_json:
        screen.out_json(status)
        return
    screen.out(screen.one_line(in_words(status)))


def _campaign(known: Campaign, orders: list[str], *, is_json: bool) -> None:
    """Send the orders to every run that is under way. Raises RunRefused if none is."""
    parse_orders(orders)  # before the first run has obeyed
    obeyed: dict[str, dict[str, Any]] = {}
    refused: dict[str, RunRefused] = {}
    for target, run in known.runs().items():
        if not run.is_held():
            continue
        try:
            obeyed[target] = ask(run.path, orders)
        except RunRefused as error:
            if status_of(run)["state"] not in _ENDED:  # it has not begun, or waits for another run
                refused[target] = error
    if not obeyed and not refused:
        raise RunRefused(f"campaign {known.campaign_id} takes no orders: no process executes one of its runs")
    code = Exit.REFUSED if refused else Exit.OK
    if is_json:
        statuses = [{"target": target, "status": status} for target, status in obeyed.items()]
        errors = [{"target": target, "error": str(why)} for target, why in refused.items()]
        screen.out_json(
            {"schema": 1, "exit_code": int(code), "campaign": known.campaign_id, "targets": statuses, "refused": errors}
        )
    else:
        for target, status in obeyed.items():
            screen.out(screen.one_line(f"{target}: {in_words(status)}"))
        for target, why in refused.items():
            screen.error(screen.one_line(f"{target}: {why}"))
    raise typer.Exit(code)
