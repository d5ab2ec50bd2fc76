"""Run bulkimg where it cannot continue normally: T8, T11, T12 and T13 of docs/dev/reliability.md.

Outputs that cannot be written, signals at bad moments, clocks that jump, too little memory, too few descriptors.
"""

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.battery.load import BUNCHED
from tests.battery.process import Ran, Tool, Warm, preload
from tests.battery.report import Record
from tests.battery.syscalls import Ground, Trial, Tried, frame, last_line, small_disk
from tests.battery.witness import Witness, witness
from tests.windows import most_within

RATE = 60
PLAIN = ["--rate", f"{RATE}/s", "--concurrency", "8"]
SOON = 1.0  # seconds that a process may need to end, besides what it waits for
BIG_ROWS = 300_000  # read in more than a second, and the signal comes before 0.4 s


# -- T8: outputs that cannot be written -------------------------------------------------------------------------------------

Arrange = Callable[[Path], list[str]]


def _missing_directory(_place: Path) -> list[str]:
    return ["--results", "nowhere/out.csv"]


def _a_directory(place: Path) -> list[str]:
    (place / "out.csv").mkdir()
    return ["--results", "out.csv"]


def _fifo(place: Path) -> list[str]:
    os.mkfifo(place / "out.csv")
    return ["--results", "out.csv"]


def _link_to_full(place: Path) -> list[str]:
    (place / "out.csv").symlink_to("/dev/full")
    return ["--results", "out.csv"]


def _link_to_file(place: Path) -> list[str]:
    (place / "precious.csv").write_text("precious")
    (place / "out.csv").symlink_to("precious.csv")
    return ["--results", "out.csv"]


def _dangling_link(place: Path) -> list[str]:
    (place / "out.csv").symlink_to("nothing.csv")
    return ["--results", "out.csv"]


def _input(_place: Path) -> list[str]:
    return ["--results", "m.csv"]


def _input_another_way(place: Path) -> list[str]:
    return ["--results", f"{place}/../{place.name}/./m.csv"]


def _hard_link_of_input(place: Path) -> list[str]:
    (place / "out.csv").hardlink_to(place / "m.csv")
    return ["--results", "out.csv"]


def _device(_place: Path) -> list[str]:
    return ["--results", "/dev/full"]


def _standard_output(_place: Path) -> list[str]:
    return ["--results", "/dev/stdout"]


def _runs_is_a_file(place: Path) -> list[str]:
    (place / "runs").write_text("a file")
    return ["--runs-dir", "runs"]


def _runs_is_a_dangling_link(place: Path) -> list[str]:
    (place / "runs").symlink_to("nothing")
    return ["--runs-dir", "runs"]


def _runs_on_a_strange_file_system(_place: Path) -> list[str]:
    return ["--runs-dir", "/proc/bulkimg-runs"]


OUTPUTS: tuple[Arrange, ...] = (
    _missing_directory, _a_directory, _fifo, _link_to_full, _link_to_file, _dangling_link, _input, _input_another_way,
    _hard_link_of_input, _device, _standard_output, _runs_is_a_file, _runs_is_a_dangling_link, _runs_on_a_strange_file_system,
)  # fmt: skip


def try_output(ground: Ground, arrange: Arrange) -> Tried:
    trial = ground.trial()
    tried = Tried(arrange.__name__.strip("_").replace("_", " "))
    before = trial.manifest.read_bytes()
    _refused(trial, trial.tool.warm_run("run", "m.csv", "--yes", *PLAIN, *arrange(trial.place), timeout=20), tried)
    if trial.manifest.read_bytes() != before:
        tried.troubles.append("the manifest was changed")
    return tried


def try_read_only(ground: Ground, *, results: bool) -> Tried:
    """Write to a file system that is mounted read-only, because root may write into any directory."""
    trial, tried = ground.trial(), Tried(f"read-only file system for {'--results' if results else 'runs'}")
    at = trial.place / "out"
    try:
        with small_disk(at, 1 << 20):
            subprocess.run(["mount", "-o", "remount,ro", str(at)], check=True, capture_output=True)
            where = ["--results", "out/r.csv"] if results else ["--runs-dir", "out/runs"]
            _refused(trial, trial.tool.warm_run("run", "m.csv", "--yes", *PLAIN, *where, timeout=20), tried)
    except PermissionError:
        tried.reached = False
    return tried


