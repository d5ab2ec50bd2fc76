"""`--cluster` as people use it: the real command line, real schedulers and workers, TLS."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
import pytest

from bulkimg.cluster.reach import reached, security_for
from bulkimg.errors import TargetError, UsageError
from bulkimg.place import parse_cluster, scheduler_address
from tests.cluster.processes import Site, certificates, free_port
from tests.cluster.strangers import ACCOUNT
from tests.conftest import ROOT, Cli, Server, sandbox_process

IMAGES = 60
# What Dask, tornado, asyncio and multiprocessing write where something was left over.
NOISE = re.compile(
    r"distributed|tornado|Warning|leaked|never (awaited|retrieved)|Traceback|Exception ignored|CommClosed"
)

HIDING = """import sys
class Hiding:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "distributed":
            raise ModuleNotFoundError("No module named 'distributed'", name=name)
sys.meta_path.insert(0, Hiding)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with sandbox_process("--images", str(IMAGES), "--dialect", "documented") as found:
        yield found


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the variables of Dask with the certificates of the cluster."""
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def site(
    server: Server, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, str]]:
    """A scheduler and two workers. Returns the scheduler file and the address in it."""
    made = Site(tmp_path_factory.mktemp("site"), variables)
    file = made.place / "scheduler.json"
    made.dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--protocol", "tls", "--scheduler-file", str(file))
    for _ in range(2):
        more = {"BULKIMG_SESSION": server.session}
        made.dask("worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", **more)
    made.wait_for("Starting established connection to tls://127.0.0.1", 4)
    yield file, json.loads(file.read_text())["address"]
    made.end()


@pytest.fixture
def at(cli: Cli, server: Server, variables: dict[str, str]) -> Cli:
    return Cli(cli.place, {**cli.at(server).environment, **variables})


def manifest(server: Server, mark: str, rows: int = IMAGES) -> str:
    images = sorted(server.images())[:rows]
    return "uuid,name\n" + "".join(f"{uuid},{mark}-{n}\n" for n, uuid in enumerate(images))


def renamed(server: Server, mark: str) -> int:
    return sum(str(image["name"]).startswith(f"{mark}-") for image in server.images().values())


def quiet(err: str) -> str:
    """Check that nothing is there but our own lines."""
    assert not NOISE.search(err), err
    return err


def until(what: Any, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def family(pid: int) -> set[int]:
    """Return the processes below this one that live."""
    found: set[int] = set()
    parents = {pid}
    while parents:
        parents = {
            int(child)
            for parent in parents
            for task in Path(f"/proc/{parent}/task").glob("*/children")
            for child in task.read_text().split()
        } - found
        found |= parents
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ports(pid: int) -> set[int]:
    """Return the ports of 127.0.0.1 that a process listens at."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            inodes.add(str(link.readlink()).removeprefix("socket:[").rstrip("]"))
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(line[1].partition(":")[2], 16) for line in lines if line[3] == "0A" and line[9] in inodes}


# -- workers on this machine --------------------------------------------------------------------------------------------


