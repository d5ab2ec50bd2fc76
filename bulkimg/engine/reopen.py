"""Hold a run again: to resume it, to apply its plan, or because --run-id names it."""

from pathlib import Path
from typing import Any

from bulkimg.engine.carrying import check_cluster
from bulkimg.engine.create import attendants_of, check_outputs, check_results_size, digest_of, kept_options
from bulkimg.engine.measuring import check_metrics
from bulkimg.engine.plugins import NO_PLUGINS, Plugins, load_observers, with_new
from bulkimg.engine.run import OpenRun
from bulkimg.errors import RunRefused
from bulkimg.ledger import Ledger, RunDirectory, plans, stats, timeline
from bulkimg.ledger.rundir import CAMPAIGN
from bulkimg.ledger.store import NotBegun
from bulkimg.model import RunEvent
from bulkimg.notify import Attendants
from bulkimg.settings import Settings


def resume_run(directory: RunDirectory, settings: Settings, *, planned: bool = False) -> OpenRun:
    """Lock a run again and check that it can be resumed. Raises RunRefused if it cannot.

    `planned`: it must be a plan of which nothing was sent.
    """
    directory.hold()
    try:
        ledger = Ledger.open(directory.ledger)
        try:
            return _reopened(directory, ledger, settings, planned=planned)
        except BaseException:
            ledger.close()
            raise
    except BaseException:
        directory.release()  # otherwise a program that keeps running could not use this run again
        raise


def _reopened(directory: RunDirectory, ledger: Ledger, settings: Settings, *, planned: bool) -> OpenRun:
    state = ledger.meta("state")
    if state in {None, "reading"}:
        raise RunRefused(
            f"run {directory.run_id} ended before its manifest was read, so nothing was sent; run the manifest again"
        )
    if state == "refused":
        raise RunRefused(
            f"the manifest of run {directory.run_id} was refused, so there is nothing to resume; fix it and run it again"
        )
    if planned and state == "done" and not plans.counts(ledger).actions["update"]:
        planned = False  # a plan without changes has nothing left to send
    if planned and state != "planned":
        again = f"bulkimg resume {directory.words}"
        how = {
            "done": f"is finished; see bulkimg status {directory.words}",
            "ready": f"has no plan yet; {again} makes one",
        }
        raise RunRefused(
            f"run {directory.run_id} {how.get(state, f'has already started sending; {again} sends the rest')}"
        )
    ledger.verify()
    if state == "running":  # its process would have written another state at its end
        when = timeline.last_sign_of_life(ledger)
        lost = RunEvent(when, "lost", "the process ended suddenly: it was killed, or the machine stopped")
        timeline.add(ledger, (), [lost])
    if workers := ledger.meta("workers"):  # of a desk that is no more
        gone = {"state": "lost", "in_flight": 0}
        ledger.set_meta(workers=[one | gone if one["state"] == "working" else one for one in workers])
    if state != "done":
        ledger.set_meta(plan_only=False, admitted=False)
    if state != "done":
        ledger.set_meta(settings=kept_options(settings))  # guards and pace that are given now hold from now on
    check_outputs(ledger.meta("manifest") or "", settings)
    check_results_size(ledger, settings)
    check_metrics(settings)
    check_cluster(settings)
    attendants = Attendants() if state == "done" else attendants_of(settings)
    plugins = NO_PLUGINS if state == "done" else _observers(ledger, settings)
    return OpenRun(directory, ledger, settings, attendants=attendants, plugins=plugins)


def _observers(ledger: Ledger, settings: Settings) -> Plugins:
    """Load the plugins that observe a resumed run. Its rows have passed the row hooks before."""
    records = ledger.meta("plugins", [])
    plugins = load_observers(settings.plugins, records)
    if plugins.loaded:
        ledger.set_meta(plugins=with_new(records, plugins))
    return plugins


def named_run(settings: Settings, *, undo_of: str | None = None, retry_of: str | None = None) -> RunDirectory | None:
    """Return the run that `--run-id` names if it can be resumed, or None if a new run may have the name.

    Raises RunRefused if that run is finished, does other work, or is held by a process. `undo_of` and `retry_of` are
    the run that it must undo or retry. A run of which nothing was planned or sent loses its name to the new one.
    """
    directory = RunDirectory(settings.runs_dir / settings.run_id) if settings.run_id else None
    if directory is None or not directory.path.is_dir():
        return None
    directory.hold()
    try:
        if directory.is_begun_only:
            directory.remove()
            return None
        if (directory.path / CAMPAIGN).is_file():
            raise RunRefused(f"{directory.run_id} is the name of a campaign; choose another --run-id")
        try:
            ledger = Ledger.open(directory.ledger, read_only=True)
        except NotBegun:  # we hold it, so no other process is making it
            directory.remove()
            return None
        state, kin = ledger.meta("state", "reading"), (ledger.meta("undo_of"), ledger.meta("retry_of"))
        ledger.close()
        if state == "done":
            raise RunRefused(
                f"run {directory.run_id} is finished and cannot be resumed; choose another --run-id, or see bulkimg status {directory.words}"
            )
        if state in {"reading", "refused", "ready"}:
            directory.remove()
            return None
        if kin[1] != retry_of or (retry_of is None and kin[0] != undo_of):
            raise RunRefused(
                f"run {directory.run_id} does different work; choose another --run-id, or finish it with bulkimg resume {directory.words}"
            )
        return directory
    finally:
        directory.release()


def refuse_other_work(named: RunDirectory, settings: Settings, source: str) -> None:
    """Raise RunRefused if the run of that name is for another server or another manifest."""
    stored = stored_settings(named)
    if (stored.get("endpoint"), stored.get("base_path")) != (settings.endpoint, settings.base_path):
        target = f"{stored.get('endpoint')}{stored.get('base_path')}"
        raise RunRefused(
            f"run {named.run_id} was started against {target}, not {settings.target}; choose another --run-id"
        )
    if edited := edited_manifest(named, source):
        raise RunRefused(
            f"{edited}: not the manifest of run {named.run_id}; choose another --run-id, or send the rest of its own "
            f"manifest with bulkimg resume {named.words}"
        )


def edited_manifest(directory: RunDirectory, source: str | None = None) -> str:
    """Return the name of the run's manifest if the file has changed since, else "". Of a query it is the query's file.

    `source` is the manifest that is given now. Without it, the manifest that the run began with is compared.
    """
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        path = source or ledger.meta("manifest_path")
        digest = ledger.meta("query_sha256") or ledger.meta("sha256")  # the rows of a query are in the ledger only
    finally:
        ledger.close()
    try:
        if not path or not digest or not (path == "-" or Path(path).is_file()):
            return ""
        return path if digest_of(path) != digest else ""
    except OSError:
        return ""


def stored_settings(directory: RunDirectory) -> dict[str, Any]:
    """Return the options that a run began with, as Settings accepts them."""
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        return dict(ledger.meta("settings", {}))
    finally:
        ledger.close()


def rows_left(directory: RunDirectory) -> int:
    """Return how many rows have no outcome, if the run has begun to send."""
    ledger = Ledger.open(directory.ledger, read_only=True)
    try:
        return stats.rows_to_do(ledger) if ledger.meta("state") in ("running", "stopped") else 0
    finally:
        ledger.close()
