"""T57: a cluster of real processes against the witness: killed, stopped, cut off, slow, and with a wrong clock.

The workers are those of `--cluster local:N`, or `dask worker` processes of a `dask scheduler` with TLS. Every trial is judged
by the witness and the ledger: one true outcome a row, no PUT that the ledger does not know, no change executed twice, and no
second with more requests than the cap, counted over all processes.
"""

import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from bulkimg.cluster.worker import DESERTED
from tests.battery.load import BUNCHED
from tests.battery.report import Record
from tests.battery.shares import in_processes
from tests.battery.syscalls import Ground, Trial, Tried
from tests.battery.witness import witness
from tests.conftest import ROOT
from tests.windows import most_within

ROWS = 240
RATE = 60  # requests a second
CONCURRENCY = "12"
LIMIT = 150.0  # seconds for one command; longer is a hang
DIALECTS = ("documented", "zstack")
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@dataclass
class Scene:
    """One trial: its witness, and the processes of its run."""

    trial: Trial
    rng: random.Random
    troubles: list[str] = field(default_factory=list)
    kills: int = 0
    stops: int = 0
    code: int = 0
    seconds: float = 0.0
    said: str = ""

    def command(self, *more: str) -> list[str]:
        """Return the command line of a run. Of options that are given twice the last one counts."""
        return [*self.trial.run_command, "--concurrency", CONCURRENCY, "--timeout", "5s", *more]

    def resume(self, *more: str) -> list[str]:
        return ["resume", "last", "--rate", f"{RATE}/s", "--runs-dir", str(self.trial.tool.runs_dir), *more]

    def start(self, *command: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        return self.trial.tool.start(*command, env=env or {}, stdout=subprocess.DEVNULL)

    def ended(self, desk: "subprocess.Popen[str]", *, codes: Sequence[int] = (0,)) -> int:
        """Wait for the desk, and note what is wrong with its end."""
        begun = time.monotonic()
        try:
            _, err = desk.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            desk.kill()
            _, err = desk.communicate()
            self.troubles.append(f"it hangs: {err.strip()[-200:]!r}")
        self.code, self.seconds, self.said = desk.returncode, time.monotonic() - begun, err
        if "Traceback" in err or desk.returncode not in codes:
            self.troubles.append(f"exit {desk.returncode}: {err.strip()[-300:]!r}")
        return desk.returncode

    def wait_for_puts(self, number: int, desk: "subprocess.Popen[str]") -> bool:
        """Wait until the witness has received so many PUTs. Returns False if the desk has ended before."""
        until = time.monotonic() + LIMIT
        while len(self.trial.puts) < number and desk.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        return desk.poll() is None

    def wait_for(self, is_so: Callable[[], bool], desk: "subprocess.Popen[str]") -> bool:
        """Wait until something is so. Returns False if the desk has ended before."""
        while not is_so():
            if desk.poll() is not None:
                return False
            time.sleep(0.05)
        return True

    def workers(self) -> list[int]:
        """Return the pids of the workers that are at work, as the ledger has them."""
        dirs = self.trial.tool.run_dirs()
        with contextlib.closing(sqlite3.connect(f"file:{dirs[-1] / 'run.db'}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT value FROM meta WHERE key = 'workers'").fetchone()
        workers = json.loads(found[0]) if found else []
        return [one["pid"] for one in workers if one["state"] == "working" and _is_alive(one["pid"])]

    def wait_for_workers(self, number: int, desk: "subprocess.Popen[str]") -> list[int]:
        """Wait until so many are in the ledger, which has them every two seconds, or until the desk has ended."""
        while len(workers := self.workers()) < number and desk.poll() is None:
            time.sleep(0.02)
        return workers

    def send(self, pid: int, number: int) -> bool:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def stop_for(self, pid: int, seconds: float) -> None:
        """Stop a process for so long."""
        if self.send(pid, signal.SIGSTOP):
            self.stops += 1
            time.sleep(seconds)
            self.send(pid, signal.SIGCONT)

    def pause(self, most: float) -> None:
        time.sleep(self.rng.uniform(0, most))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- what happens to a cluster of this machine -------------------------------------------------------------------------------


def killed_workers(scene: Scene) -> None:
    """Kill one worker after the other, up to three."""
    desk = scene.start(*scene.command("--cluster", "local:3"))
    for _ in range(scene.rng.randint(1, 3)):
        if not scene.wait_for_puts(len(scene.trial.puts) + scene.rng.randint(1, 50), desk):
            break
        if workers := scene.workers():
            scene.kills += scene.send(scene.rng.choice(workers), signal.SIGKILL)
    scene.ended(desk)


def killed_and_stopped(scene: Scene) -> None:
    """Kill one worker and stop another one for longer than its lease."""
    desk = scene.start(*scene.command("--cluster", "local:2"))
    if scene.wait_for_puts(10, desk) and len(workers := scene.wait_for_workers(2, desk)) == 2:
        scene.kills += scene.send(workers[0], signal.SIGKILL)
        scene.stop_for(workers[1], 2.2)
    scene.ended(desk)


def stopped_workers(scene: Scene) -> None:
    """Stop workers for 0.5 to 6 s, sometimes two at once."""
    desk = scene.start(*scene.command("--cluster", "local:4"))
    for _ in range(scene.rng.randint(1, 2)):
        if not scene.wait_for_puts(len(scene.trial.puts) + scene.rng.randint(1, 50), desk):
            break
        chosen = scene.workers()[: scene.rng.randint(1, 2)]
        for pid in chosen:
            scene.stops += scene.send(pid, signal.SIGSTOP)
        time.sleep(scene.rng.choice((0.5, 1.5, 2.2, 3.0, 6.0)))
        for pid in chosen:
            scene.send(pid, signal.SIGCONT)
    scene.ended(desk)


def stopped_desk(scene: Scene) -> None:
    """Stop the desk for 1 to 5 s while its workers run."""
    desk = scene.start(*scene.command("--cluster", "local:2"))
    if scene.wait_for_puts(scene.rng.randint(1, 100), desk):
        scene.stop_for(desk.pid, scene.rng.uniform(1, 5))
    scene.ended(desk)


def killed_desk(scene: Scene, *resumed_with: str) -> None:
    desk = scene.start(*scene.command("--cluster", "local:3"))
    if scene.wait_for_puts(scene.rng.randint(1, 150), desk):
        desk.kill()
        scene.kills += 1
    desk.communicate()
    scene.ended(scene.start(*scene.resume(*resumed_with)))


def killed_desk_resumed_alone(scene: Scene) -> None:
    """Kill the desk, and resume at once in one process."""
    killed_desk(scene)


def killed_desk_resumed_with_a_cluster(scene: Scene) -> None:
    """Kill the desk, and resume at once with another cluster."""
    killed_desk(scene, "--cluster", "local:2")


def slow_worker(scene: Scene) -> None:
    """Let one worker run half of the time, in turns of 50 ms."""
    desk = scene.start(*scene.command("--cluster", "local:3"))
    if scene.wait_for_puts(5, desk) and (workers := scene.workers()):
        while desk.poll() is None and _is_alive(workers[0]):
            scene.stop_for(workers[0], 0.05)
            time.sleep(0.05)
    scene.ended(desk)


# -- a scheduler and workers of its own --------------------------------------------------------------------------------------

_REDIRECT = """
import socket, sys
desk, through = int(sys.argv.pop(1)), int(sys.argv.pop(1))
plain = socket.socket.connect
def connect(self, address):
    return plain(self, (address[0], through) if address[1] == desk else address)
socket.socket.connect = connect
from distributed.cli.dask_worker import main
main()
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class DaskCluster:
    """A `dask scheduler` and `dask worker` processes with TLS, whose environment names the witness."""

    def __init__(self, scene: Scene, stack: ExitStack) -> None:
        self._scene, self._stack = scene, stack
        self._place = scene.trial.place
        self._port = free_port()
        self.address = f"tls://127.0.0.1:{self._port}"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self._place / "ca.pem"))
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
            str(self._place / "cert.pem")
        )
        tls = "DASK_DISTRIBUTED__COMM__TLS__"
        self.env = {f"{tls}CA_FILE": str(self._place / "ca.pem"), "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
        for role in ("SCHEDULER", "WORKER", "CLIENT"):
            self.env |= {f"{tls}{role}__{what}": str(self._place / "cert.pem") for what in ("CERT", "KEY")}
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """Start the scheduler, or another one at the address of one that has ended."""
        options = ["--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard", "--protocol", "tls"]
        self.scheduler = self._popen(["-m", "distributed.cli.dask_scheduler", *options], {})
        _wait_for_port(self._port)

    def hire(self, *, env: dict[str, str] | None = None, through: tuple[int, int] | None = None) -> None:
        """Start a worker. `through`: it reaches the desk's port by another one."""
        how = ["-c", _REDIRECT, *map(str, through)] if through else ["-m", "distributed.cli.dask_worker"]
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--memory-limit", "0"]
        self.workers.append(self._popen([*how, self.address, *options], env or {}))

    def _popen(self, arguments: Sequence[str], more: dict[str, str]) -> "subprocess.Popen[bytes]":
        with (self._place / "dask.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self._place,
                env={**self._scene.trial.tool.whole_env, **self.env, **more},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._stack.callback(_end, process)
        return process


def _wait_for_port(port: int) -> None:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError("the scheduler does not listen")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def killed_scheduler(scene: Scene, *options: str) -> None:
    """Kill the scheduler. The run continues with workers that stay, or ends so that it can be resumed."""
    with ExitStack() as stack:
        cluster = DaskCluster(scene, stack)
        for _ in range(3):
            cluster.hire()
        desk = scene.start(*scene.command("--cluster", cluster.address, *options), env=cluster.env)
        if scene.wait_for_puts(scene.rng.randint(1, 60), desk):
            cluster.scheduler.kill()
            scene.kills += 1
        if scene.ended(desk, codes=(0, 5)) == 5 and not scene.said.strip():
            scene.troubles.append("exit 5 without a sentence")
    if scene.code == 5:
        first = scene.said.strip().splitlines()[-1:]
        seconds = scene.seconds
        scene.ended(scene.start(*scene.resume()))
        scene.said, scene.seconds = f"exit 5: {first}", seconds


def killed_scheduler_of_a_long_run(scene: Scene) -> None:
    """Kill the scheduler of a run that has more to do than its workers, which end themselves then, can finish."""
    killed_scheduler(scene, "--rate", "4/s")
    if not scene.said.startswith("exit 5"):
        scene.troubles.append("the run did not end without its scheduler")


def stopped_scheduler(scene: Scene) -> None:
    """Stop the scheduler for 1 to 12 s while workers run."""
    with ExitStack() as stack:
        cluster = DaskCluster(scene, stack)
        for _ in range(3):
            cluster.hire()
        desk = scene.start(*scene.command("--cluster", cluster.address), env=cluster.env)
        if scene.wait_for_puts(scene.rng.randint(1, 60), desk):
            scene.stop_for(cluster.scheduler.pid, scene.rng.uniform(1, 12))
        scene.ended(desk)


def restarted_scheduler(scene: Scene, away: float = 2.0) -> None:
    """Kill the scheduler, start another one at its address after so many seconds, and workers for it."""
    with ExitStack() as stack:
        cluster = DaskCluster(scene, stack)
        for _ in range(2):
            cluster.hire()
        desk = scene.start(*scene.command("--cluster", cluster.address, "--rate", "6/s"), env=cluster.env)
        if scene.wait_for_puts(scene.rng.randint(1, 30), desk):
            cluster.scheduler.kill()
            cluster.scheduler.wait()
            scene.kills += 1
            time.sleep(away)
            cluster.start_scheduler()
            cluster.hire()
            if not scene.wait_for(lambda: cluster.workers[-1].pid in scene.workers(), desk):
                scene.troubles.append("no worker of the new scheduler was hired")
        scene.ended(desk)


def restarted_scheduler_after_long(scene: Scene) -> None:
    """Do the same when Dask's client has given its scheduler up."""
    restarted_scheduler(scene, 15.0)


def partition(scene: Scene) -> None:
    """Cut two of three workers off from their desk for 0.5 to 8 s, once or twice."""
    cut_off(scene, 1, [scene.rng.choice((0.5, 2.2, 4.0, 8.0)) for _ in range(scene.rng.randint(1, 2))])


def long_partition(scene: Scene) -> None:
    """Cut all workers off for longer than they wait for their desk. They are hired again."""
    cut_off(scene, 0, [DESERTED + 6])


def cut_off(scene: Scene, others: int, cuts: Sequence[float]) -> None:
    """Let a proxy between workers and desk pass no bytes for so many seconds. `others`: workers that need no proxy."""
    with ExitStack() as stack:
        cluster = DaskCluster(scene, stack)
        desk_port, proxy_port = free_port(), free_port()
        proxy = subprocess.Popen(
            [sys.executable, "-m", "tests.battery.fleet_proxy", str(proxy_port), str(desk_port)], cwd=ROOT
        )
        stack.callback(_end, proxy)
        _wait_for_port(proxy_port)
        for _ in range(others):
            cluster.hire()
        for _ in range(2):
            cluster.hire(through=(desk_port, proxy_port))
        options = ("--cluster", cluster.address, "--desk", f"127.0.0.1:{desk_port}")
        desk = scene.start(*scene.command(*options), env=cluster.env)
        for seconds in cuts:
            if scene.wait_for_puts(len(scene.trial.puts) + scene.rng.randint(1, 60), desk):
                scene.stop_for(proxy.pid, seconds)
        scene.ended(desk)


def wrong_clock(scene: Scene) -> None:
    """Let the clocks of one worker, CLOCK_BOOTTIME too, be hours ahead and a hundredth too fast or too slow; then stop it."""
    with ExitStack() as stack:
        cluster = DaskCluster(scene, stack)
        cluster.hire()
        offset = scene.rng.choice(("-3h", "+5h", "+11h"))
        cluster.hire(env={"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{offset} x{scene.rng.choice((0.99, 1.01))}"})
        desk = scene.start(*scene.command("--cluster", cluster.address), env=cluster.env)
        if scene.wait_for_puts(scene.rng.randint(20, 100), desk):
            scene.stop_for(cluster.workers[1].pid, scene.rng.choice((0.5, 3.0)))
        scene.ended(desk)


# -- the judgement -----------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """The results of a number of trials of one kind."""

    trials: int = 0
    kills: int = 0
    stops: int = 0
    rows: int = 0
    puts: int = 0
    twice: int = 0
    asked: int = 0
    most: int = 0  # requests in the busiest second
    slowest: float = 0.0
    codes: Counter[int] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)


def judge(scene: Scene, found: Found, dialect: str) -> None:
    """Check a finished trial, and add it to the results."""
    tried = Tried("fleet")
    scene.trial.check(tried)
    log = scene.trial.log
    moments = sorted(line["arrived"] for line in log if line["kind"] == "request")
    most = most_within(1.0, moments)
    if most > RATE + BUNCHED:
        scene.troubles.append(f"{most} requests within a second, {RATE} may be")
    done = Counter(line["uuid"] for line in log if line["kind"] == "applied")
    twice = sum(count - 1 for count in done.values())
    if twice and dialect == "zstack":  # the documented API does not know job uuids
        scene.troubles.append(f"{twice} changes executed twice")
    polled = {line["path"] for line in log if line["kind"] == "request" and "/api-jobs/" in line["path"]}
    found.trials += 1
    found.kills += scene.kills
    found.stops += scene.stops
    found.rows += scene.trial.rows
    found.puts += len(scene.trial.puts)
    found.twice += twice
    found.asked += len(polled)
    found.most = max(found.most, most)
    found.slowest = max(found.slowest, scene.seconds)
    found.codes[scene.code] += 1
    found.troubles += [*scene.troubles, *tried.troubles]


Kind = Callable[[Scene], None]
KINDS: dict[str, Kind] = {
    "a worker killed and one stopped": killed_and_stopped,
    "workers killed": killed_workers,
    "workers stopped": stopped_workers,
    "desk stopped": stopped_desk,
    "desk killed, resumed alone": killed_desk_resumed_alone,
    "desk killed, resumed with a cluster": killed_desk_resumed_with_a_cluster,
    "one slow worker": slow_worker,
    "scheduler killed": killed_scheduler,
    "scheduler of a long run killed": killed_scheduler_of_a_long_run,
    "scheduler stopped": stopped_scheduler,
    "scheduler started again": restarted_scheduler,
    "scheduler started again after long": restarted_scheduler_after_long,
    "desk cut off from workers": partition,
    "desk cut off from workers for long": long_partition,
    "a worker with a wrong clock": wrong_clock,
}
ONCE = (  # they take a minute or two
    "scheduler of a long run killed",
    "scheduler started again",
    "scheduler started again after long",
    "desk cut off from workers for long",
)


def _trials(given: tuple[str, str, int, int]) -> Found:
    kind, dialect, trials, seed = given
    rng, found = random.Random(f"fleet {kind} {dialect} {seed}"), Found()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with witness(place, images=ROWS, dialect=dialect, sync=False, workers=64, service_ms=20) as server:
            ground = Ground(place, server, ROWS)
            for _ in range(trials):
                scene = Scene(ground.trial(rate=f"{RATE}/s"), rng)
                KINDS[kind](scene)
                judge(scene, found, dialect)
                for text in found.troubles[-3:]:
                    sys.stderr.write(f"{kind}, {dialect}: {text}\n")
    return found


def fleet(
    trials: int = 3,
    seed: int = 1,
    kinds: Sequence[str] = tuple(KINDS),
    dialects: Sequence[str] = DIALECTS,
    workers: int = 2,
) -> list[Record]:
    """Run T57: so many trials of each kind in each dialect."""
    kinds = [kind for kind in kinds if kind != "a worker with a wrong clock" or FAKETIME.exists()]
    shares = [(kind, dialect, _number(kind, trials), seed) for kind in kinds for dialect in dialects]
    records = []
    found = in_processes(_timed, shares, workers)
    for kind in kinds:
        mine = [one for one, share in zip(found, shares, strict=True) if share[0] == kind]
        records.append(_record(kind, [one for one, _ in mine], sum(seconds for _, seconds in mine)))
    return records


def _number(kind: str, trials: int) -> int:
    return 1 if kind in ONCE else trials


def _timed(given: tuple[str, str, int, int]) -> tuple[Found, float]:
    begun = time.monotonic()
    return _trials(given), time.monotonic() - begun


def _record(kind: str, found: Sequence[Found], seconds: float) -> Record:
    troubles = [text for one in found for text in one.troubles]
    kills, stops = sum(one.kills for one in found), sum(one.stops for one in found)
    if not kills + stops:
        troubles.append("every run ended before anything was done to it")
    codes = sum((one.codes for one in found), Counter())
    notes = (
        f"{kills} kills, {stops} stops, {sum(one.rows for one in found):,} rows, {sum(one.puts for one in found):,} PUTs, executed "
        f"twice {sum(one.twice for one in found)}, most in any second {max(one.most for one in found)} of {RATE}, slowest end "
        f"{max(one.slowest for one in found):.0f} s, exits {dict(codes)}"
    )
    notes += f", jobs asked about (documented) {found[0].asked}"
    notes += f"; {'; '.join(troubles[:3])}" if troubles else ""
    return Record("T57", f"cluster: {kind}", sum(one.trials for one in found), len(troubles), "runs", notes, seconds)