def test_local_workers_can_be_watched_steered_and_interrupted(at: Cli, server: Server) -> None:
    """Nothing of them is left afterwards, and one process finishes the run."""
    at.write("m.csv", manifest(server, "local"))
    at.write("session", server.session)
    (at.place / "session").chmod(0o600)
    at.environment["BULKIMG_SESSION_FILE"] = str(at.place / "session")
    del at.environment["BULKIMG_SESSION"]
    before = len(server.puts())
    words = ("run", "m.csv", "--cluster", "local:2", "--yes", "--run-id", "one", "--rate", "9/s", "--concurrency", "6")
    running = at.start(*words, group=True)
    server.wait_for_put(before + 3)
    found = until(lambda: len(ws := at("status", "one", "--json").json()["workers"]) == 2 and ws)
    assert {worker["state"] for worker in found} == {"working"}
    workers = family(running.pid)
    assert {worker["pid"] for worker in found} < workers
    check_no_secret_in(workers, server.session)
    listening = ports(running.pid)
    check_closed_to_others(listening)
    watching = at.start("watch", "one")
    assert "rate" in at("ctl", "one", "rate=12/s").out
    until(lambda: len(server.puts()) > before + 12)
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "next:    bulkimg resume one" in quiet(err)
    assert re.search(r"worker \S+ joined", err)
    until(lambda: not [pid for pid in workers if lives(pid)])  # Python's resource tracker ends last
    for port in listening:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
    out, err = watching.communicate(timeout=60)
    assert "worker " in out + err
    assert renamed(server, "local") < IMAGES
    at("resume", "one", "--rate", "unlimited")
    assert renamed(server, "local") == IMAGES
    assert [row["line"] for row in at.results()] == list(range(2, IMAGES + 2))
    at("report", "one")
    page = (at.place / "runs" / "one" / "report.html").read_text()
    assert "<h2>Workers</h2>" in page
    assert all(f":{worker['pid']}<" in page for worker in found)


def check_no_secret_in(workers: set[int], session: str) -> None:
    """The session is in a file that the user made. Nothing copies it to where other processes look."""
    for pid in workers:
        assert session.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        try:
            assert session.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        except PermissionError:  # only root may look
            continue


def check_closed_to_others(listening: set[int]) -> None:
    """Another user of the machine has no certificate of this run."""
    assert len(listening) >= 4  # scheduler, two nannies, desk
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    closed = 0
    for port in listening:
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 5) as plain:
            plain.sendall(b"GET /info/main/workers.html HTTP/1.1\r\nHost: x\r\n\r\n")
            said = plain.recv(4096)
            if said.startswith(b"HTTP/1.1 404"):
                continue  # where Dask has its status pages, of which there are none
            assert said[:1] in (b"", b"\x15")  # nothing, or an alert of TLS
        with (
            suppress(ssl.SSLError, ConnectionError),
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain) as stranger,
        ):
            assert stranger.recv(1) == b""
        closed += 1
    assert closed >= 4


def test_workers_are_gone_after_a_kill_and_say_nothing(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "killed", 30))
    before = len(server.puts())
    running = at.start(
        "run", "m.csv", "--cluster", "local:1", "--yes", "--run-id", "k", "--rate", "9/s", "--progress", "none"
    )
    server.wait_for_put(before + 2)
    workers, listening = family(running.pid), ports(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    _, err = running.communicate(timeout=60)  # their ends of the pipes are closed too
    quiet(err)
    until(lambda: not [pid for pid in workers if lives(pid)])
    for port in listening:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)
    at("resume", "k", "--rate", "unlimited")
    assert renamed(server, "killed") == 30


def test_an_interrupt_while_workers_start_leaves_nothing(at: Cli, server: Server) -> None:
    """No worker says that it was interrupted, and Dask does not say that its start has failed."""
    at.write("m.csv", manifest(server, "early", 5))
    before = len(server.puts())
    running = at.start("run", "m.csv", "--cluster", "local:1", "--yes", group=True)
    workers = until(lambda: len(found := family(running.pid)) > 1 and found)  # the other one is the resource tracker
    os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "stopped: interrupted with Ctrl-C" in quiet(err)
    assert len(server.puts()) == before
    until(lambda: not [pid for pid in workers if lives(pid)])


