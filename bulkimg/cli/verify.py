"""`bulkimg verify`: compare the images with what a run wanted."""

import asyncio
from typing import Any

import typer

from bulkimg.campaign import Campaign
from bulkimg.cli import screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, with_options
from bulkimg.cli.progress import Watcher
from bulkimg.cli.resume import Run, find_any
from bulkimg.credentials import Credentials
from bulkimg.engine.look import Drift, drift, reading
from bulkimg.engine.reopen import stored_settings
from bulkimg.errors import Exit
from bulkimg.ledger import Ledger, RunDirectory, plans
from bulkimg.planner.diff import show
from bulkimg.process import event_loop, leave_no_core
from bulkimg.settings import Settings
from bulkimg.words import count

MOST = 100  # most lines on a screen; --json has all


@with_options("profile", "ca_file", "rate", "timeout", "max_outage", "retries", "runs_dir", *SPEECH)
def command(run: Run, flags: Flags) -> None:
    """Changes nothing. Exit 1 when something has drifted."""
    directory = find_any(run, flags)
    if isinstance(directory, Campaign):
        from bulkimg.cli.campaign.verifying import verify_and_exit  # imported only now: most runs have one target

        verify_and_exit(directory, flags)
    asked = CommandContext(flags, stored=stored_settings(directory))
    credentials = asked.credentials()
    leave_no_core()
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        images, found = runner.run(look(directory, asked.settings, credentials))
    if asked.settings.json_summary:
        screen.out_json({"schema": 1, **document(directory, images, found)})
    else:
        show_drift(directory, images, found)
    raise typer.Exit(Exit.SOME_ROWS_NOT if found else Exit.OK)


def document(directory: RunDirectory, images: int, found: list[Drift]) -> dict[str, Any]:
    """Return what was found as a JSON object, without its version."""
    code = int(Exit.SOME_ROWS_NOT if found else Exit.OK)
    listed = [item._asdict() for item in found]
    return {"exit_code": code, "run_id": directory.run_id, "images": images, "drifted": listed}


async def look(directory: RunDirectory, settings: Settings, credentials: Credentials) -> tuple[int, list[Drift]]:
    """Return (images read, what has drifted)."""
    watcher = Watcher(settings.model_copy(update={"progress": "none"}))
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        images = sum(1 for _ in plans.wanted(ledger))
        async with reading(settings, credentials, watcher) as reader:
            replace = settings.tags_mode == "replace"
            return images, [item async for item in drift(ledger, reader, replace_tags=replace)]
    finally:
        ledger.close()


def show_drift(directory: RunDirectory, images: int, found: list[Drift]) -> None:
    """Print what was found."""
    rows: list[tuple[Any, ...]] = [("LINE", "IMAGE", "FIELD", "WANTED", "NOW")]
    for item in found[:MOST]:
        if item.field:
            texts = (item.field, screen.one_line(show(item.wanted)), screen.one_line(show(item.now)))
        else:
            texts = ("-", "-", "the image is gone")
        rows.append((str(item.line), item.uuid, *texts))
    if found:
        screen.out(screen.table(rows))
    if len(found) > MOST:
        screen.note(f"… and {len(found) - MOST:,} more; --json lists them all")
    drifted = len({item.uuid for item in found})
    said = f"{count(images, 'image')} checked, {drifted:,} {'differs' if drifted == 1 else 'differ'}"
    screen.note(f"run {directory.run_id}: {said if images else 'it changed no image; nothing to verify'}")
