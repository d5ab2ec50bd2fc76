"""`bulkimg check`: every problem and warning of a manifest, offline."""

import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import MANIFEST, Flags, with_options
from bulkimg.cli.problems import document, remarks
from bulkimg.cli.run import Source, ask_for, offline_runs
from bulkimg.engine.run import OpenRun
from bulkimg.errors import Exit
from bulkimg.ledger import stats
from bulkimg.report.documents import CheckDocument, FoundProblem
from bulkimg.words import count


@with_options(*MANIFEST, "json", "log_format", "quiet")
def command(source: Source, flags: Flags) -> None:
    """List every problem with its fix; sends nothing."""
    given = source
    asked, source = ask_for(source, flags)
    with tempfile.TemporaryDirectory(prefix="bulkimg-") as place:
        runs = offline_runs(given, source, asked, flags, place)
        try:
            found = _Found(runs)
            exit_code = Exit.MANIFEST if found.problems else Exit.OK
            if asked.settings.json_summary:
                screen.out_json(_document(runs, source, found, exit_code))
            else:
                for line in dict.fromkeys(line for run in runs for line in document(run.ledger)):
                    screen.out(line)
                _note(runs, given, source, found)
        finally:
            for run in runs:
                run.close()
    raise typer.Exit(exit_code)


class _Found:
    """What was found in the runs of one manifest: one run, or one for each target."""

    def __init__(self, runs: Sequence[OpenRun]) -> None:
        whole = [stats.problem_counts(run.ledger) for run in runs]
        is_whole = any(fatal for _, _, fatal in whole)  # such a problem is in every run
        self.problems = max(each[0] for each in whole) if is_whole else sum(each[0] for each in whole)
        self.bad = sum(bad for _, bad, _ in whole)
        self.rows = sum(stats.rows_in_all(run.ledger) for run in runs)
        self.merged = sum(run.ledger.meta("merged") for run in runs)


def _note(runs: Sequence[OpenRun], given: str, source: str, found: _Found) -> None:
    for line in dict.fromkeys(line for run in runs for line in remarks(run.ledger)):
        screen.note(screen.one_line(line))
    rows, merged = found.rows, found.merged
    also = f", {merged:,} merged with rows for the same image" if merged else ""
    if found.problems:
        problems = count(found.problems, "problem")
        what = f"{found.bad:,} of {count(rows, 'row')} cannot be sent ({problems})" if found.bad else problems
        screen.note(screen.one_line(f"{source}: {what}{also}"))
        return
    where = f" for {count(len(runs), 'target')}" if len(runs) > 1 else ""
    screen.note(screen.one_line(f"{source}: {count(rows, 'row')}{where}, all valid{also}"))
    if source != "-" and rows:
        screen.note(screen.one_line(f"next:    {shlex.join(['bulkimg', 'plan', given])}"))


def _document(runs: Sequence[OpenRun], source: str, found: _Found, exit_code: Exit) -> dict[str, Any]:
    meta = runs[0].ledger.meta
    problems = dict.fromkeys(problem for run in runs for problem in stats.problems(run.ledger))
    warnings = dict.fromkeys(warning for run in runs for warning in stats.warnings(run.ledger))
    document = CheckDocument(
        exit_code=int(exit_code),
        manifest=source,
        sha256=meta("sha256"),
        rows=found.rows,
        rows_left_out=meta("left_out", 0),
        merged=found.merged,
        blank_records=meta("blank_records", 0),
        remarks=meta("remarks", []),
        rows_with_problems=found.bad,
        plugins=meta("plugins", []),
        problems=[FoundProblem(**asdict(problem)) for problem in problems],
        warnings=[FoundProblem(**asdict(warning)) for warning in warnings],
    )
    return document.as_json()