def test_a_script_without_a_main_guard_runs_once(at: Cli, server: Server) -> None:
    """Python would run it again in every worker process."""
    at.write("m.csv", manifest(server, "script", 20))
    at.write(
        "script.py",
        "import bulkimg\nopen('ran', 'a').write('x')\n"
        f"found = bulkimg.run('m.csv', endpoint={server.url!r}, cluster='local:1', rate='unlimited')\n"
        "print(found.exit_code, found.counts['updated'])\n",
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=at.place,
        env=at.env(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 20\n", "")
    assert (at.place / "ran").read_text() == "x"
    assert renamed(server, "script") == 20


# -- a scheduler of one's own -------------------------------------------------------------------------------------------


def test_every_sending_command_takes_a_cluster(at: Cli, server: Server, site: tuple[Path, str]) -> None:
    """By its address, its file, the environment and a job file; the desk's port is the one that was asked for."""
    file, address = site
    port = free_port()
    rows = manifest(server, "plan", 20)
    at.write("m.csv", f"{rows}{'0' * 32},gone\n")
    at("plan", "m.csv", "--run-id", "p", "--rate", "unlimited", code=1)
    before = len(server.puts())
    running = at.start("apply", "p", "--yes", "--cluster", str(file), "--desk", f"127.0.0.1:{port}", "--rate", "4/s")
    server.wait_for_put(before)
    assert port in ports(running.pid)
    until(lambda: len(at("status", "p", "--json").json()["workers"]) == 2)
    at("ctl", "p", "rate=unlimited")
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1, err
    assert len(re.findall(r"worker \S+ joined", quiet(err))) == 2
    assert renamed(server, "plan") == 20
    retried = at("retry", "p", "--yes", code=1, BULKIMG_CLUSTER=address, BULKIMG_RATE="unlimited")
    assert "joined" in quiet(retried.err) or "NO_SUCH_IMAGE" in retried.err
    quiet(at("undo", "p", "--yes", "--cluster", address, "--rate", "unlimited").err)
    assert renamed(server, "plan") == 0
    (at.place / "scheduler.json").write_bytes(file.read_bytes())
    (at.place / "jobs").mkdir()
    at.write(
        "jobs/j.toml",
        '[job]\nmanifest = "../m.csv"\n[run]\ncluster = "../scheduler.json"\n[pace]\nrate = "unlimited"\n',
    )
    done = at("run", "jobs/j.toml", "--yes", "--where", f"uuid!={'0' * 32}")
    assert "joined" in quiet(done.err)
    assert renamed(server, "plan") == 20


def test_an_interrupted_run_is_resumed_by_the_cluster(at: Cli, server: Server, site: tuple[Path, str]) -> None:
    at.write("m.csv", manifest(server, "resumed"))
    before = len(server.puts())
    running = at.start("run", "m.csv", "--yes", "--run-id", "r", "--rate", "9/s")
    server.wait_for_put(before + 2)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 130
    done = at("resume", "r", "--cluster", site[1], "--rate", "unlimited")
    assert "joined" in quiet(done.err)
    assert renamed(server, "resumed") == IMAGES


@pytest.fixture(scope="module")
def strangers(
    server: Server, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, str]]:
    """A scheduler without bulkimg, and five workers of which none may work for a run."""
    made = Site(tmp_path_factory.mktemp("strangers"), variables)
    address = f"tls://127.0.0.1:{free_port()}"
    made.dask("scheduler", "--host", address, PYTHONPATH="")
    kinds = ("credentials", "account", "endpoint", "version", "bulkimg")
    made.start(str(ROOT / "tests" / "cluster" / "strangers.py"), address, *kinds)
    made.wait_for("Starting worker compute stream", len(kinds))
    yield made, address
    made.end()


def test_a_worker_that_differs_is_refused_with_the_reason(at: Cli, server: Server, strangers: tuple[Site, str]) -> None:
    """And one that fits does all of the work. Its credentials and its session are in no message."""
    site, address = strangers
    at.write("m.csv", manifest(server, "strange", 20))
    at = Cli(at.place, {**at.environment, **ACCOUNT})
    del at.environment["BULKIMG_SESSION"]
    before = len(server.requests())
    words = ("run", "m.csv", "--yes", "--cluster", address, "--rate", "unlimited")
    refused = quiet(at(*words, code=2).err)
    assert "bulkimg: no worker of the cluster can work for this run: " in refused
    for why in (
        r"no credentials found; set BULKIMG_SESSION",
        r"has the credentials of account intruder, but the run is of account admin; give it the same account",
        r"is set up for http://127\.0\.0\.1:1/zstack, but the run is for .*; change its BULKIMG_ENDPOINT or profile",
        r"has bulkimg 0\.0\.1, this is .*; install the same version",
        r"No module named 'bulkimg'; install bulkimg .* there",
    ):
        assert len(re.findall(f"worker .* was refused: .*{why}", refused)) == 1, (why, refused)
    assert len(server.requests()) == before, "a worker that is refused, or the desk, has asked the server"
    site.start(str(ROOT / "tests" / "cluster" / "strangers.py"), address, "good")
    site.wait_for("Starting worker compute stream", 6)
    done = at(*words)
    assert len(re.findall(r"worker \S+ joined", quiet(done.err))) == 1, done.err
    assert renamed(server, "strange") == 20
    sessions = {request["authorization"].removeprefix("OAuth ") for request in server.requests()[before:]} - {""}
    assert sessions
    sent = (site.place / "good.bytes").read_bytes()
    assert b"strange-7" in sent, "the messages were not recorded"
    for secret in (ACCOUNT["BULKIMG_PASSWORD"], *sessions):
        assert secret.encode() not in sent.replace(b"BULKIMG_PASSWORD", b"").replace(b"password_command", b"")
        assert secret not in re.sub("BULKIMG_PASSWORD", "", site.log + refused + done.err)


# -- what is refused ----------------------------------------------------------------------------------------------------


def test_without_a_scheduler_nothing_is_sent(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "nobody", 5))
    before = len(server.puts())
    done = at("run", "m.csv", "--yes", "--cluster", f"tls://127.0.0.1:{free_port()}", code=5)
    assert "cannot be reached: [Errno 111] Connection refused; nothing was sent; start it" in done.err
    quiet(done.err)
    assert "next:    bulkimg run m.csv --yes --cluster tls://127.0.0.1:" in done.err
    assert at.summary()["counts"]["unprocessed"] == 5
    assert len(server.puts()) == before


