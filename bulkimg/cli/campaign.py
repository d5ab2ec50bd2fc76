"""Execute a job with several targets: one manifest, an ordinary run for each target, one question, one end."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import typer

from bulkimg.campaign import Campaign, create, named_campaign
from bulkimg.campaign.execute import Ended, Execution, Questions, Sides
from bulkimg.campaign.totals import status_document, summary_document
from bulkimg.cli import screen
from bulkimg.cli.execute import cause_line, counts_line, difference, line_typed, nothing_to_do, typed, with_signals
from bulkimg.cli.options import CommandContext, Flags
from bulkimg.cli.plan import print_plan, read_plan, warn_of_plan
from bulkimg.cli.problems import remarks, show_problems
from bulkimg.cli.progress import Bars, Watcher, kind_of
from bulkimg.credentials import CREDENTIAL_VARIABLES, NAMES, Credentials
from bulkimg.engine.close import refusal, refuse
from bulkimg.engine.create import NothingToDo, edited_manifest, resume_run, stored_settings
from bulkimg.engine.execute import Engine
from bulkimg.engine.planning import Approve
from bulkimg.engine.run import OpenRun
from bulkimg.engine.steering import in_words
from bulkimg.engine.together import check_apart, own_results
from bulkimg.errors import BulkimgError, Exit, RunRefused, StorageError, UsageError
from bulkimg.ledger import RunDirectory, stats
from bulkimg.model import CanaryPassed, PlanCounts, iso_utc
from bulkimg.process import allow_files, event_loop, leave_no_core
from bulkimg.report import plan_line
from bulkimg.settings import Settings
from bulkimg.values import parse_endpoint
from bulkimg.words import count


@dataclass
class Opened:
    """The open runs of a campaign with what executing them needs, by target."""

    campaign: Campaign
    settings: Settings  # of the command as a whole
    runs: dict[str, OpenRun]
    credentials: dict[str, Credentials]
    errors: dict[str, BulkimgError] = field(default_factory=dict)  # why a run cannot be executed


# -- open ---------------------------------------------------------------------------------------------------------------


def begin(asked: CommandContext, flags: Flags, job: Path, source: str, *, plan_only: bool = False) -> Opened:
    """Create the runs of a job, or reopen those that --run-id names. Otherwise show the problems and exit."""
    settings = asked.settings
    names = create.chosen(settings)
    contexts = {name: _context(flags, job, name) for name in names}
    credentials = {name: context.credentials() for name, context in contexts.items()}
    _warn_of_shared(contexts)
    if settings.run_id and (known := _resumable(settings, names)):
        _refuse_other_work(known, source, names)
        if status_document(known)["state"] == "done":
            raise RunRefused(
                f"campaign {known.campaign_id} is finished and cannot be resumed; choose another --run-id, or see "
                f"bulkimg status {known.words}"
            )
        screen.note(f"resuming campaign {known.campaign_id}")
        return again(known, flags)
    targets = {name: context.settings for name, context in contexts.items()}
    made, runs = create.create_campaign(
        source, settings, targets, str(job.absolute()), plan_only=plan_only, tell=screen.note
    )
    opened = Opened(made, settings, runs, credentials)
    for remark in dict.fromkeys(remark for run in runs.values() for remark in remarks(run.ledger)):
        screen.note(screen.one_line(remark))
    if why := refusal(*runs.values()):
        _refuse(opened, why)
    return opened


def _resumable(settings: Settings, names: tuple[str, ...]) -> Campaign | None:
    """Return the campaign that --run-id names, or None if a new one may have the name."""
    create.free_name(settings.runs_dir, str(settings.run_id), names)
    return named_campaign(settings.runs_dir, str(settings.run_id))


def _context(flags: Flags, job: Path, name: str) -> CommandContext:
    try:
        context = CommandContext(flags, job=job, target=name)
        context.require_endpoint()
        _refuse_foreign(context)
    except UsageError as error:
        raise UsageError(f"target {name}: {error}") from None
    return context


def _refuse_foreign(context: CommandContext) -> None:
    """Raise UsageError if the profile is for another server: its credentials must not go there."""
    own, endpoint = context.profile_endpoint, context.settings.endpoint
    if own is None:
        return
    try:
        is_same = parse_endpoint(own) == endpoint
    except ValueError:
        is_same = False
    if not is_same:
        raise UsageError(
            f"profile {context.profile} is for {own}, and the target is {endpoint}; use a profile for that server, so that "
            "its credentials go nowhere else"
        )


def _warn_of_shared(contexts: Mapping[str, CommandContext]) -> None:
    """Warn if several targets get the same credentials."""
    if len(contexts) < 2:
        return
    place = os.environ.get("CREDENTIALS_DIRECTORY")
    given = [name for variable in CREDENTIAL_VARIABLES for name in (variable, f"{variable}_FILE")]
    own = "give each target a profile to use its own"
    if any(map(os.environ.get, given)) or (place and any(Path(place, f"bulkimg.{name}").exists() for name in NAMES)):
        screen.warning(f"the credentials in the environment are used for all {len(contexts)} targets; {own}")
        return
    for profile, targets in Counter(context.profile for context in contexts.values()).items():
        if targets > 1:
            screen.warning(f"the credentials of profile {profile} are used for {targets} targets; {own}")


def _refuse_other_work(known: Campaign, source: str, names: tuple[str, ...]) -> None:
    """Raise RunRefused if the campaign of that name has other targets or another manifest."""
    if set(names) != {member.target for member in known.members}:
        raise RunRefused(
            f"campaign {known.campaign_id} has the targets {', '.join(member.target for member in known.members)}; "
            "choose another --run-id"
        )
    for run in list(known.runs().values())[:1]:  # all have the same manifest, and standard input can be read only once
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
    contexts, errors = _stored(known, flags, "resume")
    opened = Opened(known, CommandContext(flags).settings, {}, {}, errors)
    for name, context in contexts.items():
        directory, settings = known.runs()[name], context.settings
        own = {"results": own_results(name, settings.results)} if settings.results else {}
        try:
            run = resume_run(directory, _placed(settings.model_copy(update=own), directory), planned=planned)
        except (RunRefused, StorageError) as error:
            opened.errors[name] = error
            continue
        opened.runs[name] = run
        opened.credentials[name] = context.credentials()
    if not opened.runs:
        raise next(iter(opened.errors.values()), RunRefused(f"campaign {known.campaign_id} has no runs any more"))
    return opened


def _stored(
    known: Campaign, flags: Flags, command: str, left_out: tuple[str, ...] = ()
) -> tuple[dict[str, CommandContext], dict[str, BulkimgError]]:
    """Return what is asked of each run, from its own options without `left_out`, and why a run cannot be read."""
    contexts: dict[str, CommandContext] = {}
    errors: dict[str, BulkimgError] = {}
    for name, directory in known.runs().items():
        try:
            stored = {key: value for key, value in stored_settings(directory).items() if key not in left_out}
        except (RunRefused, StorageError) as error:  # its ledger is damaged; the others are not
            errors[name] = error
            continue
        contexts[name] = CommandContext(flags, stored=stored)
        contexts[name].refuse_dry_run(command)
    check_apart({name: context.settings for name, context in contexts.items()})
    _warn_of_shared(contexts)
    return contexts, errors


Create = Callable[[RunDirectory, Settings], OpenRun]


def anew(known: Campaign, flags: Flags, kind: str, make: Create, not_taken_over: tuple[str, ...]) -> Opened | None:
    """Create a campaign from the runs of an earlier one. Returns None after a message if no run left anything to do."""
    asked, now = CommandContext(flags).settings, time.time()
    place = asked.model_copy(update={"runs_dir": known.path.parent})
    contexts, errors = _stored(known, flags, kind, not_taken_over)
    credentials = {name: context.credentials() for name, context in contexts.items()}
    path = create.begin_campaign(place, now, known.runs())
    runs: dict[str, OpenRun] = {}
    said: list[str] = []
    try:
        for name, context in contexts.items():
            directory = known.runs()[name]
            own = create.own_settings(name, _placed(context.settings, directory), "").model_copy(
                update={"run_id": create.member_id(path, name), "job_name": context.settings.job_name}
            )
            try:
                runs[name] = make(directory, own)
            except NothingToDo as nothing:
                said.append(str(nothing))
            except StorageError as error:
                errors[name] = error
        if not runs and errors:
            raise next(iter(errors.values()))
        if not runs:
            create.drop(path)
            nothing_to_do("; ".join(said) or f"campaign {known.campaign_id} has no runs any more")
            return None
        facts = {"job": known.facts.get("job"), "manifest": known.facts.get("manifest")}
        made = create.tie(path, runs, now, kind=kind, of=known.campaign_id, **facts)
    except BaseException:
        create.discard(path, runs.values())
        raise
    return Opened(made, asked, runs, credentials, errors)


def _placed(settings: Settings, directory: RunDirectory) -> Settings:
    return settings.model_copy(update={"runs_dir": directory.path.parent})


# -- execute ------------------------------------------------------------------------------------------------------------


def execute_and_exit(opened: Opened, *, ask: bool = True) -> NoReturn:
    """Execute the runs, show how each ended, and exit with the worst exit code."""
    asks = ask and not opened.settings.yes and screen.can_ask()
    ended = _execute(opened, _questions(opened) if asks else None)
    _draw(opened.campaign)
    document = summary_document(opened.campaign, ended)
    if opened.settings.json_summary:
        screen.out_json(document)
    elif opened.settings.log_format == "json":
        screen.note_json({"event": "summary", **document})
    else:
        _show(document, ended, opened.campaign.words)
    raise typer.Exit(document["exit_code"])


def _draw(made: Campaign) -> None:
    """Write the page of the campaign. A failure is only said: each run has its own report."""
    from bulkimg.campaign.page import write_page  # imported only now: no row waits for it

    try:
        write_page(status_document(made), made, time.time())
    except BulkimgError as error:
        screen.warning(screen.one_line(f"{error}; bulkimg report {made.words} draws the page"))


def plan_and_exit(opened: Opened, *, detailed: bool = False) -> NoReturn:
    """Make the plans, show them, and exit."""
    ended = _execute(opened, None, plan_only=True)
    plans = {name: read_plan(opened.runs[name]) for name, one in ended.items() if one.summary}
    counted = {name: counts for name, (counts, _) in plans.items() if counts}
    document = summary_document(opened.campaign, ended, counted)
    if opened.settings.json_summary:
        screen.out_json(document)
    for name, one in ended.items():
        if not opened.settings.json_summary:
            screen.out(f"target {name}:")
        if one.summary is None:
            screen.error(screen.one_line(f"{name}: {one.error}"))
            continue
        if not opened.settings.json_summary:
            print_plan(one.summary, *plans[name])
        warn_of_plan(one.summary, opened.runs[name], counted.get(name), has_next=False)
    if document["next"]:
        screen.note(f"next:    {document['next']}")
    code = document["exit_code"]
    changes = any(counts.actions["update"] for counts in counted.values())
    raise typer.Exit(Exit.CHANGES if detailed and changes and not code else code)


def _execute(opened: Opened, questions: Questions | None, *, plan_only: bool = False) -> dict[str, Ended]:
    """Execute the runs in one event loop. Returns how each ended."""
    leave_no_core()
    sides = Sides()
    bars = Bars() if kind_of(opened.settings) == "bar" else None
    watchers = {
        name: Watcher(run.settings, tells_plan=not plan_only, name=name, bars=bars) for name, run in opened.runs.items()
    }
    files = sum(run.settings.concurrency + 16 for run in opened.runs.values())

    def begin_one(name: str, run: OpenRun, approve: Approve | None) -> Engine:
        run.command, run.tell = typed(run), screen.note
        more = files - run.settings.concurrency
        engine = Engine(
            run,
            opened.credentials[name],
            watchers[name],
            allow=lambda rows: allow_files(rows + more),
            approve=approve,
            plan_only=plan_only,
        )
        watchers[name].follow(lambda: engine.live)
        return engine

    def status() -> None:
        for name, engine in sides.engines.items():
            screen.note(f"bulkimg: {name}: {in_words(engine.steering.status())}")

    settings = opened.settings
    execution = Execution(opened.runs, begin_one, sides, questions, stop_on_failure=settings.stop_on_failure)
    work = execution.one_by_one if settings.order == "one-by-one" else execution.in_parallel
    try:
        allow_files(files)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            ended = runner.run(with_signals(sides, status, work))
    finally:
        for watcher in watchers.values():
            watcher.close()
        for run in opened.runs.values():
            run.close()
    return ended | {name: Ended(error=error) for name, error in opened.errors.items()}


def _questions(opened: Opened) -> Questions:
    """Return the questions. What is typed before a later question is no answer to it."""
    asked = False

    async def answered(question: str, shown: str, runs: Mapping[str, OpenRun]) -> bool:
        nonlocal asked
        if asked:
            screen.forget_typed()
        asked = True
        return await _answered(question, shown, runs)

    async def plans(found: Mapping[str, PlanCounts]) -> bool:
        images = sum(counts.actions["update"] for counts in found.values())
        where = ", ".join(f"{name} {counts.actions['update']:,}" for name, counts in found.items())
        on = f"{count(images, 'image')} on {count(len(found), 'target')} ({where})"
        question = f"Change {on}?"
        if what := undoing(opened):
            undoes = next(iter(opened.runs.values())).ledger.meta("undoes", {})
            verb = "Redo the changes" if undoes.get("undo_of") else "Put the old values back"
            question = f"{what[0].upper()}{what[1:]}. {verb} on {on}?"
        shown = "\n".join(f"{name}: {plan_line(counts)}" for name, counts in found.items())
        return await answered(question, shown, {name: opened.runs[name] for name in found})

    async def canary(name: str, what: CanaryPassed) -> bool:
        run = opened.runs[name]
        question = f"Send the other {stats.rows_to_do(run.ledger):,} to {name} ({run.settings.target})?"
        return await answered(
            question, f"{name}: canary: {what.rows:,} of {count(what.rows, 'row')} updated", {name: run}
        )

    return Questions(plans, canary)


def undoing(opened: Opened) -> str:
    """Return the campaign that an undo undoes, with its manifest, time and updated rows in one phrase; "" for others."""
    known = [run.ledger.meta("undoes") for run in opened.runs.values() if run.ledger.meta("undo_of")]
    known = [each for each in known if each]
    if not known or not opened.campaign.facts.get("of"):
        return ""
    begun = min((each["started_at"] for each in known if each["started_at"] is not None), default=None)
    details = [str(known[0]["manifest"])]
    details += [] if begun is None else [iso_utc(begun)[:16].replace("T", " ") + " UTC"]
    details += [
        f"{sum(each['updated'] for each in known):,} updated",
        *([known[0]["note"]] if known[0]["note"] else []),
    ]
    itself = ", which is itself an undo: this redoes its changes" if known[0]["undo_of"] else ""
    return f"undo of campaign {opened.campaign.facts['of']} ({', '.join(details)}){itself}"


async def _answered(question: str, shown: str, runs: Mapping[str, OpenRun]) -> bool:
    screen.prompt(question, shown)
    while (answer := await line_typed()) in {"d", "diff"}:
        lines = [f"{name}: {line}" for name, run in runs.items() for line in difference(run)]
        screen.prompt(question, "\n".join(lines), is_new=True)
    return answer in {"y", "yes"}


# -- show ---------------------------------------------------------------------------------------------------------------


def _show(document: Mapping[str, Any], ended: Mapping[str, Ended], words: str) -> None:
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
    elif document["exit_code"] == Exit.OK and document["counts"]["updated"] and _is_surveyed(ended):
        screen.note(f"take back: bulkimg undo {words}")


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
