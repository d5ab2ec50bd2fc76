"""Send every request to one server: paced, confined to its origin and paths, with secrets redacted from answers."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import quote, unquote_to_bytes, urlencode

from pydantic_core import to_json

from bulkimg.model import HIDDEN
from bulkimg.zstack.wire import Answer, RequestWriter

# Every path we ever ask for (docs/dev/reliability.md, invariant 22).
_PATHS = re.compile(
    r"/v1/(?:images|images/[0-9a-f]{32}|images/[0-9a-f]{32}/actions|api-jobs/[0-9a-f]{32}"
    r"|accounts/login|accounts/sessions/[0-9a-f]{32}|(?:user|system)-tags|tags/[0-9a-f]{32})"
)


_HIDDEN = HIDDEN.encode()


class Client(Protocol):
    """Puts requests on the wire: HttpClient, or a simulation's network."""

    async def send(self, request: bytes) -> Answer: ...
    async def close(self) -> None: ...


class Pacing(Protocol):
    """Admits requests, and hears what came of each: once, None when it was given up."""

    async def admit(self) -> int: ...
    async def admit_probe(self) -> int: ...
    def record(self, epoch: int, answer: Answer | None) -> int: ...


class Transport:
    """Requests to one origin and context path (`base`, such as http://host:8080/zstack)."""

    def __init__(self, client: Client, base: str, pacing: Pacing) -> None:
        self._client = client
        self._writer = RequestWriter(base)
        self._pacing = pacing
        self._secrets: set[bytes] = set()  # in lower case
        self._pattern: re.Pattern[bytes] | None = None
        self.requests = 0
        self.date = ""  # of the latest answer, as its header says
        self.reached = False  # the server has answered something

    async def admit(self) -> int:
        """Wait for the turn of one more request; the result is handed to `send`."""
        return await self._pacing.admit()

    def add_secret(self, *secrets: str, pattern: bytes | None = None) -> None:
        """Redact these texts in what is shown of every answer from now on, as a server may echo them.

        `pattern`: for what is another one with every request, such as a signature.
        """
        for secret in secrets:
            if len(secret) >= 4:
                self._secrets.update(code.lower() for code in encodings(secret))
        if pattern:
            self._pattern = re.compile(pattern)

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Callable[[], str],
        query: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        probe: bool = False,
    ) -> Answer:
        """One request, after the pace admits it. `headers` is called at that moment, so signatures are fresh.

        `probe`: the gate's own question, which a closed gate does not hold.
        """
        epoch = await (self._pacing.admit_probe() if probe else self._pacing.admit())
        try:
            line = headers()
        except BaseException:
            self._pacing.record(epoch, None)
            raise
        return self.redacted(await self.send(epoch, method, path, line, body, _query(query)))

    async def send(
        self, epoch: int, method: str, path: str, headers: str, body: bytes | None, query: str = ""
    ) -> Answer:
        """One request that the pace has admitted, and its answer as it came: `redacted` says what may be written down of it."""
        if not _PATHS.fullmatch(path):
            raise AssertionError(f"{path!r} is not one of our paths")  # a bug: every uuid was checked when it was read
        self.requests += 1
        answer: Answer | None = None
        try:
            answer = await self._client.send(self._writer.request(method, path + query, headers, body))
        finally:
            failure_id = self._pacing.record(epoch, answer)
        if answer.status is not None:
            self.reached, self.date = True, answer.date
        return answer._replace(failure_id=failure_id) if failure_id else answer

    def redacted(self, answer: Answer) -> Answer:
        """The answer with what may be shown of it, if that is not all.

        Where a secret shows only once escapes are undone, they stay undone: such an answer is worth no more than that.
        """
        if answer.status is None:
            return answer
        raw = self._hidden(answer.raw)
        for escape, undo in _UNDO:
            if escape in raw and (undone := undo(raw)) != (hidden := self._hidden(undone)):
                raw = hidden
        if answer.location:
            answer = answer._replace(location=self._hidden(answer.location.encode()).decode("utf-8", "replace"))
        return answer if raw is answer.raw else answer._replace(shown=raw)

    def _hidden(self, raw: bytes) -> bytes:
        folded = raw.lower()
        for secret in self._secrets:
            if secret in folded:
                raw = re.sub(re.escape(secret), _HIDDEN, raw, flags=re.IGNORECASE)
        return self._pattern.sub(_HIDDEN, raw) if self._pattern else raw

    async def close(self) -> None:
        await self._client.close()


def _query(pairs: Sequence[tuple[str, str]]) -> str:
    """`?q=…&limit=…`; commas stay, so that 200 uuids fit into a stock server's 8 KiB."""
    return f"?{urlencode(pairs, quote_via=quote, safe=',')}" if pairs else ""


def _unescape(raw: bytes) -> bytes:
    # However often it was escaped: a text that is itself full of \uXXXX stands in JSON with two of these strokes each.
    return re.sub(rb"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)).encode("utf-8", "replace"), raw)


_UNDO: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = ((b"\\u", _unescape), (b"%", unquote_to_bytes))


def encodings(secret: str) -> set[bytes]:
    """The secret as it is, and as a server or a proxy may write it in a message: hashed, quoted, in hexadecimal, in base64."""
    raw = secret.encode()
    return {
        raw,
        hashlib.sha512(raw).hexdigest().encode(),
        quote(raw, safe="").encode(),
        # Also in capitals: what is not ASCII has no case to look past in bytes.
        *(form(text) for text in (secret, secret.upper()) for form in (str.encode, _json, _ascii_json)),
        raw.hex().encode(),
        *_base64(raw),
    }


def _json(text: str) -> bytes:
    return to_json(text)[1:-1]


def _ascii_json(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()


def _base64(raw: bytes) -> set[bytes]:
    """Inside a longer text it may begin at any of three places; what shares a letter with its neighbours is left out."""
    found = set()
    for ahead in range(3):
        code = base64.b64encode(bytes(ahead) + raw)
        core = code[4 if ahead else 0 : len(code) - (4 if (ahead + len(raw)) % 3 else 0)]
        if len(core) >= 8:
            found |= {core, core.translate(bytes.maketrans(b"+/", b"-_"))}
    return found
