"""Fixtures of all tests: the sandbox as a process of its own, the command line as a process, the corpora."""

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.databases import MARIADB, POSTGRES
from tests.warm import Forge, Order, Warm, fits

ROOT = Path(__file__).parent.parent
CORPORA = ROOT.parent / "shared" / "corpora"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SOFFICE = shutil.which("soffice") or shutil.which("libreoffice")
Running = Warm | subprocess.Popen[str]  # a command that was started


# Folders of tests are in memory where there is room: a run syncs its files 20 times, and a disk takes a tenth of the
# time of all tests for that. The battery's own folders stay on the disk.
MEMORY = Path("/dev/shm")
ROOM = 4 << 30
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


# An example may take as long as it needs: on a busy machine any of them stands still for the 200 ms that Hypothesis gives.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")


# One process runs all of such a file: its tests share what is slow to make, or each needs a core and is bounded in
# time. pytest-xdist 3.8 has a mark for that, which has no effect with pytest 9.2: it writes `_nodeid`, which is not
# read.
TOGETHER = (
    "tests/cluster/test_dask.py",
    "tests/live/test_page.py",
    "tests/report/test_plan_page.py",
    "tests/install/test_dist.py",
    "tests/library/test_names.py",
    "tests/manifest/test_sql.py",
    "tests/security/test_bombs.py",
)