async def test_a_scheduler_that_is_not_there_is_said_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(TargetError, match="Connection refused"):
        await reached(f"tcp://127.0.0.1:{free_port()}", None)
    assert time.monotonic() - began < 8, "Dask would try for ten seconds"


async def test_a_scheduler_that_cannot_be_reached_is_named_with_the_reason(
    server: Server, site: tuple[Path, str], variables: dict[str, str], tmp_path: Path
) -> None:
    web = server.url.removeprefix("http://")
    _, address = site
    for at, why in (
        ("tcp://scheduler.invalid:8786", "Name or service not known|Temporary failure|not known"),
        (f"tcp://{web}", "what answers there is no Dask scheduler"),
        (address.replace("tls", "tcp"), "Connection reset|closed|no Dask scheduler"),
    ):
        with pytest.raises(
            TargetError, match=f"the scheduler at .* cannot be reached: .*({why}).*; nothing was sent; "
        ):
            await reached(at, None)
    alike = "check that its certificates are of the same authority"
    with dask.config.set(_as_config(variables)), pytest.raises(TargetError, match=alike):
        await reached(f"tls://{web}", security_for("tls://"))
    others = certificates(tmp_path, "others")
    only_client = {name: value for name, value in others.items() if "__CLIENT__" in name}
    for wrong in (others, {**variables, **only_client}):
        with dask.config.set(_as_config(wrong)), pytest.raises(TargetError, match=alike):
            await reached(address, security_for(address))