def _refused(trial: Trial, ran: Ran, tried: Tried) -> None:
    tried.code = ran.code
    if puts := trial.puts:
        tried.troubles.append(f"{len(puts)} PUTs sent, exit {ran.code}")
    if ran.traceback or ran.code not in {2, 3, 7, 8}:
        tried.troubles.append(f"exit {ran.code}: {last_line(ran)} {frame(ran)}")
    said = ran.err.strip().splitlines()
    if len(said) != 1 or not ran.sentence:
        tried.troubles.append(f"{len(said)} lines instead of one sentence: {last_line(ran)}")


def outputs(place: Path, _seed: int) -> list[Record]:
    """Run T8."""
    begun = time.monotonic()
    with _ground(place, rows=60) as ground:
        tried = [try_output(ground, arrange) for arrange in OUTPUTS]
        tried += [try_read_only(ground, results=results) for results in (False, True)]
    return [
        _record("T8", "outputs that cannot be written", tried, time.monotonic() - begun, "outputs", "0 PUTs allowed")
    ]


# -- T11: signals -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """Which signals come when, and their required result."""

    name: str
    signals: tuple[int, ...]
    codes: frozenset[int]
    gaps: float = 0.1  # seconds between the signals
    early: bool = False  # as soon as the process runs, instead of while it sends
    within: float = SOON  # seconds from the last signal to the end; infinite if the run continues
    rules: tuple[dict[str, Any], ...] = ()
    how: str = "run"  # run, login, reading, resume


INT, TERM, HUP, QUIT = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT
NEVER = float("inf")
SLOW = ({"on": "put", "do": "slow", "arg": 0.7},)
VERY_SLOW = ({"on": "put", "do": "slow", "arg": 8.0},)
LOGIN_SLOW = ({"on": "login", "do": "login-slow", "arg": 8.0},)
CALLS = (
    Call("INT", (INT,), frozenset({130})),
    Call("TERM", (TERM,), frozenset({143})),
    Call("HUP", (HUP,), frozenset({143})),
    Call("QUIT", (QUIT,), frozenset({-QUIT, 130, 143})),
    Call("INT with slow answers", (INT,), frozenset({130}), within=SOON + 1.4, rules=SLOW),
    Call("INT twice, answers hang", (INT, INT), frozenset({130}), rules=VERY_SLOW),
    Call("INT five times, answers hang", (INT,) * 5, frozenset({130}), gaps=0.02, rules=VERY_SLOW),
    Call("TERM, then INT, answers hang", (TERM, INT), frozenset({130, 143}), rules=VERY_SLOW),
    Call("TSTP and CONT", (signal.SIGTSTP, signal.SIGCONT), frozenset({0}), gaps=1.5, within=NEVER),
    Call("STOP and CONT", (signal.SIGSTOP, signal.SIGCONT), frozenset({0}), gaps=2.0, within=NEVER),
    Call("INT while stopped", (signal.SIGSTOP, INT, signal.SIGCONT), frozenset({130})),
    Call("INT at once", (INT,), frozenset({130, 0}), early=True),
    Call("TERM at once", (TERM,), frozenset({143, -TERM}), early=True),
    Call("TERM during login", (TERM,), frozenset({143}), rules=LOGIN_SLOW, how="login"),
    Call("INT during login", (INT,), frozenset({130}), rules=LOGIN_SLOW, how="login"),
    Call("INT while reading", (INT,), frozenset({130}), how="reading"),
    Call("TERM while reading", (TERM,), frozenset({143, -TERM}), how="reading"),
    Call("INT during resume", (INT,), frozenset({130}), how="resume"),
    Call("TERM during resume", (TERM,), frozenset({143}), how="resume"),
    Call("KILL during resume", (signal.SIGKILL,), frozenset({-9}), how="resume"),
)

# As if a lid was closed: requests in flight timed out before the process continues, and are asked about.
SUSPENDED = Call(
    "STOP for 35 s, longer than --timeout", (signal.SIGSTOP, signal.SIGCONT), frozenset({0}), gaps=35.0, within=NEVER
)


