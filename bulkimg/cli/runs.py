"""`bulkimg runs`: list the runs, newest first. `--prune` removes those that are finished."""

import time
from typing import Annotated, Any

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import SPEECH, CommandContext, Flags, with_options
from bulkimg.errors import BulkimgError, UsageError
from bulkimg.ledger import RunDirectory, list_runs
from bulkimg.live import status_of
from bulkimg.values import parse_age
from bulkimg.words import count

FINISHED = frozenset({"done", "refused", "abandoned"})  # nothing of these can be resumed

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


@with_options("runs_dir", *SPEECH)
def command(
    flags: Flags,
    limit: Limit = None,
    state: State = "",
    target: Target = "",
    prune: Prune = False,
    keep: Keep = None,
    older_than: OlderThan = "",
) -> None:
    """One line a run: id, when, kind, target, state, what became of its rows, note."""
    settings = CommandContext(flags).settings
    if not prune and (keep is not None or older_than):
        raise UsageError("--keep and --older-than belong to --prune")
    age = _age(older_than) if older_than else None
    if prune and keep is None and age is None:
        raise UsageError("--prune: say what stays with --keep N, --older-than 90d, or both")
    found = [
        (directory, run)
        for directory, run in _reports(settings.runs_dir)
        if state in ("", run["state"]) and target in str(run["target"])
    ]
    if prune:
        _prune(found, keep or 0, age or 0.0, as_json=settings.json_summary)
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


def _prune(found: list[tuple[RunDirectory, dict[str, Any]]], keep: int, age: float, *, as_json: bool) -> None:
    """Remove the finished runs beyond the newest `keep` that are older than `age` seconds."""
    finished = [directory for directory, run in found if run["state"] in FINISHED and not run["running"]]
    removed = []
    for directory in finished[keep:]:
        if directory.begun_at > time.time() - age:
            continue
        try:
            directory.hold()
        except BulkimgError as error:
            screen.error(str(error))
            continue
        try:
            directory.remove()
            removed.append(directory.run_id)
        except OSError as error:
            screen.error(f"{directory.path}: cannot be removed: {error.strerror}")
        finally:
            directory.release()
    if as_json:
        screen.out_json({"schema": 1, "exit_code": 0, "removed": removed})
        return
    for run_id in removed:
        screen.out(f"removed {run_id}")
    screen.note(f"{count(len(removed), 'run')} removed")