def _as_config(variables: dict[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("DASK_").lower().replace("__", ".").replace("ca_file", "ca-file"): value
        for name, value in variables.items()
    }


def test_certificates_that_cannot_be_used_are_named(variables: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tls://h:1: no certificate is known for it; .*client\.cert and client\.key"):
        security_for("tls://h:1")
    (tmp_path / "empty.pem").write_text("")
    for path, why in ((tmp_path / "no.pem", "No such file"), (tmp_path / "empty.pem", "cannot be used")):
        found = _as_config(variables) | {"distributed.comm.tls.client.cert": str(path)}
        with dask.config.set(found), pytest.raises(UsageError, match=why):
            security_for("tls://h:1")
    assert security_for("tcp://127.0.0.1:1") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot be read: No such file"),
        ("", "is no scheduler file"),
        ("{}", "is no scheduler file"),
        ("[]", "is no scheduler file"),
        ('{"address": 7}', "its address '7' is no scheduler's address"),
        ('{"address": "tcp://10.0.0.7:8786"}', r"plain tcp.*put insecure\+ before it"),
        ('{"address": "inproc://10.0.0.7/1/1"}', "is no scheduler's address"),
        ("[" * 100_000, "f.json"),
    ],
)
def test_a_file_that_is_no_scheduler_file(tmp_path: Path, text: str | None, why: str) -> None:
    file = tmp_path / "f.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=why):
        scheduler_address(parse_cluster(str(file)))


def test_plain_tcp_to_another_machine_is_allowed_by_name(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_text('{"address": "tcp://10.0.0.7:8786"}')
    assert scheduler_address(parse_cluster(f"insecure+{file}")) == "tcp://10.0.0.7:8786"


def test_plain_tcp_carries_a_run(cli: Cli, server: Server, tmp_path: Path) -> None:
    """On this machine it is allowed, and asking for it by name is the same."""
    at, made = cli.at(server), Site(tmp_path, {})
    made.dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(tmp_path / "s.json"))
    made.dask("worker", "--scheduler-file", "s.json", "--nthreads", "1", "--no-nanny", BULKIMG_SESSION=server.session)
    made.wait_for("Starting established connection to tcp://127.0.0.1", 2)
    address = json.loads((tmp_path / "s.json").read_text())["address"]
    assert address.startswith("tcp://127.0.0.1:")
    try:
        for cluster in (address, f"insecure+{address}", f"insecure+{tmp_path / 's.json'}"):
            at.write("m.csv", manifest(server, f"plain-{len(cluster)}", 10))
            assert "joined" in quiet(at("run", "m.csv", "--yes", "--cluster", cluster).err)
            assert renamed(server, f"plain-{len(cluster)}") == 10
    finally:
        made.end()


def test_what_is_wrong_is_said_before_a_run_is_made(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "wrong", 5))
    before = len(server.requests())
    said = at("run", "m.csv", "--yes", "--desk", "127.0.0.1:9", code=2).err
    assert said == "bulkimg: --desk is for --cluster; give both, or leave it out\n"
    assert "cannot be read" in at("run", "m.csv", "--yes", "--cluster", "nowhere.json", code=2).err
    text = f'[job]\nmanifest = "m.csv"\ntarget_column = "r"\n[targets.a]\nendpoint = "{server.url}"\n'
    at.write("c.toml", text)
    said = at("run", "c.toml", "--yes", "--cluster", "local:2", code=2).err
    assert "has several targets, and --cluster is for a run of one" in said
    (at.place / "hidden").mkdir()
    path = os.pathsep.join([str(at.place / "hidden"), at.env()["PYTHONPATH"]])
    at.write("hidden/sitecustomize.py", HIDING)
    said = at("run", "m.csv", "--yes", "--cluster", "local:2", code=2, PYTHONPATH=path).err
    assert re.fullmatch(r"bulkimg: --cluster needs distributed, which is not installed; .*'\.\[dask\]'.*\n", said), said
    assert len(server.requests()) == before
    assert not (at.place / "runs").exists() or not at.runs()


def test_a_run_without_a_cluster_does_not_import_dask(at: Cli, server: Server) -> None:
    at.write("m.csv", manifest(server, "alone", 3))
    code = (
        "import sys\nsys.argv = ['bulkimg', 'run', 'm.csv', '--yes']\nfrom bulkimg.cli.main import main\n"
        "try: main()\nfinally: print(sorted({'dask', 'distributed', 'tornado', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=at.place,
        env=at.env(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