@dataclass
class Ended:
    """How long the processes took to end, over all trials."""

    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.seconds) or [0.0]
        return f"time to exit p50 {ordered[len(ordered) // 2]:.2f} s, max {ordered[-1]:.2f} s"


def try_signal(ground: Ground, call: Call, rng: random.Random, ended: Ended) -> Tried:
    trial, tried = ground.trial(), Tried(call.name)
    ground.server.set_script(call.rules)
    try:
        warm = _started(trial, call)
        if call.how in {"run", "resume"} and not call.early:
            _wait_for_puts(trial, warm, rng.randint(3, 20) if call.rules is not VERY_SLOW else 4)
        else:
            time.sleep(rng.uniform(0.0, 0.05) if call.early else rng.uniform(0.15, 0.4))
        last = _send(warm, call)
        ran = warm.ended(20)
    finally:
        ground.server.set_script(())
    seconds = time.monotonic() - last
    if call.within != NEVER:
        ended.seconds.append(seconds)
    _judge_signal(call, ran, seconds, tried)
    _after_signal(trial, call, ran, tried)
    return tried


def _started(trial: Trial, call: Call) -> Warm:
    command = ["run", "m.csv", "--yes", "--runs-dir", str(trial.tool.runs_dir), *PLAIN]
    if call.how == "login":
        trial.tool = Tool(trial.place, trial.server.account)
    if call.how == "reading":
        lines = (f"{number:032x},n\n" for number in range(BIG_ROWS))
        (trial.place / "big.csv").write_text("uuid,name\n" + "".join(lines))
        command[1] = "big.csv"
    if call.how == "resume":
        first = trial.tool.warm(*command)
        _wait_for_puts(trial, first, 10)
        first.kill()
        return trial.tool.warm("resume", "last", "--runs-dir", str(trial.tool.runs_dir), "--rate", f"{RATE}/s")
    return trial.tool.warm(*command)


def _wait_for_puts(trial: Trial, warm: Warm, wanted: int) -> None:
    """Wait until so many more PUTs came, or the process ended."""
    before, until = len(trial.puts), time.monotonic() + 10
    while len(trial.puts) < before + wanted and warm.poll() is None and time.monotonic() < until:
        time.sleep(0.01)


def _send(warm: Warm, call: Call) -> float:
    """Send the signals. Returns the moment of the last one."""
    last = time.monotonic()
    for number, wanted in enumerate(call.signals):
        if number:
            time.sleep(call.gaps)
        last = time.monotonic()
        warm.send(wanted)
    return last


def _judge_signal(call: Call, ran: Ran, seconds: float, tried: Tried) -> None:
    tried.code = ran.code
    if ran.traceback:
        tried.troubles.append(f"traceback: {last_line(ran)} {frame(ran)}")
    if ran.code not in call.codes:
        tried.troubles.append(f"exit {ran.code} instead of {sorted(call.codes)}: {last_line(ran)}")
    if seconds > call.within:
        tried.troubles.append(f"{seconds:.1f} s to the end, at most {call.within:.1f} s")


def _after_signal(trial: Trial, call: Call, ran: Ran, tried: Tried) -> None:
    """Resume and check the run. A run that was still reading must only be refused with a proper message."""
    if call.how == "reading":
        if trial.puts:
            tried.troubles.append("sent while reading")
        resumed = trial.tool.warm_run("resume", "last", "--runs-dir", str(trial.tool.runs_dir))
        if resumed.traceback or resumed.code not in {2, 7} or not resumed.sentence:
            tried.troubles.append(f"resume: exit {resumed.code}: {last_line(resumed)}")
    elif ran.code == 0:
        trial.check(tried)
    else:
        trial.second_life(tried)


def try_closed_output(ground: Ground, what: str, rng: random.Random) -> Tried:
    """Nobody reads standard output any more, as with `| head -1`, or neither stream has a reader."""
    trial, tried = ground.trial(), Tried(f"closed {what}")
    process = trial.tool.start("run", "m.csv", "--yes", "--json", "--progress", "json", *PLAIN)
    assert process.stdout is not None
    assert process.stderr is not None
    time.sleep(rng.uniform(0.7, 1.2))
    process.stdout.close()
    if what == "both":
        process.stderr.close()
    err = "" if what == "both" else process.stderr.read()
    tried.code = process.wait(30)
    if "Traceback" in err or tried.code < 0:
        tried.troubles.append(f"exit {tried.code}: {err.strip().splitlines()[-1:]}")
    trial.check(tried)
    return tried


