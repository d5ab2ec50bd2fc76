"""`bulkimg runs`: list the runs, newest first. `--prune` removes those that are finished."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, with_options
from bulkimg.engine.keeping import old_runs, remove
from bulkimg.errors import BulkimgError, UsageError
from bulkimg.ledger import RunDirectory, list_runs
from bulkimg.ledger.rundir import clear_remains
from bulkimg.live import status_of
from bulkimg.values import Keep as Stays
from bulkimg.values import parse_age
from bulkimg.words import count

Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the newest N.")]
State = Annotated[
    str, typer.Option("--state", metavar="STATE", help="Only runs in this state, such as done or stopped.")
]
Target = Annotated[
    str, typer.Option("--target", metavar="TEXT", help="Only runs against a server whose URL holds this.")
]
Prune = Annotated[bool, typer.Option("--prune", help="Remove finished runs, never one that can be resumed.")]
Keep = Annotated[int | None, typer.Option("--keep", min=0, metavar="N", help="With --prune: leave the newest N alone.")]
OlderThan = Annotated[
    str, typer.Option("--older-than", metavar="TIME", help="With --prune: only older ones, such as 90d.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="With --prune: only list what would be removed.")]


@with_options("runs_dir", *SPEECH)
def command(
    flags: Flags,
    limit: Limit = None,
    state: State = "",
    target: Target = "",
    prune: Prune = False,
    keep: Keep = None,
    older_than: OlderThan = "",
    dry_run: DryRun = False,
) -> None:
    """One line a run: id, when, kind, target, state, what became of its rows, note."""
    settings = CommandContext(flags).settings
    if not prune and (keep is not None or older_than or dry_run):
        raise UsageError("--keep, --older-than and --dry-run belong to --prune")
    age = _age(older_than) if older_than else None
    if prune and keep is None and age is None:
        raise UsageError("--prune: say what stays with --keep N, --older-than 90d, or both")
    found = [
        (directory, run)
        for directory, run in _reports(settings.runs_dir)
        if state in ("", run["state"]) and target in str(run["target"])
    ]
    if prune:
        chosen = {run["run_id"] for _, run in found}
        stays = Stays(keep or 0, (age or 0.0) / 86400)
        _prune(settings.runs_dir, chosen, stays, only_list=dry_run, as_json=settings.json_summary)
        return
    shown = [run for _, run in found][:limit]
    if settings.json_summary:
        screen.out_json(shown)
    elif not shown:
        screen.note(f"no runs in {settings.runs_dir}")
    else:
        screen.out(screen.fitted([_HEADER, *(_line(run) for run in shown)], _SPARE))


def _age(text: str) -> float:
    try:
        return parse_age(text)
    except ValueError as error:
        raise UsageError(f"--older-than {text!r} {error}") from None


def _reports(runs_dir: Any) -> list[tuple[RunDirectory, dict[str, Any]]]:
    """Return the reports, newest first. A damaged run is named and does not hide the others."""
    found = []
    for directory in reversed(list_runs(runs_dir)):
        try:
            found.append((directory, status_of(directory)))
        except BulkimgError as error:
            screen.error(str(error))
    return found


_HEADER = ("RUN", "STARTED", "KIND", "TARGET", "STATE", "UPDATED", "UNCHANGED", "NOT FINE", "NOTE")
_SPARE = ("STARTED", "KIND", "UNCHANGED", "TARGET")


def _line(run: dict[str, Any]) -> tuple[str, ...]:
    counts = run["counts"]
    started = str(run["started_at"])[:16].replace("T", " ")
    numbers = (counts["updated"], counts["unchanged"], run["not_fine"])
    note = screen.one_line(f"{run['note']}  {run['manifest'] or ''}".strip())
    target = str(run["target"] or "-").removeprefix("http://").removeprefix("https://")
    return (run["run_id"], started, run["kind"], target, run["state"], *(f"{number:,}" for number in numbers), note)


def _prune(runs_dir: Path, chosen: set[str], stays: Stays, *, only_list: bool, as_json: bool) -> None:
    """Remove the chosen runs that are finished, beyond the newest, and old enough."""
    found = old_runs(runs_dir, lambda run: run.directory.run_id in chosen, stays, time.time())
    removed = []
    for directory in found:
        why = "" if only_list else remove(directory)
        if why:
            screen.error(why)
        else:
            removed.append(directory.run_id)
    if not only_list:
        _clear(runs_dir)
    if as_json:
        listed = "would_remove" if only_list else "removed"
        screen.out_json({"schema": 1, "exit_code": 0, listed: removed})
        return
    for run_id in removed:
        screen.out(f"{'would remove' if only_list else 'removed'} {run_id}")
    screen.note(f"{count(len(removed), 'run')} {'would be removed (dry run)' if only_list else 'removed'}")


def _clear(runs_dir: Path) -> None:
    try:
        if runs_dir.is_dir():
            clear_remains(runs_dir)
    except OSError as error:
        screen.error(f"{error.filename}: cannot be removed: {error.strerror}")
