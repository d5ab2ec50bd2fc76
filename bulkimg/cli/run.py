"""`bulkimg run`: check, confirm and execute a manifest or a job file."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bulkimg.cli import screen
from bulkimg.cli.execute import execute_and_exit, show
from bulkimg.cli.options import (
    CAMPAIGN,
    CLUSTER,
    MANIFEST,
    METRICS,
    PACE,
    PLAN,
    REPORT,
    SHARD,
    TARGET,
    CommandContext,
    Flags,
    user_path,
    with_options,
)
from bulkimg.cli.problems import remarks, show_problems
from bulkimg.credentials import Credentials
from bulkimg.engine.close import refusal, refuse
from bulkimg.engine.create import check_outputs, create_run
from bulkimg.engine.measuring import noting_failure
from bulkimg.engine.reopen import named_run, refuse_other_work, resume_run, stored_settings
from bulkimg.engine.run import OpenRun
from bulkimg.errors import Exit, UsageError
from bulkimg.layers import flag
from bulkimg.ledger import RunDirectory, stats
from bulkimg.planner import diff
from bulkimg.report import Narrator
from bulkimg.words import count

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A manifest (.csv, .tsv, .jsonl, .ndjson, .gz, .xlsx, .parquet; - for standard input) or a job file (.toml).",
    ),
]


@with_options(*TARGET, *PACE, *MANIFEST, *PLAN, *CAMPAIGN, *SHARD, *CLUSTER, *REPORT, *METRICS, "yes", "dry_run")
def command(source: Source, flags: Flags) -> None:
    """Check, look at the images, send what differs, and write one outcome for every row."""
    given = source
    asked, source = ask_for(source, flags, divides=True)
    if asked.settings.dry_run:
        _dry_run(given, source, asked, flags)
        return
    if asked.settings.target_names:
        from bulkimg.cli.campaign import executing, opening  # imported only now: most runs have one target

        executing.execute_and_exit(opening.begin(asked, flags, user_path(given), source))
    run, credentials = begin_or_refuse(asked, source)
    execute_and_exit(run, credentials)


def begin_or_refuse(asked: CommandContext, source: str, *, plan_only: bool = False) -> tuple[OpenRun, Credentials]:
    """Create a run of a sound manifest, or return the one that --run-id names. Otherwise show the problems and exit."""
    asked.require_endpoint()
    with noting_failure(asked.settings, plan_only=plan_only):
        credentials = asked.credentials()
        if named := named_run(asked.settings):
            return _resumed(named, asked, source), credentials
        with screen.prints_of_plugins(asked.settings.plugins):
            run = create_run(source, asked.settings, plan_only=plan_only, tell=screen.note)
    for remark in remarks(run.ledger):
        screen.note(screen.one_line(remark))
    if why := refusal(run):
        _refuse(run, why)
    return run, credentials


def _resumed(named: RunDirectory, asked: CommandContext, source: str) -> OpenRun:
    """Resume the run of that name. Its plan and its target stay, and its guards hold unless others are given."""
    refuse_other_work(named, asked.settings, source)
    screen.note(f"resuming run {named.run_id}")
    return resume_run(named, asked.resuming(stored_settings(named)))


def ask_for(source: str, flags: Flags, *, divides: bool = False) -> tuple[CommandContext, str]:
    """Return the settings and the manifest that SOURCE and the flags mean. `divides`: the command takes --shard."""
    if not source.strip():
        raise UsageError("SOURCE is empty; give a manifest, a job file, or - for standard input")
    source = str(user_path(source)) if source.startswith("~") else source
    if not source.lower().endswith(".toml"):
        asked = CommandContext(flags, divides=divides)
        if option := next((name for name in CAMPAIGN if name in flags), ""):
            raise UsageError(f"{flag(option)} is for a job file with several targets, and {source} is a manifest")
        return asked, source
    asked = CommandContext(flags, job=Path(source), divides=divides)
    if asked.settings.target_names and (
        option := next((o for o in (*SHARD, *CLUSTER) if getattr(asked.settings, o)), "")
    ):
        raise UsageError(
            f"{source} has several targets, and {flag(option)} is for a run of one; give each target a job file of its own"
        )
    if not asked.settings.target_names and (option := next((name for name in CAMPAIGN if name in flags), "")):
        raise UsageError(f"{flag(option)} needs several targets, and {source} has no table [targets.NAME]")
    return asked, asked.settings.job_manifest


def _refuse(run: OpenRun, why: str) -> NoReturn:
    show_problems(run.ledger)
    narrator = Narrator()
    summary = refuse(run, why, lambda event: screen.warning(screen.one_line(narrator.sentence(event))))
    run.close()
    screen.error(why)
    if run.settings.json_summary:
        show(summary, run.settings)
    else:
        screen.note(f"Nothing was sent. Every row with its problem: {summary.directory}/results.csv")
    raise typer.Exit(Exit.MANIFEST)


def offline_runs(given: str, source: str, asked: CommandContext, flags: Flags, place: str) -> list[OpenRun]:
    """Load the manifest in a temporary place: one run, or one for each target. No message is sent, no hook runs.

    `given` is what the command line names: a job file, or the manifest `source` itself.
    """
    update = {"runs_dir": Path(place), "results": None, "notify": (), "hooks": ()}
    settings = asked.settings.model_copy(update=update)
    with screen.prints_of_plugins(settings.plugins):
        if not settings.target_names:
            return [create_run(source, settings)]
        from bulkimg.campaign import create  # imported only now: most runs have one target
        from bulkimg.cli.campaign.targets import read_targets

        return create.load_offline(
            source, settings, list(read_targets(settings, flags, user_path(given), offline=True))
        )


def _dry_run(given: str, source: str, asked: CommandContext, flags: Flags) -> None:
    """Check the manifest offline in a temporary place, and show what it asks for. `bulkimg plan` reads the images."""
    check_outputs(source, asked.settings)
    with tempfile.TemporaryDirectory(prefix="bulkimg-") as place:
        runs = offline_runs(given, source, asked, flags, place)
        why = refusal(*runs)
        show_all_problems(runs)
        counts: Counter[str] = Counter()
        for run in runs:
            counts.update(stats.counts(run.ledger))
        to_do = sum(stats.rows_to_do(run.ledger) for run in runs)
        fates = (fate for run in runs for fate in stats.row_texts(run.ledger))
        sample = [(fate.outcome.line, fate.outcome.uuid, fate.fields) for fate in islice(fates, 5)]
        for run in runs:
            run.close()
    if why:
        screen.error(why)
        raise typer.Exit(Exit.MANIFEST)
    if asked.settings.json_summary:
        screen.out_json({"schema": 1, "exit_code": 0, "dry_run": True, "to_send": to_do, "counts": dict(counts)})
        return
    for line, uuid, fields in sample:
        changes = ", ".join(f"{name}={diff.show(value)}" for name, value in fields.items())
        screen.out(screen.one_line(f"line {line}: {uuid}: {changes}"))
    invalid = f", {counts['invalid']:,} invalid" if counts["invalid"] else ""
    where = f" to {count(len(runs), 'target')}" if asked.settings.target_names else ""
    screen.out(f"{count(to_do, 'row')} would be sent{where}{invalid}; nothing was sent (dry run)")


def show_all_problems(runs: Sequence[OpenRun]) -> None:
    """Print remarks and the first problems of the runs of one manifest, each once."""
    for remark in dict.fromkeys(remark for run in runs for remark in remarks(run.ledger)):
        screen.note(screen.one_line(remark))
    shown: set[str] = set()
    for run in runs:
        show_problems(run.ledger, shown)
