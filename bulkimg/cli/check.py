"""`bulkimg check`: every problem and warning of a manifest, offline."""

import shlex
import tempfile
from dataclasses import asdict

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import MANIFEST, Flags, with_options
from bulkimg.cli.problems import document, remarks
from bulkimg.cli.run import Source, ask_for, offline
from bulkimg.engine.create import create_run
from bulkimg.engine.run import OpenRun
from bulkimg.errors import Exit
from bulkimg.ledger import stats
from bulkimg.words import count


@with_options(*MANIFEST, "json", "log_format", "quiet")
def command(source: Source, flags: Flags) -> None:
    """List every problem with its fix; sends nothing."""
    given = source
    asked, source = ask_for(source, flags)
    with tempfile.TemporaryDirectory(prefix="bulkimg-") as place:
        with screen.prints_of_plugins(asked.settings.plugins):
            run = create_run(source, offline(asked.settings, place))
        try:
            found, bad, _ = stats.problem_counts(run.ledger)
            exit_code = Exit.MANIFEST if found else Exit.OK
            if asked.settings.json_summary:
                screen.out_json(_document(run, source, bad, exit_code))
            else:
                for line in document(run.ledger):
                    screen.out(line)
                _note(run, given, source, found, bad)
        finally:
            run.close()
    raise typer.Exit(exit_code)


def _note(run: OpenRun, given: str, source: str, found: int, bad: int) -> None:
    for line in remarks(run.ledger):
        screen.note(screen.one_line(line))
    rows, merged = stats.rows_in_all(run.ledger), run.ledger.meta("merged")
    also = f", {merged:,} merged with rows for the same image" if merged else ""
    if found:
        what = (
            f"{bad:,} of {count(rows, 'row')} cannot be sent ({count(found, 'problem')})"
            if bad
            else count(found, "problem")
        )
        screen.note(screen.one_line(f"{source}: {what}{also}"))
        return
    screen.note(screen.one_line(f"{source}: {count(rows, 'row')}, all valid{also}"))
    if source != "-" and rows:
        screen.note(screen.one_line(f"next:    {shlex.join(['bulkimg', 'plan', given])}"))


def _document(run: OpenRun, source: str, bad: int, exit_code: Exit) -> dict[str, object]:
    meta = run.ledger.meta
    return {
        "schema": 1,
        "exit_code": int(exit_code),
        "manifest": source,
        "sha256": meta("sha256"),
        "rows": stats.rows_in_all(run.ledger),
        "merged": meta("merged"),
        "blank_records": meta("blank_records", 0),
        "rows_with_problems": bad,
        "plugins": meta("plugins", []),
        "problems": [asdict(problem) for problem in stats.problems(run.ledger)],
        "warnings": [asdict(warning) for warning in stats.warnings(run.ledger)],
    }