class _FilesTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Give every test to any free process, except for the files in TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if path in TOGETHER else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Schedule the tests of `-n` in this way, whatever `--dist` says."""
    return _FilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests marked slow: one of them waits a minute for cron, and must not be the last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


# What tests need besides Python: whether it is here, what is left out without it, and how to get it.
NEEDED = (
    (CORPORA.is_dir(), "the tests of ../shared/corpora, which is not beside this checkout"),
    (
        shutil.which("strace"),
        "crash and disk tests at every system call, and that offline commands open no socket; apt-get install strace",
    ),
    (CHROMIUM, "pages in a browser; apt-get install chromium"),
    (shutil.which("promtool"), "metrics and alert rules through promtool, a program of Debian's package prometheus"),
    (importlib.util.find_spec("opentelemetry"), "spans to a collector; pip install '.[metrics]'"),
    (POSTGRES, "queries of PostgreSQL; apt-get install postgresql"),
    (MARIADB, "queries of MariaDB; apt-get install mariadb-server"),
    (SOFFICE, "workbooks through LibreOffice; apt-get install libreoffice-calc-nogui"),
    (shutil.which("systemd-analyze"), "units through systemd-analyze; apt-get install systemd"),
    (
        shutil.which("cron", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") and not os.geteuid(),
        "a job that cron starts, which needs root; apt-get install cron",
    ),
    (shutil.which("groff"), "man pages through groff; apt-get install groff-base"),
)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name in one line what was left out and how to get it."""
    for is_here, what in NEEDED:
        if not is_here:
            terminalreporter.write_line(f"left out: {what}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start chromium. Tests that need it are skipped if it is missing."""
    if CHROMIUM is None:
        pytest.skip("chromium is absent")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def strace() -> str:
    """Return the path of strace. The test is skipped if it is missing."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is absent")
    return found


@pytest.fixture
def soffice() -> str:
    """Return the path of LibreOffice's program. The test is skipped if it is missing."""
    if SOFFICE is None:
        pytest.skip("LibreOffice is absent")
    return SOFFICE


def corpus(name: str) -> Path:
    """Return a file or folder of the corpora. The test is skipped if they are missing."""
    if not CORPORA.is_dir():
        pytest.skip("../shared/corpora is absent")
    return CORPORA / name


@dataclass(frozen=True)
class Server:
    """A sandbox process and access to its state."""

    url: str
    session: str
    pid: int
    greeting: str

    def requests(self) -> list[dict[str, Any]]:
        return self._get("requests")  # type: ignore[no-any-return]

    def puts(self) -> list[dict[str, Any]]:
        return [request for request in self.requests() if request["path"].endswith("/actions")]

    def edit(self, uuid: str, **fields: Any) -> None:
        """Edit an image as another user: one PUT, answered and executed when this returns."""
        for key in ("updateimage", "updateImage"):
            request = urllib.request.Request(
                f"{self.url}/zstack/v1/images/{uuid}/actions",
                json.dumps({key: fields}).encode(),
                {"Authorization": f"OAuth {self.session}", "Content-Type": "application/json;charset=UTF-8"},
                method="PUT",
            )
            try:
                with urllib.request.urlopen(request, timeout=30):
                    break
            except urllib.error.HTTPError as error:
                if error.code != 400:  # this dialect spells the key differently
                    raise
        deadline = time.monotonic() + 60
        while any(self.images()[uuid].get(name) != value for name, value in fields.items()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def tag(self, uuid: str, *tags: str, kind: str = "user") -> None:
        """Tag an image as another user."""
        for tag in tags:
            body = {"params": {"resourceType": "ImageVO", "resourceUuid": uuid, "tag": tag}}
            request = urllib.request.Request(
                f"{self.url}/zstack/v1/{kind}-tags",
                json.dumps(body).encode(),
                {"Authorization": f"OAuth {self.session}", "Content-Type": "application/json"},
                method="POST",
            )
            urllib.request.urlopen(request, timeout=30).close()
        deadline = time.monotonic() + 60
        while not set(tags) <= set(self.images()[uuid]["_tags"]):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def table(self) -> dict[str, dict[str, Any]]:
        """Return the images without the server's own times: what an undo must restore."""
        return {uuid: {k: v for k, v in image.items() if k != "lastOpDate"} for uuid, image in self.images().items()}

    def wait_for_put(self, before: int = 0) -> None:
        """Wait until the server has received more PUTs than `before`, so that the run of the test is sending."""
        deadline = time.monotonic() + 60
        while len(self.puts()) <= before:
            assert time.monotonic() < deadline, "nothing was sent"
            time.sleep(0.02)

    def images(self) -> dict[str, dict[str, Any]]:
        return self._get("images")  # type: ignore[no-any-return]

    def _get(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/_sandbox/{what}", timeout=30) as answer:
            return json.load(answer)


@contextlib.contextmanager
def sandbox_process(*arguments: str) -> Iterator[Server]:
    """Start a sandbox on a free port. It ends with the block."""
    place = tempfile.gettempdir()
    order = Order(("sandbox", "--port", "0", *arguments), place, {"PATH": os.defpath})
    process = forge().start(order, subprocess.DEVNULL, subprocess.PIPE, 2)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(8)]
        yield Server(lines[0].split()[1], lines[1].split()[1], process.pid, "".join(lines))
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="module", params=["documented", "zstack"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Each of the two dialects. The client is not told which."""
    return str(request.param)


@dataclass
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def start_cold(order: Order, stdin: int, stdout: int, stderr: int) -> "subprocess.Popen[str]":
    """Start a new process: an interpreter that imports what it needs."""
    program = [sys.executable, "-m", "bulkimg", *order.words]
    if order.ignored:
        names = " ".join(signal.Signals(number).name.removeprefix("SIG") for number in order.ignored)
        program = ["sh", "-c", f'trap "" {names}; exec "$0" "$@"', *program]
    return subprocess.Popen(
        program,
        cwd=order.place,
        env=order.env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=True,
        process_group=0 if order.group else None,
        start_new_session=order.session,
        umask=order.umask,
    )


@functools.cache
def forge() -> Forge:
    """The process that forks commands. It starts with the first command."""
    made = Forge()
    atexit.register(made.close)
    return made


@dataclass
class Cli:
    """Run `bulkimg` in a folder of its own, with a clean environment."""

    place: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, code: int | None = 0, stdin: str | None = None, **environment: str) -> Done:
        """Run to the end. `code` is asserted unless it is None."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write((stdin or "").encode())
            given.seek(0)
            found = self._ended(arguments, environment, (given.fileno(), out.fileno(), err.fileno()))
            said = []
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read().decode("utf-8"))
        done = Done(found, *said)
        assert code is None or done.code == code, f"exit {done.code}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err, done.err
        return done

    def _ended(self, arguments: tuple[str, ...], environment: dict[str, str], streams: tuple[int, int, int]) -> int:
        """Return the exit code."""
        process = self._started(Order(arguments, str(self.place), self.env(**environment)), environment, streams)
        try:
            return process.wait(110)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
            raise

    def start(
        self,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        group: bool = False,
        session: bool = False,
        umask: int = -1,
        ignored: tuple[int, ...] = (),
        cold: bool = False,
        **environment: str,
    ) -> Running:
        """Start the command and return. `group`: in a process group of its own, for signals."""
        order = Order(arguments, str(self.place), self.env(**environment), group, session, umask, ignored)
        return self._started(order, environment, (stdin, stdout, stderr), cold)

    def _started(
        self, order: Order, environment: dict[str, str], streams: tuple[int, int, int], cold: bool = False
    ) -> Running:
        """Start a fork, or a new process if that is asked for or a fork cannot have this environment."""
        warm = not cold and fits({**self.environment, **environment})
        return forge().start(order, *streams) if warm else start_cold(order, *streams)

    def env(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(self.place / "config"),
            **self.environment,
            **more,
        }

    def at(self, server: Server) -> "Cli":
        """Return the same command line with a server and its session in the environment."""
        return Cli(self.place, {**self.environment, "BULKIMG_ENDPOINT": server.url, "BULKIMG_SESSION": server.session})

    def write(self, name: str, text: str | bytes) -> str:
        """Write a file in the folder."""
        path = self.place / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return name

    def runs(self) -> list[str]:
        """Return the ids of the runs, oldest first. A named run is in the order of its start."""
        places = [path for path in (self.place / "runs").iterdir() if (path / "run.db").exists()]
        begun = {
            path: (path / ".begun").stat().st_mtime if (path / ".begun").exists() else _stamp(path) for path in places
        }
        return [path.name for path in sorted(places, key=lambda path: begun[path])]

    def run_dir(self) -> Path:
        return self.place / "runs" / self.runs()[-1]

    def results(self) -> list[dict[str, Any]]:
        """Return results.jsonl of the newest run."""
        return [json.loads(line) for line in (self.run_dir() / "results.jsonl").read_text("utf-8").split("\n")[:-1]]

    def summary(self) -> dict[str, Any]:
        return json.loads((self.run_dir() / "summary.json").read_text())  # type: ignore[no-any-return]


def _stamp(path: Path) -> float:
    """Return the time in a run's id."""
    return datetime.strptime(path.name[:19], "%Y%m%d-%H%M%S.%f").replace(tzinfo=UTC).timestamp()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A zstack sandbox for those tests of a module that do not disturb each other."""
    with sandbox_process("--images", "300") as found:
        yield found


UUID = "0123456789abcdef0123456789abcdef"
