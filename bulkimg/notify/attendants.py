"""Serve one run: its hooks, and the messages about its start and its end."""

import asyncio
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bulkimg.errors import UsageError
from bulkimg.model import NotifyFailed
from bulkimg.notifications import Hook, HookPoint, NotifyOn, NotifyRule
from bulkimg.notify import message
from bulkimg.notify.addresses import Address, check_kinds, read_address
from bulkimg.notify.hooks import run_hook
from bulkimg.notify.message import Document, Message

Tell = Callable[[NotifyFailed], None]
Rows = Callable[[int], Sequence[Document]]  # the first rows that are not fine, at most so many


class Attendants:
    """The hooks and addresses of one run. Only a hook before the run or before sending can stop it."""

    def __init__(self, notify: Sequence[NotifyRule] = (), hooks: Sequence[Hook] = (), job: str = "") -> None:
        """Read every address. Raises UsageError where one cannot be used."""
        self._addresses = [read_address(number, rule) for number, rule in enumerate(notify, 1)]
        self.doubts = check_kinds(self._addresses)  # what could not be checked before the start
        self._hooks = list(enumerate(hooks, 1))
        for number, hook in self._hooks:
            if why := _not_a_program(hook.run[0]):
                raise UsageError(f"{hook.name(number, 'run')}: {hook.run[0]} {why}")
        self._job = job
        self._run = str(uuid.uuid4())  # ties the pings of one process
        self._started: dict[int, asyncio.Task[str]] = {}  # by the number of the rule

    def __bool__(self) -> bool:
        return bool(self._addresses or self._hooks)

    def has_hooks(self, point: HookPoint) -> bool:
        """Return whether any program is to be run at this point."""
        return any(hook.at == point for _, hook in self._hooks)

    def hears_of(self, event: NotifyOn) -> bool:
        """Return whether any address asks for the event. healthchecks hears of every start."""
        is_start = event == "started"
        return any(
            is_start if address.rule.way == "healthchecks" else event in address.rule.on for address in self._addresses
        )

    async def before(self, point: HookPoint, document: Document) -> str:
        """Run the hooks of this point, one after the other. Returns "" or why the run must not continue."""
        for number, hook in self._hooks:
            if hook.at == point and (why := await run_hook(hook, document, self._job)):
                return f"{_name(number, hook)} {why}"
        return ""

    def start(self, document: Document) -> None:
        """Send what is to be said at the start, beside the run."""
        said = message.started(document, self._job, time.time())
        for address in self._addresses:
            if address.rule.way == "healthchecks":
                self._started[address.number] = asyncio.create_task(address.ping("start", self._run, None))
            elif "started" in address.rule.on:
                self._started[address.number] = asyncio.create_task(address.send(said))

    async def end(self, summary: Document, before: int | None, rows: Rows, tell: Tell, *, once: bool = False) -> None:
        """Run the hooks of the end and send its messages, all at the same time. What fails is reported to `tell`.

        `before` is the exit code of the job's last run. `once`: try each message only once. What is not waited for,
        because this call is cancelled, is reported too.
        """
        said = {address.number: self._message(address, summary, before, rows) for address in self._addresses}
        waits = dict(self._waits(said))
        try:
            await asyncio.gather(
                self._after(summary, tell, waits),
                *(self._last(address, summary, said[address.number], tell, waits, once=once) for address in self._addresses),
            )  # fmt: skip
        except asyncio.CancelledError:
            for what, why in waits.items():
                tell(NotifyFailed(what, f"{why}, because the run was interrupted"))
            raise
        finally:
            for task in self._started.values():
                task.cancel()

    def _waits(self, said: Mapping[int, Message | None]) -> Iterator[tuple[str, str]]:
        """Yield what is waited for at the end, and what is said of it if that is cut short."""
        for number, hook in self._hooks:
            if hook.at == "after-run":
                yield _name(number, hook), "was not waited for"
        for address in self._addresses:
            if said[address.number]:
                yield address.name, "the message of the end was not waited for"
            elif address.number in self._started:
                yield address.name, "the message of the start was not waited for"

    async def _after(self, summary: Document, tell: Tell, waits: dict[str, str]) -> None:
        for number, hook in self._hooks:
            if hook.at == "after-run":
                if why := await run_hook(hook, summary, self._job):
                    tell(NotifyFailed(_name(number, hook), why))
                del waits[_name(number, hook)]

    async def _last(
        self,
        address: Address,
        summary: Document,
        said: Message | None,
        tell: Tell,
        waits: dict[str, str],
        *,
        once: bool,
    ) -> None:
        """Send the message of the end to one address, after that of the start."""
        if (task := self._started.pop(address.number, None)) and (why := await task):
            tell(NotifyFailed(address.name, f"the message of the start was not delivered: {why}"))
        if said and (why := await self._sent(address, summary, said, once)):
            tell(NotifyFailed(address.name, f"not delivered: {why}"))
        waits.pop(address.name, None)

    def _message(self, address: Address, summary: Document, before: int | None, rows: Rows) -> Message | None:
        """Return what this address hears of the end, or None."""
        rule = address.rule
        event = "always" if rule.way == "healthchecks" else message.event_of(summary, before, rule.on)
        if event is None:
            return None
        return message.finished(summary, self._job, event, rows(rule.rows) if rule.rows else (), time.time())

    async def _sent(self, address: Address, summary: Document, said: Message, once: bool) -> str:
        if address.rule.way == "healthchecks":
            return await address.ping(str(summary["exit_code"]), self._run, said, once=once)
        return await address.send(said, once=once)

    async def test(self) -> list[tuple[str, str]]:
        """Send a test message to every address. Returns each one's name, and "" or why it was not delivered."""
        said = message.tested(self._job, time.time())
        return list(await asyncio.gather(*(self._tested(address, said) for address in self._addresses)))

    async def _tested(self, address: Address, said: Message) -> tuple[str, str]:
        if address.rule.way == "healthchecks":  # `log` leaves the state of the check as it is
            return address.name, await address.ping("log", self._run, said)
        return address.name, await address.send(said)


def _not_a_program(name: str) -> str:
    """Return why a program cannot be started and what to do, or ""."""
    if shutil.which(name) is not None:
        return ""
    path = Path(name)
    if "/" in name and path.is_dir():
        return "is a directory; name a program"
    if "/" in name and path.exists():
        return "is not executable; run chmod +x on it, or name its interpreter first"
    return "is no such program; give the whole path of one"


def _name(number: int, hook: Hook) -> str:
    return f"hook {number} ({hook.at}, {hook.run[0]})"
