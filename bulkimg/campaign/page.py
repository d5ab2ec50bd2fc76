"""Draw a campaign: one page with the sum of its targets and a link to the report of each."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bulkimg.campaign.directory import Campaign
from bulkimg.ledger.files import replacing
from bulkimg.report import render
from bulkimg.words import count


def pages(document: Mapping[str, Any], campaign: Campaign, at: float) -> Iterator[str]:
    """Yield the page in pieces. `document` is the campaign's status, `at` the time in seconds since the epoch."""
    verdict, tone = _verdict(document)
    return render.page(
        "campaign.html",
        styles=("page.css", "report.css"),
        campaign=document,
        verdict=verdict,
        tone=tone,
        at=at,
        tiles=[(status, number) for status, number in document["counts"].items() if number],
        facts=[(name, value) for name, value in _facts(document, campaign) if value],
    )


def write_page(document: Mapping[str, Any], campaign: Campaign, at: float) -> Path:
    """Write the campaign's report.html. Raises StorageError."""
    path = campaign.path / "report.html"
    with replacing(path, f"{os.getpid()}.tmp") as file:
        for piece in pages(document, campaign, at):
            file.write(piece)
    return path


def _verdict(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return what became of the campaign in one sentence, and its tone."""
    targets, rows = count(len(document["targets"]), "target"), document["rows"]
    bad = [each["target"] for each in document["targets"] if each["status"]["exit_code"] not in (0, None)]
    if document["state"] == "done" and not document["not_fine"]:
        return f"Finished: all {count(rows, 'row')} of {targets} updated or was so already.", "good"
    if document["state"] == "done":
        return f"Finished, but {document['not_fine']:,} of {count(rows, 'row')} are not fine ({', '.join(bad)}).", "bad"
    if document["running"]:
        return f"Running: {document['settled']:,} of {count(rows, 'row')} of {targets} have their outcome.", "open"
    if document["state"] == "planned":
        return f"Planned for {targets}: nothing was sent.", "open"
    names = ", ".join(each["target"] for each in document["targets"] if each["status"]["state"] != "done")
    return f"Not finished: {names}. {document['settled']:,} of {count(rows, 'row')} have their outcome.", "bad"


def _facts(document: Mapping[str, Any], campaign: Campaign) -> Iterator[tuple[str, str]]:
    yield "Manifest", str(campaign.facts.get("manifest") or "")
    yield "Job", str(campaign.facts.get("job") or "")
    yield f"{document['kind'].capitalize()} of", str(document["of"] or "")
    yield "Created at", str(campaign.facts.get("created_at") or "")
    yield "Directory", document["directory"]
    yield "Cannot be read", "; ".join(document["unreadable"])
    yield "Removed since", ", ".join(document["removed"])
