"""Keep accounts, sessions that expire unless used, and access keys (docs/dev/protocol.md §4)."""

import base64
import hashlib
import hmac
import random
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from bulkimg.sandbox import refusals
from bulkimg.sandbox.dates import java_date
from bulkimg.sandbox.generate import uuid as make_uuid

_MOST_SESSIONS = 500
_SKEW = timedelta(minutes=15)


class Identity:
    """One account (admin / password), its sessions, one access key. `clock` is monotonic seconds."""

    def __init__(self, seed: int, timeout: float, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        rng = random.Random(f"identity {seed}")
        self._clock, self._now = clock, now
        self.timeout = timeout
        self.account = make_uuid(rng)
        self.key_id, self.key_secret = f"sandbox{rng.getrandbits(48):012x}", f"{rng.getrandbits(160):040x}"
        self.password = "password"  # noqa: S105 - the real server's initial one, and printed at the start
        self._expires: dict[str, float] = {}
        self.first_session = make_uuid(rng)
        self._expires[self.first_session] = clock() + timeout

    def login(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a new session's inventory. The password is sent as SHA-512 and compared as such."""
        for field in ("accountName", "password"):
            if not isinstance(message.get(field), str):
                raise refusals.mandatory(field)
        expected = hashlib.sha512(self.password.encode()).hexdigest()
        if message["accountName"] != "admin" or not hmac.compare_digest(
            message["password"].encode(), expected.encode()
        ):
            raise refusals.Refusal("ID.1000", "wrong account name or password")
        if sum(self.is_valid(session) for session in self._expires) >= _MOST_SESSIONS:
            raise refusals.Refusal(
                "ID.1006",
                f"Login sessions hit limit of max allowed concurrent login sessions, max allowed: {_MOST_SESSIONS}",
            )
        session = uuid.uuid4().hex
        self._expires[session] = self._clock() + self.timeout
        return self.inventory(session)

    def inventory(self, session: str) -> dict[str, Any]:
        """Return the session as the server shows it."""
        moment = self._now()
        return {
            "uuid": session,
            "accountUuid": self.account,
            "userUuid": self.account,
            "userType": "AccountVO",
            "expiredDate": java_date(moment + timedelta(seconds=self.timeout)),
            "createDate": java_date(moment),
            "noSessionEvaluation": False,
        }

    def logout(self, session: str) -> None:
        """End a session. It also succeeds for a session that does not exist."""
        self._expires.pop(session, None)

    def expire_all(self) -> None:
        """End every session, as if another login of the user had ended them (`enable.unique.session`)."""
        self._expires.clear()

    def is_valid(self, session: str) -> bool:
        return self._expires.get(session, 0.0) > self._clock()

    def read_authorization(self, headers: Mapping[str, str], method: str, path: str) -> str | None:
        """Return the session's uuid, or None for an access key whose signature is right.

        Raises what the REST layer refuses at once.
        """
        given = headers.get("Authorization")
        if given is None:
            raise refusals.PlainRefusal(400, "missing header 'Authorization'")
        scheme, _, rest = given.strip().partition(" ")
        if scheme == "OAuth":
            return rest.strip()
        if scheme != "ZStack":
            raise refusals.PlainRefusal(400, "Authorization type must be 'OAuth'")
        self._check_signature(rest, headers.get("Date"), method, path)
        return None

    def _check_signature(self, given: str, date: str | None, method: str, path: str) -> None:
        key_id, colon, signature = given.strip().partition(":")
        if not colon:
            raise refusals.PlainRefusal(400, "accessKey format is 'ZStack AccessKeyId:Signature'")
        if date is None:
            raise refusals.PlainRefusal(400, "'Date' must be incuded in request header")
        try:
            # The zone is ignored: wall clocks are compared (rest.checkTimeZone=false).
            moment = datetime.strptime(date.rsplit(" ", 1)[0], "%a, %d %b %Y %H:%M:%S")
        except ValueError:
            raise refusals.PlainRefusal(
                400, "'Date' format error, correct format is 'EEE, dd MMM yyyy HH:mm:ss z'"
            ) from None
        if abs(moment - self._now()) > _SKEW:
            raise refusals.PlainRefusal(403, "requestTimeTooSkewed")
        if key_id != self.key_id:
            raise refusals.PlainRefusal(403, f"access key id: {key_id} does not existed or disabled")
        text = f"{method}\n{date}\n{path}".encode()
        expected = base64.b64encode(hmac.new(self.key_secret.encode(), text, hashlib.sha1).digest()).decode()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise refusals.PlainRefusal(403, "wrong accessKey signature")

    def use(self, session: str | None) -> None:
        """Check the session of a call and extend its expiry. Access keys have none."""
        if session is None:
            return
        if not self.is_valid(session):
            raise refusals.session_expired()
        self._expires[session] = self._clock() + self.timeout
