"""Write the results of a campaign: one file with a column `target`, or a file for each target."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, cast

from bulkimg.campaign import Campaign
from bulkimg.cli import screen
from bulkimg.cli.report import readable, readably
from bulkimg.cli.results import WHOLE, check_size_of, kind_of, place_of, write
from bulkimg.engine.together import PLACE
from bulkimg.errors import RunRefused, UsageError
from bulkimg.ledger import Ledger, RunDirectory
from bulkimg.ledger.files import write_joined_results
from bulkimg.report.tables import check_library


def write_campaign(campaign: Campaign, kind: str, out: str, *, force: bool, as_json: bool) -> None:
    """Write the results of every target. All are read before the first file is replaced."""
    kind = kind_of(kind, out)
    found = campaign.runs()
    if not found:
        raise RunRefused(f"campaign {campaign.campaign_id} has no runs any more")
    is_joined = kind not in WHOLE and PLACE not in out
    if kind in WHOLE and out and PLACE not in out:
        raise UsageError(
            f"--out {out}: every target would replace it; put {PLACE} into the name, such as results-{PLACE}.{kind}"
        )
    paths = {target: place_of(run, kind, out.replace(PLACE, target), force=force) for target, run in found.items()}
    if as_json and None in paths.values():
        raise UsageError("--json: standard output is the results themselves; give a file with --out")
    check_library(f"--as {kind}", kind)
    with _readable(found) as ledgers:
        for ledger in ledgers.values():
            check_size_of(ledger, kind)
        if is_joined:
            _write_joined(ledgers, next(iter(paths.values())), cast(Literal["csv", "jsonl"], kind))
        else:
            for target, ledger in ledgers.items():
                with readably(found[target]):
                    write(ledger, found[target], kind, paths[target])
    _say(campaign, found, paths, as_json=as_json)


@contextmanager
def _readable(found: Mapping[str, RunDirectory]) -> Iterator[dict[str, Ledger]]:
    """Open every run, each in one state for all that is read."""
    with ExitStack() as open_ledgers:
        ledgers = {}
        for target, run in found.items():
            ledgers[target] = ledger = readable(run)
            open_ledgers.callback(ledger.close)
            with readably(run):
                ledger.db.execute("BEGIN")
        yield ledgers


def _write_joined(ledgers: Mapping[str, Ledger], path: Path | None, kind: Literal["csv", "jsonl"]) -> None:
    """Write one file; for standard output, a private file first: its reader gets all of it or nothing."""
    if path is not None:
        write_joined_results(ledgers, path, kind, f"{os.getpid()}.tmp")
        return
    with tempfile.TemporaryDirectory(prefix="bulkimg-") as place:
        made = Path(place) / "results"
        write_joined_results(ledgers, made, kind)
        with made.open("rb") as file:
            screen.out_bytes(file)


def _say(
    campaign: Campaign, found: Mapping[str, RunDirectory], paths: Mapping[str, Path | None], *, as_json: bool
) -> None:
    if removed := [member.run_id for member in campaign.members if member.target not in found]:
        screen.warning(f"without the runs that were removed since: {', '.join(removed)}")
    if as_json:
        targets = [
            {"target": target, "run_id": found[target].run_id, "results": str(path)} for target, path in paths.items()
        ]
        screen.out_json({"schema": 1, "exit_code": 0, "campaign": campaign.campaign_id, "targets": targets})
        return
    for path in dict.fromkeys(path for path in paths.values() if path is not None):
        screen.out(str(path))
