"""Execute a job with several targets: one manifest, an ordinary run for each target, one question, one end."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import typer

from bulkimg.campaign import Campaign, create
from bulkimg.campaign.directory import hold
from bulkimg.campaign.execute import Ended, Execution, Questions, Sides, Turn
from bulkimg.campaign.totals import status_document, summary_document, worst
from bulkimg.cli import screen
from bulkimg.cli.execute import (
    cause_line,
    counts_line,
    difference,
    line_typed,
    nothing_to_do,
    target_with_account,
    typed,
    with_signals,
)
from bulkimg.cli.options import CommandContext, Flags
from bulkimg.cli.plan import print_plan, read_plan, warn_of_plan
from bulkimg.cli.problems import remarks, show_problems
from bulkimg.cli.progress import Bars, Watcher, kind_of
from bulkimg.cli.targets import credentials_of, read_targets, stored_options, stored_targets, warn_of_shared
from bulkimg.credentials import Credentials
from bulkimg.engine.close import refusal, refuse
from bulkimg.engine.create import NothingToDo, edited_manifest, resume_run
from bulkimg.engine.execute import Engine
from bulkimg.engine.planning import Approve
from bulkimg.engine.run import OpenRun
from bulkimg.engine.steering import in_words
from bulkimg.engine.together import check_apart, lock_order, own_results
from bulkimg.errors import BulkimgError, Exit, RunRefused, StorageError
from bulkimg.ledger import RunDirectory, stats
from bulkimg.model import CanaryPassed, PlanCounts, iso_utc
from bulkimg.process import allow_files, event_loop, leave_no_core
from bulkimg.report import plan_line
from bulkimg.settings import Settings
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
    contexts = read_targets(settings, flags, job)
    names = tuple(contexts)
    credentials = credentials_of(contexts)
    warn_of_shared(contexts)
    targets = {name: context.settings for name, context in contexts.items()}
    if known := _named(settings, names, "run", None):
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


def _named(settings: Settings, names: Collection[str], kind: str, of: str | None) -> Campaign | None:
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
    contexts, errors = _stored(known, flags, "resume")
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
            opened.runs[name] = resume_run(
                runs[name], _placed(each.model_copy(update=own), runs[name]), planned=planned
            )
        except (RunRefused, StorageError) as error:
            opened.errors[name] = error
    if not opened.runs:
        raise next(iter(opened.errors.values()), RunRefused(f"campaign {known.campaign_id} has no runs any more"))
    return opened


def _stored(
    known: Campaign, flags: Flags, command: str, left_out: Collection[str] = ()
) -> tuple[dict[str, CommandContext], dict[str, BulkimgError]]:
    """Return what is asked of each run, from its own options without `left_out`, and why a run cannot be read."""
    contexts, errors = stored_targets(known, flags, left_out)
    for context in contexts.values():
        context.refuse_dry_run(command)
    check_apart({name: context.settings for name, context in contexts.items()})
    warn_of_shared(contexts)
    return contexts, errors


Create = Callable[[RunDirectory, Settings], OpenRun]


def anew(known: Campaign, flags: Flags, kind: str, make: Create, not_taken_over: Collection[str]) -> Opened | None:
    """Create a campaign from the runs of an earlier one, or reopen the one that --run-id names.

    Returns None after a message if no run left anything to do.
    """
    asked, now = CommandContext(flags).settings, time.time()
    place = asked.model_copy(update={"runs_dir": known.path.parent})
    if named := _named(place, known.runs(), kind, known.campaign_id):
        screen.note(f"resuming campaign {named.campaign_id}")
        return again(named, flags)
    contexts, errors = _stored(known, flags, kind, not_taken_over)
    opened = Opened(known, asked, {}, credentials_of(contexts), errors)
    lock = create.begin_campaign(place, now, known.runs())
    runs: dict[str, OpenRun] = {}
    try:
        said = _make(
            known, lock.path, {name: context.settings for name, context in contexts.items()}, make, opened, runs
        )
        if not runs and errors:
            raise next(iter(errors.values()))
        if not runs:
            create.drop(lock)
            _say_nothing_to_do(known, said)
            return None
        opened.runs |= {name: runs[name] for name in contexts if name in runs}
        facts = {"job": known.facts.get("job"), "manifest": known.facts.get("manifest")}
        opened.campaign = create.tie(lock.path, opened.runs, now, kind=kind, of=known.campaign_id, **facts)
    except BaseException:
        create.discard(lock, runs.values())
        raise
    for name, nothing in said.items():
        screen.note(screen.one_line(f"{name}: {nothing}"))
    return opened


def _make(
    known: Campaign,
    path: Path,
    settings: Mapping[str, Settings],
    make: Create,
    opened: Opened,
    runs: dict[str, OpenRun],
) -> dict[str, NothingToDo]:
    """Make a run from each run of a campaign. Returns those that left nothing to do, by target."""
    directories, said = known.runs(), {}
    for name in lock_order(settings):
        own = create.own_settings(name, _placed(settings[name], directories[name]), "").model_copy(
            update={"run_id": create.member_id(path, name), "job_name": settings[name].job_name}
        )
        try:
            runs[name] = make(directories[name], own)
        except NothingToDo as nothing:
            said[name] = nothing
        except StorageError as error:
            opened.errors[name] = error
    return said


def _say_nothing_to_do(known: Campaign, said: Mapping[str, NothingToDo]) -> None:
    """Say why there is no new campaign. Exits with the worst exit code if rows were left before."""
    code = Exit(worst(nothing.exit_code for nothing in said.values()))
    texts = [str(said[member.target]) for member in known.members if member.target in said]
    nothing_to_do("; ".join(texts) or f"campaign {known.campaign_id} has no runs any more", code)
    if code:
        raise typer.Exit(code)


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

    def begin_one(name: str, run: OpenRun, approve: Approve | None, turn: Turn) -> Engine:
        run.command, run.tell, run.turn = typed(run), screen.note, turn
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
        targets = "\n".join(f"{name}: {target_with_account(opened.runs[name])}" for name in found)
        shown = "\n".join(f"{name}: {plan_line(counts)}" for name, counts in found.items())
        return await answered(f"{targets}\n{question}", shown, {name: opened.runs[name] for name in found})

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
