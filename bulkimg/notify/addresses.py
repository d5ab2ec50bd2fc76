"""Read the addresses and secrets that the rules name, and send messages to them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bulkimg.credentials import read_private, run_command
from bulkimg.errors import UsageError, not_installed
from bulkimg.model import NotifyFailed
from bulkimg.notifications import NotifyRule
from bulkimg.notify import by_apprise, healthchecks, webhook
from bulkimg.notify.children import environment
from bulkimg.notify.message import Message
from bulkimg.notify.post import Patience


@dataclass(frozen=True, slots=True)
class Address:
    """Where one rule sends its messages."""

    number: int  # of its [[notify]], from 1
    rule: NotifyRule
    text: str = field(repr=False)
    key: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Return the rule's name for messages: it must not show the address."""
        return f"notify {self.number} ({_source(self.rule, self.rule.way)})"

    async def send(self, message: Message, *, once: bool = False) -> str:
        """Send a message. Returns "" or why it was not accepted."""
        if self.rule.way == "apprise":
            return await by_apprise.send(self.text, message, self.rule.timeout)
        return await webhook.send(self.text, self.key, message, self._patience(once=once))

    async def ping(self, signal: str, run: str, message: Message | None, *, once: bool = False) -> str:
        """Ping healthchecks. Returns "" or why it was not accepted."""
        return await healthchecks.ping(self.text, signal, run, message, self._patience(once=once))

    def _patience(self, *, once: bool) -> Patience:
        patience = Patience(self.rule.timeout)
        return patience.once if once else patience


def read_address(number: int, rule: NotifyRule) -> Address:
    """Read the address and the secret of a rule. Raises UsageError where they cannot be used; it never quotes them."""
    source = _place(number, rule, rule.way)
    text = _read(number, rule, rule.way, lines=rule.way == "apprise")
    if rule.way == "apprise":
        _check_apprise(text, source)
    else:
        _check_url(text, source, is_check=rule.way == "healthchecks")
    if not (rule.secret_file or rule.secret_command):
        return Address(number, rule, text)
    try:
        return Address(number, rule, text, webhook.key_of(_read(number, rule, "secret")))
    except ValueError as error:
        raise UsageError(f"{_place(number, rule, 'secret')} {error}") from None


def check_kinds(addresses: Sequence[Address]) -> list[NotifyFailed]:
    """Raise UsageError for an address whose kind apprise does not know. Returns a warning where it cannot be asked.

    A process is started only if there is a rule of apprise.
    """
    asked = [address for address in addresses if address.rule.way == "apprise"]
    if not asked:
        return []
    try:
        unknown = by_apprise.first_unknown([address.text for address in asked])
    except by_apprise.NotChecked as why:
        return [NotifyFailed(address.name, f"the address could not be checked: {why}") for address in asked]
    for address, position in zip(asked, unknown, strict=True):
        if position:
            which = f"address {position}" if "\n" in address.text else "its address"
            raise UsageError(
                f"{_place(address.number, address.rule, 'apprise')}: apprise does not know the service of "
                f"{which}, or cannot use it; write it as apprise's page of the service shows, such as slack://…"
            )
    return []


def _place(number: int, rule: NotifyRule, what: str) -> str:
    """Return where an address or secret is named in the job file, and the file or program that has it."""
    return rule.name(number, _source(rule, what))


def _source(rule: NotifyRule, what: str) -> str:
    if path := getattr(rule, f"{what}_file"):
        return f"{what}_file {path}"
    return f"{what}_command {getattr(rule, f'{what}_command')[0]}"


def _read(number: int, rule: NotifyRule, what: str, *, lines: bool = False) -> str:
    """Return one line of printable text, or several where `lines`."""
    source = _place(number, rule, what)
    if path := getattr(rule, f"{what}_file"):
        name = rule.name(number, f"{what}_file")
        text = read_private(path, name, os.environ.get("CREDENTIALS_DIRECTORY", ""))
    else:
        name, command = rule.name(number, f"{what}_command"), getattr(rule, f"{what}_command")
        text = run_command(list(command), name, environment({}, credentials_directory=True))
    found = [line.strip() for line in text.removeprefix("\ufeff").splitlines()]
    found = [line for line in found if line and not (lines and line.startswith("#"))]
    if not found or (len(found) > 1 and not lines) or not all(line.isprintable() for line in found):
        raise UsageError(f"{source} does not hold {'addresses' if lines else 'one line of text'}; write it again")
    return "\n".join(found)


def _check_url(text: str, source: str, *, is_check: bool) -> None:
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or re.search(r"\s", text):
        raise UsageError(f"{source} does not hold a URL; write one such as https://host/path")
    if is_check and not healthchecks.is_ping_url(text):
        raise UsageError(f"{source} holds a URL with ? or #; write the ping URL as healthchecks shows it")


def _check_apprise(text: str, source: str) -> None:
    if not all(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", line) for line in text.split("\n")):
        raise UsageError(f"{source} does not hold addresses of apprise; write one a line, such as scheme://…")
    if not by_apprise.is_installed():
        raise not_installed(source, "apprise", "notify")