def signals(place: Path, seed: int, rounds: int = 3) -> list[Record]:
    """Run T11: every case, so many times."""
    begun, rng, ended = time.monotonic(), random.Random(seed), Ended()
    with _ground(place, rows=60) as ground:
        tried = [try_signal(ground, call, rng, ended) for _ in range(rounds) for call in CALLS]
        tried.append(try_signal(ground, SUSPENDED, rng, ended))
        tried += [try_closed_output(ground, what, rng) for _ in range(rounds) for what in ("standard output", "both")]
    return [_record("T11", "signals", tried, time.monotonic() - begun, "signals", str(ended))]


# -- T12: clocks ------------------------------------------------------------------------------------------------------------

OFFSETS = ("+1h", "-1h", "+10y", "-10y")
SLOWEST = 0.9  # share of the rate, because other processes use the machine
STEPS = ("+3600", "-3600", "+315360000", "-86400")


def fake_clock() -> dict[str, str]:
    """Return an environment in which only the wall clock can be set, or {} without libfaketime."""
    try:
        done = subprocess.run(
            ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    only_wall = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}  # without it, locks stop
    return {"LD_PRELOAD": done.stdout.strip(), "FAKETIME_NO_CACHE": "1", **only_wall}


def try_offset(ground: Ground, offset: str, clock: dict[str, str]) -> Tried:
    trial, tried = ground.trial(), Tried(f"clock {offset}")
    ran = trial.tool.run("run", "m.csv", "--yes", *PLAIN, env={**clock, "FAKETIME": offset}, timeout=60)
    _judge_clock(trial, ran, tried)
    return tried


def try_step(ground: Ground, step: str, clock: dict[str, str]) -> Tried:
    """Let the clock jump while the run is sending."""
    trial, tried = ground.trial(), Tried(f"clock steps by {step} s")
    setting = trial.place / "clock"
    setting.write_text("+0\n")
    process = trial.tool.start("run", "m.csv", "--yes", *PLAIN, env={**clock, "FAKETIME_TIMESTAMP_FILE": str(setting)})
    until = time.monotonic() + 20
    while len(trial.puts) < 20 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    setting.write_text(f"{step}\n")
    try:
        out, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        tried.troubles.append("it stood still")
    _judge_clock(trial, Ran(process.returncode, out, err), tried)
    return tried


def try_resume_earlier(ground: Ground, clock: dict[str, str]) -> Tried:
    """Kill the run, then resume it one hour before its start."""
    trial, tried = ground.trial(), Tried("resumed an hour earlier")
    first = trial.tool.warm("run", "m.csv", "--yes", "--runs-dir", str(trial.tool.runs_dir), *PLAIN)
    _wait_for_puts(trial, first, 20)
    first.kill()
    ran = trial.tool.run("resume", "last", env={**clock, "FAKETIME": "-1h"}, timeout=60)
    if ran.traceback or ran.code:
        tried.troubles.append(f"exit {ran.code}: {last_line(ran)}")
    trial.check(tried)
    return tried


def _judge_clock(trial: Trial, ran: Ran, tried: Tried) -> None:
    tried.code = ran.code
    if ran.traceback or ran.code:
        tried.troubles.append(f"exit {ran.code}: {last_line(ran)} {frame(ran)}")
    times = sorted(line["arrived"] for line in trial.log if line["kind"] == "request")
    if (most := most_within(1.0, times)) > RATE + BUNCHED:
        tried.troubles.append(f"{most} requests in one second")
    reached = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
    if reached < SLOWEST * RATE:
        tried.troubles.append(f"{reached:.0f} requests/s")
    trial.check(tried)


def clocks(place: Path, _seed: int) -> list[Record]:
    """Run T12."""
    begun, clock = time.monotonic(), fake_clock()
    if not clock:
        return [Record("T12", "clocks", 0, 0, "clocks", "left out: no libfaketime here")]
    with _ground(place, rows=180, dialect="documented") as ground:  # a PUT is the only request of a row there
        tried = [try_offset(ground, offset, clock) for offset in OFFSETS]
        tried += [try_step(ground, step, clock) for step in STEPS]
        tried.append(try_resume_earlier(ground, clock))
    return [_record("T12", "clocks", tried, time.monotonic() - begun, "clocks", f"at {RATE}/s")]


