"""Try answers of one kind each: statuses (T26), redirects to a listening port (T27), Retry-After (T29).

python -m tests.battery.faults_answers T26 --dialect zstack
"""

import argparse
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.battery.faults_catalogue import BOTH, DOCUMENTED, ZSTACK
from tests.battery.report import Record
from tests.battery.trial import Bench, bench, tell, within

SAMPLE = (
    100, 101, 102, 103, 199, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 299, 300, 301, 302, 303, 304, 305, 307,
    308, 399, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 413, 414, 418, 421, 422, 423, 424, 425, 426,
    428, 429, 431, 444, 451, 499, 500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 521, 522, 525, 526, 529, 530, 598,
    599, 600, 700, 999,
)  # fmt: skip
SHORT = ("--timeout", "1s", "--retries", "1", "--job-timeout", "2s")
REDIRECTS = (301, 302, 303, 307, 308)


def statuses(dialect: str, sample: Iterable[int] = SAMPLE, rows: int = 3) -> Record:
    """T26: every PUT of a run gets this status with a proxy's page. Never `updated`, no crash, no hang."""
    begun, failures, trials = time.monotonic(), 0, 0
    said: dict[str, list[int]] = {}
    for status in sample:
        with bench(rows, dialect, sync=False) as ready:
            ready.witness.set_script([{"on": "put", "do": "status", "arg": status}])
            done = ready.run(*SHORT, *within("2s"), limit=60)
            found = ready.check()
            bad = found.bad + found.statuses["updated"] + done.hung + done.crashed
            failures, trials = failures + bad, trials + 1
            outcome = "/".join(sorted(found.statuses)) or f"exit {done.code}"
            said.setdefault(outcome, []).append(status)
            tell(f"T26 {status}, {dialect}", done, str(found), bad, found.problems)
    notes = "; ".join(f"{outcome}: {ranges(found)}" for outcome, found in sorted(said.items()))
    return Record("T26", f"statuses, {dialect}", trials, failures, "statuses", notes, time.monotonic() - begun)


def ranges(numbers: list[int]) -> str:
    """Return 1, 2, 3, 7 as `1-3 7`."""
    return " ".join(map(str, numbers))


