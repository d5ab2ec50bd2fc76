"""Authenticate: by a given session, an account that logs in once per run, or an access key that signs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Protocol

from bulkimg.credentials import AccessKey, Account, Credentials, Session
from bulkimg.errors import LoginRefused, TargetError, UsageError
from bulkimg.zstack import wire
from bulkimg.zstack.transport import Transport

_IS_IT_THERE = "check that the server is running and --endpoint is right"
LOGIN_TRIES = 3  # in a row; more could lock the account
LOGOUT_TIMEOUT = 5.0  # seconds
SHORT_LIFE = 60.0  # seconds: a session that dies sooner was kicked out, it did not expire
_SIGNATURE = rb"[A-Za-z0-9+/_-]{27}(?:=|%3[dD]|\\u003[dD])"  # SHA-1 in base64: good for 15 minutes
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Auth(Protocol):
    """What every request needs to know of the credentials."""

    @property
    def ticket(self) -> str:
        """What a request was authorised with: hand it to `renew` when the server says it is dead."""

    async def open(self) -> None:
        """Make ready to sign; LoginRefused or TargetError when the server does not let us in."""

    def headers(self, method: str, path: str) -> str:
        """The header lines that authorise a request that goes out now."""

    async def renew(self, dead: str) -> None:
        """Get a new ticket unless another request already did; LoginRefused when there is none to be had."""

    async def close(self) -> None:
        """Leave nothing behind on the server."""


async def log_out(auth: Auth) -> None:
    """At most a few seconds: a session that is left over expires by itself, a process that does not end is worse."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LOGOUT_TIMEOUT):
            await auth.close()


