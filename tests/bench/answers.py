"""A small server in this process, for measurements of one row at a time."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answers(BaseHTTPRequestHandler):
    """Answer a change as a ZStack server does: 200 with the image, or 202 and the image at the first poll."""

    protocol_version = "HTTP/1.1"
    on_put: Callable[[], None]
    with_jobs: bool
    jobs: dict[str, dict[str, Any]]

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        values = next(value for value in body.values() if isinstance(value, dict))
        done = {"inventory": {"uuid": self.path.split("/")[-2], **values}}
        self.on_put()
        if self.with_jobs:
            job = self.headers["X-Job-UUID"]
            self.jobs[job] = done
            self._say(202, {"location": f"http://127.0.0.1/zstack/v1/api-jobs/{job}"})
        else:
            self._say(200, done)

    def do_GET(self) -> None:
        done = self.jobs.pop(self.path.split("/")[-1], None)
        self._say(404 if done is None else 200, done or {})

    def _say(self, status: int, body: dict[str, Any]) -> None:
        """Write in one piece, so that it is read as one."""
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} said\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        self.wfile.write(head.encode() + text)

    def log_request(self, *_: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def answering(on_put: Callable[[], None], *, with_jobs: bool = False) -> Iterator[str]:
    """Give the server's URL; it runs in threads of this process. `on_put` is called before each PUT is answered."""
    own = {"on_put": staticmethod(on_put), "with_jobs": with_jobs, "jobs": {}}
    answers = type("Answers", (Answers,), own)
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