@dataclass
class Sink:
    """A port that accepts connections and counts them. No client may connect."""

    url: str
    came: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def sink() -> Iterator[Sink]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Sink(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    visitor, _ = listener.accept()
                    visitor.settimeout(1)
                    with contextlib.suppress(OSError):
                        found.came.append(visitor.recv(4096))
                    visitor.close()

        threading.Thread(target=listen, daemon=True).start()
        yield found
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def redirects(dialect: str, rows: int = 6) -> Record:
    """T27: 301-308 on each kind of request, to another port, to the same origin, and in a circle."""
    begun, failures, trials = time.monotonic(), 0, 0
    kinds = ("put", "login", "poll") if dialect == ZSTACK else ("put", "login")
    with sink() as other:
        for number in REDIRECTS:
            for kind in kinds:
                for target in (other.url, "/zstack/v1/elsewhere", "/zstack/v1/images"):
                    path = f"{target}/zstack/v1/accounts/login" if target.startswith("http") else target
                    with bench(rows, dialect, account=kind == "login", sync=False) as ready:
                        ready.witness.set_script([{"on": kind, "do": "redirect", "arg": [path, number]}])
                        done = ready.run(*SHORT, *within("2s"), limit=60)
                        visits = len(other.came)
                        followed = _followed(ready)
                        found = ready.check()
                        bad = visits + followed + (found.bad if kind != "login" else 0) + done.hung + done.crashed
                        failures, trials = failures + bad, trials + 1
                        other.came.clear()
                        tell(
                            f"T27 {number} on {kind} to {path}", done, f"{found}, {visits} visits", bad, found.problems
                        )
    notes = "followed 0, connections to the other origin 0" if not failures else ""
    return Record("T27", f"redirects, {dialect}", trials, failures, "runs", notes, time.monotonic() - begun)


def _followed(ready: Bench) -> int:
    strange = ("/zstack/v1/elsewhere", "/zstack/v1/images")
    return sum(one["path"] in strange for one in ready.witness.log("run") if one["kind"] == "request")


def foreign_location(rows: int = 20) -> Record:
    """T33: the 202's location names a listening port.

    The job is polled at our own origin, and nothing connects there.
    """
    with sink() as other, bench(rows, ZSTACK, sync=False) as ready:
        location = f"{other.url}/zstack/v1/api-jobs/{'a' * 32}"
        ready.witness.set_script([{"on": "put", "do": "job-other-location", "arg": location}])
        done = ready.run(*SHORT, limit=60)
        found = ready.check()
        bad = found.bad + len(other.came) + done.hung + done.crashed
        tell("T33 location of a listening port", done, f"{found}, {len(other.came)} visits", bad, found.problems)
    notes = f"{len(other.came)} connections to it, {found.statuses['updated']} updated"
    return Record("T33", "location of a listening port, zstack", rows, bad, "rows", notes, done.seconds)


def retry_after_values() -> list[tuple[str, float | None]]:
    """Return (header, seconds that must pass; None if it is garbage or far above any cap)."""
    return [
        ("1", 1.0),
        ("3", 3.0),
        ("now+4", 3.0),  # a date has whole seconds
        ("0", 0.0),
        ("now-3600", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("-1", None),
        ("soon", None),
        ("1.5", None),
        ("9" * 400, None),
        ("31536000", None),
    ]


def retry_after(dialect: str, rows: int = 60) -> Record:
    """T29: one answer in the middle asks to wait. No PUT may begin before its time."""
    begun, failures, trials = time.monotonic(), 0, 0
    earliest: list[str] = []
    for status in (429, 503):
        for value, wait in retry_after_values():
            with bench(rows, dialect, sync=False) as ready:
                rule = {"on": "put", "do": "retry-after", "arg": [status, value], "after": 20, "first": 1}
                ready.witness.set_script([rule])
                done = ready.run("--rate", "40/s", *within("6s"), limit=60)
                early, gap = _early(ready.witness.log("run"), wait)
                found = ready.check()
                bad = found.bad + early + done.hung + done.crashed
                failures, trials = failures + bad, trials + 1
                earliest.append(f"{value[:12]}: {gap:.1f}")
                tell(f"T29 {status} {value[:40]}", done, f"{found}; next after {gap:.2f} s", bad, found.problems)
    notes = f"seconds to the next PUT by value: {', '.join(earliest[: len(earliest) // 2])}"
    return Record("T29", f"Retry-After, {dialect}", trials, failures, "answers", notes, time.monotonic() - begun)


ON_ITS_WAY = 0.15  # seconds: a request may have gone to a socket before the answer was read


def _early(log: list[dict[str, Any]], wait: float | None) -> tuple[int, float]:
    """Return (requests that began too early, seconds to the first one after those in flight)."""
    asked = [one["mono"] for one in log if one["kind"] == "end" and one["fault"] == "retry-after"]
    if not asked:
        return 0, 0.0
    later = [one["mono"] - asked[0] for one in log if one["kind"] == "request"]
    after = [gap for gap in later if gap > ON_ITS_WAY]
    early = [gap for gap in after if wait and gap < wait - 0.02]
    return len(early), min(after, default=0.0)


TESTS: dict[str, Callable[[str], Record]] = {"T26": statuses, "T27": redirects, "T29": retry_after}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ids", nargs="*", default=list(TESTS))
    parser.add_argument("--dialect", choices=BOTH, default=DOCUMENTED)
    asked = parser.parse_args()
    for id_ in asked.ids:
        print(TESTS[id_](asked.dialect))
    if asked.dialect == ZSTACK:
        print(foreign_location())


if __name__ == "__main__":
    main()