# -- T13: memory and descriptors --------------------------------------------------------------------------------------------

DESCRIPTORS = (8, 10, 12, 16, 20, 24, 32, 48, 96, 128)
HEADROOM = (0, 1, 2, 4, 8, 16, 32, 64)  # MiB besides what a warm process has mapped


def try_limit(ground: Ground, what: int, most: int, name: str) -> Tried:
    trial, tried = ground.trial(), Tried(name)
    command = ["run", "m.csv", "--yes", "--rate", "unlimited", "--concurrency", "64"]
    ran = trial.tool.warm_run(*command, "--runs-dir", str(trial.tool.runs_dir), limits={what: most}, timeout=60)
    tried.code = ran.code
    if ran.traceback:
        tried.troubles.append(f"traceback, exit {ran.code}: {last_line(ran)} {frame(ran)}")
    elif "too long" in ran.err:
        tried.troubles.append("it stood still")
    elif ran.code not in {0, 1} and ran.code > 0 and not (ran.sentence or "stopped: " in ran.err):
        tried.troubles.append(f"exit {ran.code} without a sentence: {last_line(ran)}")
    if ran.code == 0:
        trial.check(tried)
    else:
        trial.second_life(tried)
    return tried


def _mapped() -> int:
    """Return the bytes of address space of this process, which a fork of it starts with."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def try_exec_memory(ground: Ground, mebibytes: int) -> Tried:
    """Start the program under `ulimit -v`.

    It ends with a message, or with the interpreter's own. Nothing is half-done.
    """
    trial, tried = ground.trial(), Tried(f"ulimit -v {mebibytes} MiB")
    ran = trial.tool.run("run", "m.csv", "--yes", *PLAIN, limits={resource.RLIMIT_AS: mebibytes << 20}, timeout=60)
    tried.code = ran.code
    if ran.traceback and trial.tool.run_dirs():
        tried.troubles.append(f"traceback, exit {ran.code}: {last_line(ran)} {frame(ran)}")
    if ran.code == 0:
        trial.check(tried)
    else:
        trial.second_life(tried)
    return tried


def pressure(place: Path, _seed: int) -> list[Record]:
    """Run T13."""
    begun = time.monotonic()
    with _ground(place, rows=60) as ground:
        tried = [try_limit(ground, resource.RLIMIT_NOFILE, most, f"ulimit -n {most}") for most in DESCRIPTORS]
        preload()
        for more in HEADROOM:
            most = _mapped() + (more << 20)
            tried.append(try_limit(ground, resource.RLIMIT_AS, most, f"{more} MiB of memory more"))
        tried += [try_exec_memory(ground, mebibytes) for mebibytes in (48, 96, 160, 224, 320)]
    codes = ", ".join(f"{one.point}: exit {one.code}" for one in tried)
    return [_record("T13", "memory and descriptors", tried, time.monotonic() - begun, "limits", codes)]


# -- all of them ------------------------------------------------------------------------------------------------------------


@contextmanager
def _ground(place: Path, rows: int, dialect: str = "zstack") -> Iterator[Ground]:
    place.mkdir(parents=True, exist_ok=True)
    server: Witness
    with witness(place, images=rows, dialect=dialect) as server:
        yield Ground(place, server, rows=rows)


def _record(test: str, name: str, tried: Sequence[Tried], seconds: float, unit: str, also: str) -> Record:
    reached = [one for one in tried if one.reached]
    bad = [one for one in tried if one.troubles]
    left_out = ", ".join(one.point for one in tried if not one.reached)
    notes = also + (f"; left out: {left_out}" if left_out else "")
    notes += "".join(f"; {one.point}: {one.troubles[0]}" for one in bad[:8])
    return Record(test, name, len(reached), len(bad), unit, notes, seconds)


PARTS: tuple[Callable[[Path, int], list[Record]], ...] = (outputs, signals, clocks, pressure)


def limits(place: Path, seed: int) -> list[Record]:
    """Run T8, T11, T12 and T13."""
    return [record for part in PARTS for record in part(place / part.__name__, seed)]
