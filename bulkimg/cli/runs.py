"""This file is `bulkimg runs`: the runs there are, newest last."""

from bulkimg.cli import screen
from bulkimg.cli.options import Asked, Flags, takes
from bulkimg.cli.status import report
from bulkimg.errors import BulkimgError
from bulkimg.ledger import list_runs


@takes("runs_dir", "json")
def command(flags: Flags) -> None:
    """One line a run: id, state, rows, what is not fine, manifest."""
    settings = Asked(flags).settings
    runs_dir = settings.runs_dir
    found = []
    for directory in list_runs(runs_dir):
        try:
            found.append(report(directory))
        except BulkimgError as error:  # one damaged run must not hide the others
            screen.error(str(error))
    if settings.json_summary:
        screen.out_json(found)
        return
    if not found:
        screen.note(f"no runs in {runs_dir}")
        return
    rows: list[tuple[str, ...]] = [("RUN", "STATE", "ROWS", "NOT FINE", "MANIFEST")]
    for run in found:
        fine = run["counts"]["updated"] + run["counts"]["unchanged"]
        rows.append(
            (run["run_id"], run["state"], f"{run['rows']:,}", f"{run['rows'] - fine:,}", str(run["manifest"] or ""))
        )
    screen.out(screen.table(rows))
