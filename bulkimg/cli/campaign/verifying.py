"""Compare the images of every target with what a campaign wanted."""

import asyncio
from typing import NoReturn

import typer

from bulkimg.campaign import Campaign
from bulkimg.campaign.totals import worst
from bulkimg.cli import screen
from bulkimg.cli.campaign.targets import credentials_of, stored_targets, warn_of_shared
from bulkimg.cli.options import CommandContext, Flags
from bulkimg.cli.verify import document, look, show_drift
from bulkimg.engine.look import Drift
from bulkimg.errors import BulkimgError
from bulkimg.process import event_loop, leave_no_core


def verify_and_exit(known: Campaign, flags: Flags) -> NoReturn:
    """Verify every run of a campaign, one after the other. A server that cannot be asked prevents no other."""
    settings = CommandContext(flags).settings
    contexts, unread = stored_targets(known, flags)
    warn_of_shared(contexts)
    credentials, runs = credentials_of(contexts), known.runs()
    failed: dict[str, BulkimgError] = dict(unread)
    looked: dict[str, tuple[int, list[Drift]]] = {}
    leave_no_core()
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        for name, context in contexts.items():
            try:
                looked[name] = runner.run(look(runs[name], context.settings, credentials[name]))
            except BulkimgError as error:
                failed[name] = error
    documents = [
        {
            "target": name,
            **document(run, *looked.get(name, (0, []))),
            "error": str(failed.get(name, "")),
            **({"exit_code": int(failed[name].exit_code)} if name in failed else {}),
        }
        for name, run in runs.items()
    ]
    code = worst(each["exit_code"] for each in documents)
    if settings.json_summary:
        images = sum(images for images, _ in looked.values())
        screen.out_json(
            {"schema": 1, "exit_code": code, "campaign": known.campaign_id, "images": images, "targets": documents}
        )
    else:
        for name, run in runs.items():
            if name in failed:
                screen.error(screen.one_line(f"{name}: {failed[name]}"))
            else:
                show_drift(run, *looked[name])
    raise typer.Exit(code)
