"""Start `bulkimg ui` and ask it as a browser, or as somebody who should not get an answer."""

import contextlib
import http.client
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.conftest import Cli, Running

Headers = Sequence[tuple[str, str]]


@dataclass
class Answer:
    """An answer of the page."""

    status: int
    headers: http.client.HTTPMessage
    text: str


@dataclass
class Ui:
    """A running `bulkimg ui`. `url` has the token."""

    process: Running
    url: str
    port: int
    said: str

    @property
    def token(self) -> str:
        found = re.search(r"token=([\w-]+)", self.url)
        assert found
        return found[1]

    @property
    def cookie(self) -> str:
        """Return the cookie for which the token is exchanged, as a browser sends it."""
        answer = self.ask(f"/?token={self.token}")
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        return str(answer.headers["Set-Cookie"]).partition(";")[0]

    def ask(
        self, path: str = "/", headers: Headers = (), *, method: str = "GET", host: str | None = "", cookie: str = ""
    ) -> Answer:
        """Send one request. `host` is its Host, that of the address if it is "", none if it is None."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            if host is not None:
                connection.putheader("Host", host or f"127.0.0.1:{self.port}")
            if cookie:
                connection.putheader("Cookie", cookie)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    @contextlib.contextmanager
    def stream(self, path: str, cookie: str) -> Iterator[http.client.HTTPResponse]:
        """Open a stream; it is closed with the block."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers={"Cookie": cookie})
            answer = connection.getresponse()
            yield answer
            answer.close()
        finally:
            connection.close()


@contextlib.contextmanager
def ui(cli: Cli, *words: str, browser: str = "") -> Iterator[Ui]:
    """Start the page in the folder of `cli`. It ends with the block."""
    process = Cli(cli.place, {**cli.environment, "BROWSER": browser}).start("ui", *words)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        said = [process.stdout.readline() for _ in range(3)]
        assert said[0], process.stderr.read()
        url = said[0].split()[-1]
        yield Ui(process, url, int(url.split(":")[2].partition("/")[0]), "".join(said))
    finally:
        process.terminate()
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
        process.stdout.close()
        process.stderr.close()


def wait_for(what: Callable[[], Any], seconds: float = 40) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)
