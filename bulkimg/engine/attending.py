"""Have the hooks and messages of one run done at their points of the run."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from bulkimg import __version__
from bulkimg.applier import Ending
from bulkimg.credentials import AccessKey, Account, Credentials, Session
from bulkimg.engine.interrupt import Interrupt
from bulkimg.engine.run import OpenRun
from bulkimg.errors import BulkimgError, Exit
from bulkimg.ledger import stats
from bulkimg.model import GOOD, NotifyFailed, Observer, Status, iso_utc
from bulkimg.notifications import HookPoint
from bulkimg.notify import last_end, own_end
from bulkimg.zstack.redaction import Redactor

_NOTHING_SAID = NotifyFailed(
    "notify", "no message was sent and no hook run at the end, because the run was interrupted"
)
_BAD = tuple(status for status in Status if status not in GOOD and status is not Status.UNPROCESSED)


class Attending:
    """The attendants of one run at work. Without any, every method does nothing."""

    def __init__(self, run: OpenRun, observe: Observer, interrupt: Interrupt, credentials: Credentials | None) -> None:
        self._run = run
        self._observe = observe
        self._interrupt = interrupt
        self._attendants = run.attendants
        self._before = own_end(run.ledger) if run.attendants else None  # of an earlier process
        self._has_ended = False  # its messages are being sent; a signal may come before that
        self._redactor = Redactor()
        if credentials:
            self._redactor.add_secret(*secrets_of(credentials))

    async def before(self, point: HookPoint) -> Ending | None:
        """Run the hooks of this point, if anything is left to send. Returns why nothing may be sent, or None."""
        if not self._attendants.has_hooks(point) or not stats.rows_to_do(self._run.ledger):
            return None
        if self._interrupt.stop:
            return self._interrupt.stop
        failed: list[str] = []

        async def hooks() -> None:
            if why := await self._attendants.before(point, opening(self._run)):
                failed.append(self._redactor.text(why))

        if stop := await self._interrupt.until_stopped(hooks()):
            return stop
        if not failed:
            return None
        more = "" if self._run.ledger.meta("state") in ("ready", "planned") else "more "
        later = f"bulkimg resume {self._run.directory.words} sends it once the hook succeeds"
        return Ending(Exit.REFUSED, f"{failed[0]}; nothing {more}was sent; {later}", resumable=False)

    def start(self) -> None:
        """Say that the run starts. Nothing waits for it."""
        for doubt in self._attendants.doubts:
            self._tell(doubt)
        if self._attendants.hears_of("started"):
            self._attendants.start(opening(self._run))

    async def end(self, document: dict[str, Any]) -> None:
        """Say how the run ended. `document` is its summary. A second signal ends the waiting, or prevents it."""
        if self._attendants and not self._left_out():
            await self._interrupt.whatever_comes_of_it(self._end_or_tell(document))
            if not self._has_ended:
                self._tell(_NOTHING_SAID)

    def _left_out(self) -> bool:
        """Return whether the run ends at once, without its messages, and say so."""
        if self._interrupt.at_once:
            self._tell(_NOTHING_SAID)
        return self._interrupt.at_once

    async def _end_or_tell(self, document: dict[str, Any]) -> None:
        self._has_ended = True
        try:
            await self._end(document)
        except Exception as error:  # a message is never a reason to end a run in another way
            self._tell(NotifyFailed("notify", f"nothing more was sent: {type(error).__name__}"))

    async def _end(self, document: dict[str, Any]) -> None:
        run = self._run
        before = None
        if document["exit_code"] == Exit.OK and self._attendants.hears_of("recovered"):
            before = last_end(run.ledger, run.directory.path.parent, run.directory.run_id, self._before)
        once = document["exit_code"] in (Exit.INTERRUPTED, Exit.TERMINATED)  # its sender waits
        await self._attendants.end(document, before, self._rows, self._tell, once=once)

    async def broke(self, error: BulkimgError) -> None:
        """Say that the run ended by an error, such as a full disk. The ledger may not be readable."""
        run = self._run
        document = {
            "schema": 1,
            "run_id": run.directory.run_id,
            "directory": str(run.directory.path),
            "target": run.settings.target,
            "exit_code": int(error.exit_code),
            "reason": str(error),
            "version": __version__,
            "next": f"bulkimg resume {run.directory.words}",
        }
        if self._attendants and not self._left_out():
            end = self._attendants.end(document, None, lambda most: (), self._tell)
            await self._interrupt.whatever_comes_of_it(end)

    def _rows(self, most: int) -> Sequence[dict[str, Any]]:
        found = (fate.outcome for fate in stats.row_texts(self._run.ledger, *_BAD))
        return [
            {"line": row.line, "uuid": row.uuid, "status": row.status.value, "code": row.code, "message": row.message}
            for row in islice(found, most)
        ]

    def _tell(self, failed: NotifyFailed) -> None:
        self._observe(NotifyFailed(failed.what, self._redactor.text(failed.why)))


def end_refused(run: OpenRun, document: dict[str, Any], observe: Observer) -> None:
    """Say that a manifest was refused, and wait for it. There is no engine and no event loop then."""
    if run.attendants:
        with suppress(KeyboardInterrupt):  # it ends the waiting, and the manifest is still refused
            asyncio.run(Attending(run, observe, Interrupt(), None).end(document))


def opening(run: OpenRun) -> dict[str, Any]:
    """Return what is known of a run that has not ended, with the names of summary.json."""
    meta = run.ledger.meta
    started = meta("started_at")
    return {
        "schema": 1,
        "run_id": run.directory.run_id,
        "directory": str(run.directory.path),
        "target": run.settings.target,
        "rows": stats.rows_in_all(run.ledger),
        "rows_to_do": stats.rows_to_do(run.ledger),
        "started_at": iso_utc(started) if started else "",
        "manifest": {"name": meta("manifest"), "sha256": meta("sha256")},
        "retry_of": meta("retry_of"),
        "undo_of": meta("undo_of"),
        "by": meta("by"),
        "note": meta("note", ""),
        "version": __version__,
    }


def secrets_of(credentials: Credentials) -> tuple[str, ...]:
    """Return what must not be shown of the credentials."""
    match credentials:
        case Session(uuid):
            return (uuid,)
        case Account(_, password):
            return (password,)
        case AccessKey(_, secret):
            return (secret,)
