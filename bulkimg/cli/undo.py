"""`bulkimg undo`: a new run that restores what an earlier one changed."""

from typing import Annotated

import typer

from bulkimg.campaign import Campaign, campaign_of
from bulkimg.cli import complete, screen
from bulkimg.cli.execute import execute, execute_and_exit, nothing_to_do, undoing
from bulkimg.cli.options import CLUSTER, METRICS, PACE, REPORT, CommandContext, Flags, with_options
from bulkimg.cli.plan import show_plan
from bulkimg.cli.resume import Run, find_any, runs_dir
from bulkimg.engine.anew import NothingToDo, create_undo
from bulkimg.engine.reopen import named_run, resume_run, rows_left, stored_settings
from bulkimg.engine.run import OpenRun
from bulkimg.engine.undone import already_undone, last_that_changed, last_to_undo
from bulkimg.ledger import RunDirectory, stats
from bulkimg.settings import Settings
from bulkimg.words import count

Where = Annotated[
    list[str],
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="Only these rows: a column of the manifest, uuid, line or status. Repeatable.",
        autocompletion=complete.columns,
    ),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", envvar="BULKIMG_PLAN", help="Stop at the plan; `bulkimg apply` sends it.")
]
_OF_THE_RUN = (
    "profile",
    "ca_file",
    "action_key",
    *PACE,
    "max_changes",
    "canary",
    "note",
    "run_id",
    "allow_overlap",
    "lock_wait",
    *CLUSTER,
    *REPORT,
    *METRICS,
    "plugins",
    "yes",
)
_NOT_TAKEN_OVER = ("results", "max_changes", "canary", "note", "where", "skip_rows", "max_rows", "shard")


@with_options(*_OF_THE_RUN)
def command(run: Run, flags: Flags, where: Where = [], plan: PlanOnly = False) -> None:  # noqa: B006 - Typer never changes it
    """Only where the present value is still what the run wrote; anything else is a conflict and stays as it is."""
    last = last_to_undo(runs_dir(flags)) if run == "last" else None
    directory = (campaign_of(last) or last) if last else find_any(run, flags)
    if isinstance(directory, Campaign):
        _undo_campaign(directory, flags, where, plan=plan, is_last=bool(last))
        return
    stored = {key: value for key, value in stored_settings(directory).items() if key not in _NOT_TAKEN_OVER}
    asked = CommandContext(flags, stored=stored)
    asked.refuse_dry_run("undo")
    if run == "last" and not where and (said := already_undone(directory.path.parent, directory)):
        nothing_to_do(*said)
        raise typer.Exit(said[1])
    credentials = asked.credentials()
    opened = _begin(directory, asked, flags, where)
    if opened is None:
        return
    _remark(directory, opened)
    if not plan:
        execute_and_exit(opened, credentials)
    screen.note(screen.one_line(undoing(opened)))
    summary = execute(opened, credentials, plan_only=True)
    show_plan(summary, opened)
    raise typer.Exit(summary.exit_code)


def _undo_campaign(known: Campaign, flags: Flags, where: list[str], *, plan: bool, is_last: bool) -> None:
    """Undo every run of a campaign that changed something."""
    from bulkimg.cli.campaign import anew, executing, questions  # imported only now: most runs have one target

    def create(directory: RunDirectory, settings: Settings) -> OpenRun:
        if is_last and not where and (said := already_undone(directory.path.parent, directory)):
            raise NothingToDo(*said)
        return create_undo(directory, settings, where)

    opened = anew.anew(known, flags, "undo", create, _NOT_TAKEN_OVER)
    if opened is None:
        return
    undone = known.runs()
    for target, run in opened.runs.items():
        if target in undone:
            _remark(undone[target], run, target)
    screen.note(screen.one_line(questions.undoing(opened)))
    if plan:
        executing.plan_and_exit(opened)
    executing.execute_and_exit(opened)


def _remark(directory: RunDirectory, opened: OpenRun, target: str = "") -> None:
    """Say if the undone run has not ended, and which fields its undo leaves out. `target` is that of a campaign's run."""
    about = f"{target}: " if target else ""
    if left := rows_left(directory):
        screen.note(
            f"{about}run {directory.run_id} has not ended ({count(left, 'row')} without an outcome): what it may have sent is "
            f"found by reading the images, and bulkimg resume {directory.words} would still send the rest"
        )
    if left_out := stats.warning_count(opened.ledger):
        example = next(stats.warnings(opened.ledger))
        screen.note(
            screen.one_line(f"{about}{count(left_out, 'field')} left out, such as line {example.line}: {example.text}")
        )


def _begin(directory: RunDirectory, asked: CommandContext, flags: Flags, where: list[str]) -> OpenRun | None:
    """Create the undo of a run. Returns None after a message if the run changed nothing."""
    settings = asked.settings.model_copy(update={"runs_dir": directory.path.parent})
    if named := named_run(settings, undo_of=directory.run_id):
        own = CommandContext(flags, stored=stored_settings(named)).settings  # what an undo is asked for is its own
        with screen.prints_of_plugins(own.plugins):
            return resume_run(named, own.model_copy(update={"runs_dir": directory.path.parent}))
    try:
        with screen.prints_of_plugins(settings.plugins):
            return create_undo(directory, settings, where)
    except NothingToDo as nothing:
        other = None if where else last_that_changed(settings.runs_dir)
        hint = f"; the last run that changed something is {other.run_id}: bulkimg undo {other.words}" if other else ""
        nothing_to_do(f"{nothing}{hint}")
        return None
