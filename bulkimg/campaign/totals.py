"""Add up the runs of a campaign: counts, exit code, next command, as documents for people and programs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from bulkimg.campaign.directory import Campaign
from bulkimg.campaign.execute import Ended
from bulkimg.engine.close import summary_document as run_document
from bulkimg.errors import BulkimgError, Exit
from bulkimg.ledger import RunDirectory
from bulkimg.live import status_of
from bulkimg.model import PlanCounts, Status
from bulkimg.report.documents import CampaignDocument, CampaignStatusDocument

# The worst first. What the operator did comes after what a disk did.
_WORST = (
    Exit.STORAGE,
    Exit.INTERRUPTED,
    Exit.TERMINATED,
    Exit.TARGET,
    Exit.ERROR_LIMIT,
    Exit.REFUSED,
    Exit.TIME_BOX,
    Exit.MANIFEST,
    Exit.USAGE,
    Exit.SOME_ROWS_NOT,
    Exit.CHANGES,
    Exit.OK,
)
_VERBS = ("resume", "apply", "retry")  # what is done first


def worst(codes: Iterable[int]) -> int:
    """Return the worst of several exit codes."""
    found = set(codes)
    return next((int(code) for code in _WORST if code in found), int(Exit.OK))


def following(campaign: Campaign, commands: Iterable[str | None]) -> str | None:
    """Return the next command for the campaign, from those of its runs.

    A run that never reached its server names the command that began it. Of an undo or a retry that command would make
    another campaign, so the one that is there is resumed.
    """
    by_verb = {command.split()[1]: command for command in commands if command}
    verb = next((verb for verb in _VERBS if verb in by_verb), None)
    if not verb and by_verb and campaign.kind != "run":
        verb = "resume"
    return f"bulkimg {verb} {campaign.words}" if verb else next(iter(by_verb.values()), None)


def summary_document(
    campaign: Campaign, ended: Mapping[str, Ended], plans: Mapping[str, PlanCounts] | None = None
) -> dict[str, Any]:
    """Return the end of a campaign as a JSON object.

    `ended` has the targets that this command executed, `plans` the plans that it made.
    """
    counts: Counter[str] = Counter()
    for one in ended.values():
        counts.update(one.summary.counts if one.summary else {})
    commands = [one.summary.details["next"] for one in ended.values() if one.summary]
    run_ids = {member.target: member.run_id for member in campaign.members}
    begun_all = all(one.summary or one.error for one in ended.values())
    next_command = following(campaign, commands) if begun_all else f"bulkimg resume {campaign.words}"
    if next_command is None and any(one.error for one in ended.values()):
        next_command = f"bulkimg resume {campaign.words}"
    return CampaignDocument.model_validate(
        {
            **_head(campaign),
            "exit_code": worst(one.exit_code for one in ended.values()),
            "counts": {status.value: counts[status] for status in Status},
            "rows": sum(counts.values()),
            "targets": [
                {
                    "target": name,
                    "run_id": run_ids.get(name, ""),
                    "exit_code": one.exit_code,
                    "error": str(one.error or ""),
                    "summary": run_document(one.summary) if one.summary else None,
                    "changes": asdict(plans[name]) if plans and name in plans else None,
                }
                for name, one in ended.items()
            ],
            "next": next_command,
        }
    ).as_json()


def status_document(campaign: Campaign) -> dict[str, Any]:
    """Return what the campaign's runs are now as a JSON object. Runs that were removed are left out."""
    counts: Counter[str] = Counter()
    found = campaign.runs()
    runs, unreadable = _statuses(found)
    for run in runs.values():
        counts.update(run["counts"])
    codes = [run["exit_code"] for run in runs.values()]
    return CampaignStatusDocument.model_validate(
        {
            **_head(campaign),
            "state": _state([run["state"] for run in runs.values()]),
            "running": any(run["running"] for run in runs.values()),
            "rows": sum(run["rows"] for run in runs.values()),
            "settled": sum(run["settled"] for run in runs.values()),
            "not_fine": sum(run["not_fine"] for run in runs.values()),
            "counts": {status.value: counts[status] for status in Status},
            "exit_code": worst(codes) if codes and None not in codes else None,
            "targets": [{"target": target, "status": run} for target, run in runs.items()],
            "removed": [member.run_id for member in campaign.members if member.target not in found],
            "unreadable": unreadable,
            "next": None
            if any(run["running"] for run in runs.values())
            else following(campaign, [run["next"] for run in runs.values()]),
        }
    ).as_json()


def _statuses(found: Mapping[str, RunDirectory]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the status of each run, and a sentence for each that cannot be read."""
    runs: dict[str, dict[str, Any]] = {}
    unreadable: list[str] = []
    for target, run in found.items():
        try:
            runs[target] = status_of(run)
        except BulkimgError as error:
            unreadable.append(f"{target}: {error}")
    return runs, unreadable


def _head(campaign: Campaign) -> dict[str, Any]:
    return {
        "campaign": campaign.campaign_id,
        "directory": str(campaign.path),
        "kind": campaign.kind,
        "of": campaign.facts.get("of"),
    }


def _state(states: list[str]) -> str:
    """Return the state of the whole: of its runs, the one that needs attention first."""
    order = ("running", "reading", "interrupted", "abandoned", "stopped", "ready", "planned", "refused", "done")
    return next((state for state in order if state in states), "removed")