def make_auth(
    credentials: Credentials,
    transport: Transport,
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Auth:
    """The Auth for a kind of credential; `now` is seconds since the epoch. UsageError where one cannot be a header."""
    in_header = credentials.uuid if isinstance(credentials, Session) else getattr(credentials, "key_id", "")
    if not in_header.isprintable():
        raise UsageError(
            "a credential contains a line break or another control character; write it as one line of plain text"
        )
    if isinstance(credentials, Session):
        transport.redactor.add_secret(credentials.uuid)
        return _GivenSession(credentials)
    if isinstance(credentials, Account):
        return _AccountSession(credentials, transport, now, sleep)
    transport.redactor.add_secret(credentials.secret, pattern=_SIGNATURE)
    return _SignedRequests(credentials, now)


class _GivenSession:
    def __init__(self, session: Session) -> None:
        self.ticket = session.uuid
        self._line = f"Authorization: OAuth {session.uuid}\r\n"

    async def open(self) -> None:
        pass

    def headers(self, method: str, path: str) -> str:
        return self._line

    async def renew(self, dead: str) -> None:
        raise LoginRefused(
            "the session is invalid or expired; set BULKIMG_SESSION to a new one, or let bulkimg log in with "
            "BULKIMG_ACCOUNT and BULKIMG_PASSWORD"
        )

    async def close(self) -> None:
        pass


class _AccountSession:
    """Logs in once; again, however many requests notice at once, when the server drops the session; out at the end."""

    def __init__(
        self,
        account: Account,
        transport: Transport,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._account = account
        self._sleep = sleep
        self._transport = transport
        self._turn = asyncio.Lock()
        self._now = now
        self._session = ""
        self._line = ""
        self._logins = 0
        self._logged_in_at = 0.0
        self._deaths = 0
        self._refused: TargetError | None = None
        transport.redactor.add_secret(account.password, wire.password_hash(account.password))

    @property
    def ticket(self) -> str:
        """Which login it was: a server may give the same session twice."""
        return str(self._logins)

    async def open(self) -> None:
        await self._login()

    def headers(self, method: str, path: str) -> str:
        return self._line

    async def renew(self, dead: str) -> None:
        async with self._turn:
            if self._refused:
                raise self._refused
            if dead != self.ticket:
                return
            short_lived = self._now() - self._logged_in_at < SHORT_LIFE
            self._deaths = self._deaths + 1 if short_lived else 1
            try:
                if self._deaths > LOGIN_TRIES:
                    raise LoginRefused(
                        f"the server dropped {LOGIN_TRIES} sessions in a row; check that account {self._account.name!r} is not "
                        "used elsewhere, as a server may allow one session per user"
                    )
                await self._login(patient=True)
            except TargetError as error:
                self._refused = error  # once is enough: more could lock the account
                raise

    async def _login(self, *, patient: bool = False) -> None:
        """`patient`: in the middle of a run, where an outage is waited for at the gate. Never again when it refuses."""
        tries = 1
        while (answer := await self._ask()).failure_id and (
            patient or (answer.status is not None and tries < LOGIN_TRIES)
        ):
            await self._sleep(min(answer.retry_after or 2.0**tries, 30.0))
            tries += not patient
        self._take(answer)

    async def _ask(self) -> wire.Answer:
        body = wire.login_body(self._account.name, self._account.password)
        return await self._transport.exchange("PUT", "/v1/accounts/login", headers=_json_headers, body=body)

    def _take(self, answer: wire.Answer) -> None:
        if answer.status is None:
            hint = "check --ca-file and the server's certificate" if answer.failure == "TLS" else _IS_IT_THERE
            raise TargetError(f"login failed: {answer.detail}; {hint}")
        if answer.failure_id:
            raise TargetError(f"login failed: HTTP {answer.status}, repeatedly; check the server")
        said = answer.json()
        session = wire.session_of(said) if answer.status == 200 else None
        if session is None:
            answer = self._transport.redactor.answer(answer)
            if said := wire.foreign(answer):
                raise TargetError(f"login failed: {said}; {wire.endpoint_hint(answer)}")
            if answer.status in (404, 405):
                raise TargetError(f"login failed: HTTP {answer.status}; check --endpoint and --base-path")
            error = wire.error_of(answer.json())
            reason = f"{error.code} {error.text}" if error else f"HTTP {answer.status}"
            quoted = (
                "; remove the quotation marks around the password unless they are part of it"
                if self._account.is_quoted
                else ""
            )
            raise LoginRefused(f"the server refused the login of account {self._account.name!r}: {reason}{quoted}")
        self._session = session
        self._line = f"Authorization: OAuth {session}\r\n"
        self._transport.redactor.add_secret(session)
        self._logins += 1
        self._logged_in_at = self._now()

    async def close(self) -> None:
        """Log out; a server that does not answer any more will expire the session itself."""
        if self._session:
            await self._transport.exchange("DELETE", f"/v1/accounts/sessions/{self._session}", headers=_json_headers)
            self._session = ""


class _SignedRequests:
    def __init__(self, key: AccessKey, now: Callable[[], float]) -> None:
        self.ticket = key.key_id
        self._key = key
        self._now = now

    async def open(self) -> None:
        pass

    def headers(self, method: str, path: str) -> str:
        date = http_date(self._now())
        signature = wire.sign(self._key.secret, method, date, path)
        return f"Authorization: ZStack {self._key.key_id}:{signature}\r\nDate: {date}\r\n"

    async def renew(self, dead: str) -> None:
        raise LoginRefused("the server rejected the access key; check whether it is disabled")

    async def close(self) -> None:
        pass


def http_date(now: float) -> str:
    """`Mon, 23 Nov 2026 12:00:00 CET`: local wall-clock time in English, as the vendor's SDKs send it.

    Servers compare wall clocks and ignore the zone unless configured otherwise (docs/dev/protocol.md §4).
    """
    t = datetime.fromtimestamp(now).astimezone()
    zone = t.tzname() or "UTC"
    zone = zone if zone.isascii() and zone.isalpha() else "UTC"
    return f"{_DAYS[t.weekday()]}, {t.day:02d} {_MONTHS[t.month - 1]} {t.year} {t:%H:%M:%S} {zone}"


def _json_headers() -> str:
    return "Content-Type: application/json;charset=UTF-8\r\n"
