"""Print how a campaign ended, and what it is now."""

from collections.abc import Mapping
from typing import Any

from bulkimg.campaign.execute import Ended
from bulkimg.cli import screen
from bulkimg.cli.execute import cause_line, counts_line
from bulkimg.errors import Exit
from bulkimg.words import count


def show(document: Mapping[str, Any], ended: Mapping[str, Ended], words: str) -> None:
    """Print the end of each target's run, and then the command for all."""
    for name, one in ended.items():
        if one.summary is None:
            screen.note(screen.one_line(f"{name}: {one.error or 'not begun'}"))
            continue
        if one.summary.reason:
            screen.note(screen.one_line(f"{name}: stopped: {one.summary.reason}"))
        screen.note(f"{name}: {counts_line(one.summary)}")
        for cause in one.summary.causes[:3]:
            screen.note(screen.one_line(f"  {cause_line(cause)}"))
        screen.note(f"results: {one.summary.directory}/results.csv")
    if document["next"]:
        screen.note(f"next:    {document['next']}")
    elif document["exit_code"] == Exit.OK and document["counts"]["updated"]:
        undo = f" · take back: bulkimg undo {words}" if _is_surveyed(ended) else ""
        screen.note(f"check:   bulkimg verify {words}{undo}")


def _is_surveyed(ended: Mapping[str, Ended]) -> bool:
    """Return whether the old values of every target are known, so that all can be undone."""
    return all(one.summary and one.summary.details["plan"]["surveyed"] for one in ended.values())


def show_status(document: Mapping[str, Any]) -> None:
    """Print the status of a campaign: one line a target, and the next command."""
    screen.out(screen.one_line(f"campaign {document['campaign']} ({document['kind']}): {document['state']}"))
    lines = []
    for each in document["targets"]:
        run = each["status"]
        counts = ", ".join(f"{number:,} {status}" for status, number in run["counts"].items() if number)
        lines.append((each["target"], run["state"], run["plan"] or counts or "no rows", run["target"]))
    screen.out(screen.table(lines))
    for sentence in document["unreadable"]:
        screen.error(screen.one_line(sentence))
    if document["removed"]:
        screen.out(screen.one_line(f"removed since: {', '.join(document['removed'])}"))
    screen.out(f"{document['settled']:,} of {count(document['rows'], 'row')} settled")
    if document["next"]:
        screen.out(screen.one_line(f"next: {document['next']}"))
