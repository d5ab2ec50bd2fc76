"""A small server in this process, for measurements of one row at a time."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.battery.api import Api, Call


class Answers(BaseHTTPRequestHandler):
    """Answer a change with the image, or with a job that has ended at the first poll."""

    protocol_version = "HTTP/1.1"
    on_put: Callable[[], None]
    with_jobs: bool
    good: Api

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        call = Call.of("PUT", self.path, dict(self.headers), body)
        self.on_put()
        self.wfile.write((self.good.accept if self.with_jobs else self.good.answer)(call).wire())  # in one piece

    def do_GET(self) -> None:
        self.wfile.write(self.good.answer(Call.of("GET", self.path, dict(self.headers), b"")).wire())

    def log_request(self, *_: object) -> None:
        """Log nothing."""


@contextlib.contextmanager
def answering(on_put: Callable[[], None], *, with_jobs: bool = False) -> Iterator[str]:
    """Give the server's URL; it runs in threads of this process. `on_put` is called before each PUT is answered."""
    own = {"on_put": staticmethod(on_put), "with_jobs": with_jobs, "good": Api(unseen={})}
    answers = type("Answers", (Answers,), own)
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
