"""`bulkimg report`: draw a run as one page, while it runs, when it is done, or after it died."""

import os
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from bulkimg.campaign import Campaign
from bulkimg.cli import complete, screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, option_path, with_options
from bulkimg.cli.resume import find, find_any
from bulkimg.cli.status import Run
from bulkimg.errors import BulkimgError, RunRefused, StorageError, UsageError
from bulkimg.ledger import Ledger, RunDirectory, insight
from bulkimg.ledger.files import replacing, write_plan
from bulkimg.ledger.store import storage_errors

Out = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; - for standard output.  [default: report.html in the run's directory]", show_default=False)
]  # fmt: skip
Plan = Annotated[bool, typer.Option("--plan", help="Write the run's plan.html and plan.csv too.")]
Open = Annotated[bool, typer.Option("--open", help="Open it in the browser.")]
Compare = Annotated[
    str | None, typer.Option("--compare", metavar="RUN", help="Show the figures of another run next to it.", autocompletion=complete.runs)
]  # fmt: skip


@with_options("runs_dir", *SPEECH)
def command(
    flags: Flags, run: Run = "last", out: Out = None, open_it: Open = False, compare: Compare = None, plan: Plan = False
) -> None:
    """Reads only; never in the way of the run."""
    directory = find_any(run, flags)
    if isinstance(directory, Campaign):
        given = plan or out is not None or compare is not None
        _campaign(directory, flags, open_it=open_it, given=given)
        return
    other = find(compare, flags) if compare is not None else None
    as_json = CommandContext({key: flags[key] for key in SPEECH if key in flags}).settings.json_summary
    if out == "-" and (open_it or as_json):
        raise UsageError("--out -: standard output is the page itself; give a file for --open and --json")
    path = directory.path / "report.html" if out in (None, "-") else option_path("--out", out)
    if out != "-":
        _check_place(path)
    text = _drawn(directory, other)
    if out == "-":
        screen.out(text)
        return
    with storage_errors(path), replacing(path, f"{os.getpid()}.tmp") as file:
        file.write(text)
    written = {"report": str(path)} | ({"plan": str(_plan_drawn(directory))} if plan else {})
    if as_json:
        screen.out_json({"schema": 1, "exit_code": 0, "run_id": directory.run_id, **written})
    else:
        for place in written.values():
            screen.out(place)
    if open_it:
        _open(path)


def _campaign(campaign: Campaign, flags: Flags, *, open_it: bool, given: bool) -> None:
    """Draw a campaign and each of its runs again."""
    from bulkimg.campaign.page import write_page  # imported only now: `bulkimg --help` does not need the templates
    from bulkimg.campaign.totals import status_document

    if given:
        raise UsageError("--out, --compare and --plan are for one run, and this is a campaign; name one of its runs")
    for run in campaign.runs().values():
        try:
            text = _drawn(run, None)
        except BulkimgError as error:
            screen.warning(screen.one_line(str(error)))  # the other runs have their pages
            continue
        path = run.path / "report.html"
        with storage_errors(path), replacing(path, f"{os.getpid()}.tmp") as file:
            file.write(text)
    page = write_page(status_document(campaign), campaign, time.time())
    if CommandContext({key: flags[key] for key in SPEECH if key in flags}).settings.json_summary:
        screen.out_json({"schema": 1, "exit_code": 0, "campaign": campaign.campaign_id, "report": str(page)})
    else:
        screen.out(str(page))
    if open_it:
        _open(page)


def _open(path: Path) -> None:
    if not webbrowser.open(path.absolute().as_uri()):
        screen.warning(f"no browser was found; open {path} yourself")


def _check_place(path: Path) -> None:
    """Raise UsageError if the page cannot be written there, or would replace something that is no report."""
    if path.is_dir():
        raise UsageError(f"--out {path}: is a directory; give a file")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: the directory does not exist; create it, or choose another path")
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_file():
        raise UsageError(f"--out {path}: not a regular file, and the page would replace it; choose another path")
    with path.open("rb") as file:
        if b"bulkimg</title>" not in file.read(2048):
            raise UsageError(f"--out {path}: exists and is no page of bulkimg; choose another path")


def _drawn(directory: RunDirectory, other: RunDirectory | None) -> str:
    from bulkimg.report import run_page  # imported only now: `bulkimg --help` does not need the templates

    held = directory.is_held()
    ledger, earlier = readable(directory), readable(other) if other else None
    try:
        with readably(directory):
            compared = (earlier, other) if earlier and other else None
            return "".join(run_page.pages(run_page.report(ledger, directory, held=held, other=compared)))
    finally:
        ledger.close()
        if earlier:
            earlier.close()


def _plan_drawn(directory: RunDirectory) -> Path:
    """Write plan.html and plan.csv of a run that has a plan. Returns the page's path."""
    from bulkimg.report.plan_page import write_plan_page

    held = directory.is_held()
    ledger = readable(directory)
    try:
        with readably(directory):
            state = insight.state(ledger, held=held)
            if state in ("ready", "refused"):
                raise RunRefused(f"run {directory.run_id} has no plan; make one with bulkimg plan")
            write_plan(ledger, directory.path / "plan.csv")
            settings = ledger.meta("settings", {})
            target = f"{settings.get('endpoint', '')}{settings.get('base_path', '')}"
            write_plan_page(ledger, directory, target, is_open=state == "planned")
    finally:
        ledger.close()
    return directory.path / "plan.html"


def readable(directory: RunDirectory) -> Ledger:
    """Open a run that has something to show. Raises RunRefused while its manifest is being read."""
    held = directory.is_held()
    ledger = Ledger.open(directory.ledger, read_only=True)
    if ledger.meta("state", "reading") == "reading":
        ledger.close()
        if held:
            raise RunRefused(
                f"run {directory.run_id} is still reading its manifest; try again when it has begun to send"
            )
        raise RunRefused(f"run {directory.run_id} ended before its manifest was read, so there is nothing to show")
    return ledger


@contextmanager
def readably(directory: RunDirectory) -> Iterator[None]:
    """Raise what a damaged record leads to as StorageError."""
    try:
        with storage_errors(directory.ledger):
            yield
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise StorageError(
            f"{directory.ledger}: is damaged: {type(error).__name__}; restore it from a backup, or look at results.csv"
        ) from error
