"""Open the runs of a campaign: new ones for the targets of a job, or those that are there already."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import typer

from bulkimg.campaign import Campaign, create
from bulkimg.campaign.directory import hold
from bulkimg.campaign.execute import Ended
from bulkimg.campaign.totals import status_document, summary_document
from bulkimg.cli import screen
from bulkimg.cli.campaign.targets import (
    credentials_of,
    read_targets,
    stored_options,
    stored_targets,
    warn_of_shared,
)
from bulkimg.cli.options import CommandContext, Flags
from bulkimg.cli.problems import remarks, show_problems
from bulkimg.credentials import Credentials
from bulkimg.engine.close import refusal, refuse
from bulkimg.engine.reopen import edited_manifest, resume_run
from bulkimg.engine.run import OpenRun
from bulkimg.engine.together import check_apart, own_results
from bulkimg.errors import BulkimgError, Exit, RunRefused, StorageError
from bulkimg.ledger import RunDirectory
from bulkimg.settings import Settings


@dataclass
class Opened:
    """The open runs of a campaign with what executing them needs, by target."""

    campaign: Campaign
    settings: Settings  # of the command as a whole
    runs: dict[str, OpenRun]
    credentials: dict[str, Credentials]
    errors: dict[str, BulkimgError] = field(default_factory=dict)  # why a run cannot be executed


def begin(asked: CommandContext, flags: Flags, job: Path, source: str, *, plan_only: bool = False) -> Opened:
    """Create the runs of a job, or reopen those that --run-id names. Otherwise show the problems and exit."""
    settings = asked.settings
    contexts = read_targets(settings, flags, job)
    names = tuple(contexts)
    credentials = credentials_of(contexts)
    warn_of_shared(contexts)
    targets = {name: context.settings for name, context in contexts.items()}
    if known := named(settings, names, "run", None):
        options, errors = stored_options(known)
        _refuse_other_work(known, source, targets, options)
        screen.note(f"resuming campaign {known.campaign_id}")
        resumed = {
            name: create.own_settings(name, contexts[name].resuming(options[name]), str(job)) for name in options
        }
        return _again(known, Opened(known, settings, {}, credentials, errors), resumed)
    made, runs = create.create_campaign(
        source, settings, targets, str(job.absolute()), plan_only=plan_only, tell=screen.note
    )
    opened = Opened(made, settings, runs, credentials)
    for remark in dict.fromkeys(remark for run in runs.values() for remark in remarks(run.ledger)):
        screen.note(screen.one_line(remark))
    if why := refusal(*runs.values()):
        _refuse(opened, why)
    return opened


def named(settings: Settings, names: Collection[str], kind: str, of: str | None) -> Campaign | None:
    """Return the campaign that --run-id names if it can be resumed, or None if a new one may have the name.

    `kind` and `of` are what it must be and the campaign that it must retry or undo. Raises RunRefused like a single run.
    """
    known = create.resumable(settings, names)
    if known is None:
        return None
    if status_document(known)["state"] == "done":
        raise RunRefused(
            f"campaign {known.campaign_id} is finished and cannot be resumed; choose another --run-id, or see "
            f"bulkimg status {known.words}"
        )
    if (known.kind, known.facts.get("of")) != (kind, of):
        raise RunRefused(
            f"campaign {known.campaign_id} does different work; choose another --run-id, or finish it with "
            f"bulkimg resume {known.words}"
        )
    return known


def _refuse_other_work(
    known: Campaign, source: str, targets: Mapping[str, Settings], options: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise RunRefused if the campaign of that name has other targets, other servers or another manifest.

    `options` are those that its runs began with.
    """
    if set(targets) != {member.target for member in known.members}:
        raise RunRefused(
            f"campaign {known.campaign_id} has the targets {', '.join(member.target for member in known.members)}; "
            "choose another --run-id"
        )
    runs = known.runs()
    for name, stored in options.items():
        if (begun := f"{stored.get('endpoint')}{stored.get('base_path')}") != targets[name].target:
            raise RunRefused(
                f"run {runs[name].run_id} was started against {begun}, not {targets[name].target}; choose another --run-id"
            )
    for run in [runs[name] for name in options][
        :1
    ]:  # all have the same manifest, and standard input can be read only once
        if edited := edited_manifest(run, source):
            raise RunRefused(
                f"{edited}: not the manifest of campaign {known.campaign_id}; choose another --run-id, or send the rest "
                f"of its own manifest with bulkimg resume {known.words}"
            )


def _refuse(opened: Opened, why: str) -> NoReturn:
    """Refuse the whole manifest: nothing is sent to any target."""
    ended: dict[str, Ended] = {}
    shown: set[str] = set()
    for name, run in opened.runs.items():
        show_problems(run.ledger, shown)
        ended[name] = Ended(refuse(run, why))
        run.close()
    screen.error(why)
    if opened.settings.json_summary:
        screen.out_json(summary_document(opened.campaign, ended))
    else:
        screen.note(f"Nothing was sent to any target. Every row with its problem: {opened.campaign.path}.*/results.csv")
    raise typer.Exit(Exit.MANIFEST)


def again(known: Campaign, flags: Flags, *, planned: bool = False) -> Opened:
    """Reopen the runs of a campaign that are not finished. `planned`: nothing was sent of them yet."""
    contexts, errors = stored(known, flags, "resume")
    settings = {name: context.settings for name, context in contexts.items()}
    opened = Opened(known, CommandContext(flags).settings, {}, credentials_of(contexts), errors)
    return _again(known, opened, settings, planned=planned)


def _again(known: Campaign, opened: Opened, settings: Mapping[str, Settings], *, planned: bool = False) -> Opened:
    """Lock the campaign, and reopen its runs with these settings. What cannot be reopened is an error of its target."""
    hold(known.path)
    runs = known.runs()
    for name, each in settings.items():
        own = {"results": own_results(name, each.results)} if each.results else {}
        try:
            opened.runs[name] = resume_run(runs[name], placed(each.model_copy(update=own), runs[name]), planned=planned)
        except (RunRefused, StorageError) as error:
            opened.errors[name] = error
    if not opened.runs:
        raise next(iter(opened.errors.values()), RunRefused(f"campaign {known.campaign_id} has no runs any more"))
    return opened


def stored(
    known: Campaign, flags: Flags, command: str, left_out: Collection[str] = ()
) -> tuple[dict[str, CommandContext], dict[str, BulkimgError]]:
    """Return what is asked of each run, from its own options without `left_out`, and why a run cannot be read."""
    contexts, errors = stored_targets(known, flags, left_out)
    for context in contexts.values():
        context.refuse_dry_run(command)
    check_apart({name: context.settings for name, context in contexts.items()})
    warn_of_shared(contexts)
    return contexts, errors


def placed(settings: Settings, directory: RunDirectory) -> Settings:
    """Return the settings with the runs directory that this run is in."""
    return settings.model_copy(update={"runs_dir": directory.path.parent})
