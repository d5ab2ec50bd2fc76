"""T1 and T9: processes killed at random moments and resumed, and several processes that want one run."""

import contextlib
import random
import sqlite3
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.battery.process import Warm
from tests.battery.report import Record
from tests.battery.shares import in_processes
from tests.battery.syscalls import Ground, Trial, Tried
from tests.battery.witness import witness

ROWS = 200
CONCURRENCY = "32"
DIALECTS = ("documented", "zstack")


@dataclass
class Killed:
    """The results of a number of killed runs."""

    runs: int = 0
    kills: int = 0
    resumes_killed: int = 0
    puts: int = 0
    rows: int = 0
    most_repeated: int = 0  # PUTs of one run beyond one for each row, per kill
    most_open: int = 0  # most rows after one kill that the server had received and that had no outcome on disk
    troubles: list[str] = field(default_factory=list)


@dataclass
class Rounds:
    """The results of a number of rounds of several processes."""

    rounds: int = 0
    starts: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)


def _whole(trial: Trial) -> list[str]:
    """Return the command line of a run at full speed: `run_command` sets no rate."""
    return [*trial.run_command, "--concurrency", CONCURRENCY, "--no-adaptive"]


def _resume(trial: Trial) -> list[str]:
    return ["resume", "last", "--rate", "unlimited", "--runs-dir", str(trial.tool.runs_dir)]


def _seconds(ground: Ground) -> float:
    """Return how long an undisturbed run takes, in seconds."""
    trial = ground.trial()
    begun = time.monotonic()
    trial.tool.warm_run(*_whole(trial))
    return time.monotonic() - begun


def _kill_within(warm: Warm, seconds: float, rng: random.Random) -> bool:
    """Kill the process at a moment in that time. Returns False if it had ended before."""
    time.sleep(rng.uniform(0, seconds))
    alive = warm.poll() is None
    warm.kill()
    return alive


def _open_rows(trial: Trial) -> int:
    """Return the rows that the server received and that have no durable outcome. Waits until its log is at rest."""
    seen = -1
    while seen != (seen := len(trial.puts)):
        time.sleep(0.03)  # data in the socket of the dead process still arrives
    dirs = trial.tool.run_dirs()
    if not dirs:
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{dirs[-1] / 'run.db'}?mode=ro", uri=True)) as db:
        settled = {uuid for (uuid,) in db.execute("SELECT lower(hex(uuid)) FROM row JOIN outcome USING (ordinal)")}
    return len({put["path"].split("/")[-2] for put in trial.puts} - settled)


def kill_once(ground: Ground, whole: float, rng: random.Random, found: Killed) -> None:
    """Kill a run at a random moment, in half of the trials its resume too, once or twice; then resume and check."""
    trial, tried = ground.trial(), Tried("kill")
    kills = int(_kill_within(trial.tool.warm(*_whole(trial)), whole, rng))
    open_rows = _open_rows(trial) if trial.puts else 0
    if open_rows > int(CONCURRENCY):
        tried.troubles.append(f"{open_rows} rows were sent and have no outcome on disk, {CONCURRENCY} may")
    found.most_open = max(found.most_open, open_rows)
    for _ in range(rng.choice((0, 0, 1, 2))):
        if trial.tool.run_dirs() and trial.puts:
            killed = _kill_within(trial.tool.warm(*_resume(trial)), whole, rng)
            kills += killed
            found.resumes_killed += killed
    trial.second_life(tried)
    found.runs += 1
    found.kills += kills
    found.puts += len(trial.puts)
    found.rows += ground.rows
    if kills:
        found.most_repeated = max(found.most_repeated, -(-(len(trial.puts) - ground.rows - 1) // kills))
    found.troubles += tried.troubles


def race(ground: Ground, rng: random.Random, found: Rounds) -> None:
    """Let two to eight processes resume a killed run at once.

    One gets it; it is killed too, and the next one gets the run.
    """
    trial, tried = ground.trial(rate="150/s"), Tried("race")
    first = trial.tool.warm(*trial.run_command)
    while not trial.puts and first.poll() is None:
        time.sleep(0.005)
    first.kill()
    many = rng.randint(2, 8)
    slow = ["resume", "last", "--rate", "100/s", "--runs-dir", str(trial.tool.runs_dir)]
    places = [trial.place / f"p{n}" for n in range(many)]
    for place in places:
        place.mkdir()
    racers = [type(trial.tool)(place, trial.tool.server_env).warm(*slow) for place in places]
    deadline = time.monotonic() + 60
    while sum(racer.poll() is None for racer in racers) > 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    alive = [racer for racer in racers if racer.poll() is None]
    codes = [racer.ended(1).code for racer in racers if racer not in alive]
    for racer in alive:
        racer.kill()
    if len(alive) > 1 or set(codes) - {7, 0, 1}:
        found.troubles.append(f"{len(alive)} of {many} were let in, the others ended with {codes}")
    found.codes.update(codes)
    trial.second_life(tried)
    found.rounds += 1
    found.starts += many
    found.troubles += tried.troubles


def _kills(given: tuple[str, int, int, int]) -> Killed:
    """Kill so many runs.

    A run that ended before its moment does not count; there are at most three times as many runs.
    """
    dialect, wanted, rows, seed = given
    rng, found = random.Random(f"{dialect} {seed}"), Killed()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with witness(place, images=rows, dialect=dialect, sync=False, workers=64, service_ms=5) as server:
            ground = Ground(place, server, rows)
            whole = _seconds(ground)
            while found.kills < wanted and found.runs < 3 * wanted:
                kill_once(ground, whole, rng, found)
    return found


def _races(given: tuple[str, int, int]) -> Rounds:
    dialect, rounds, seed = given
    rng, found = random.Random(f"race {dialect} {seed}"), Rounds()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        with witness(place, images=60, dialect=dialect, sync=False) as server:
            ground = Ground(place, server, 60)
            for _ in range(rounds):
                race(ground, rng, found)
    return found


def kills(kills_wanted: int = 1000, rows: int = ROWS, seed: int = 1) -> list[Record]:
    """T1 in both dialects. Most runs are killed once, some not, and half of the resumes are killed too."""
    records = []
    begun = time.monotonic()
    per_share = max(1, -(-kills_wanted // (2 * len(DIALECTS))))
    shares = [(d, per_share, rows, seed + half) for half in range(2) for d in DIALECTS]
    found = in_processes(_kills, shares)
    for dialect in DIALECTS:
        mine = [one for one, share in zip(found, shares, strict=True) if share[0] == dialect]
        troubles = [text for one in mine for text in one.troubles]
        total = sum(one.kills for one in mine)
        notes = (
            f"{sum(one.runs for one in mine):,} runs × {rows} rows, {sum(one.resumes_killed for one in mine)} of the kills hit a "
            f"resume; {sum(one.puts for one in mine) / max(1, sum(one.rows for one in mine)):.3f} PUTs a row, most repeated per "
            f"kill {max(one.most_repeated for one in mine)}, most sent without an outcome on disk "
            f"{max(one.most_open for one in mine)} of {CONCURRENCY} allowed"
        )
        notes += f"; {'; '.join(troubles[:3])}" if troubles else ""
        records.append(
            Record(
                "T1",
                f"kill -9 at random moments, {dialect}",
                total,
                len(troubles),
                "kills",
                notes,
                time.monotonic() - begun,
            )
        )
    return records


def races(rounds: int = 200, seed: int = 1) -> list[Record]:
    """Run T9."""
    begun = time.monotonic()
    shares = [(dialect, max(1, rounds // 2), seed) for dialect in DIALECTS]
    found = in_processes(_races, shares)
    troubles = [text for one in found for text in one.troubles]
    codes = sum((one.codes for one in found), Counter())
    notes = f"{sum(one.starts for one in found):,} processes; those kept out ended with {dict(codes)}"
    notes += f"; {'; '.join(troubles[:3])}" if troubles else ""
    total = sum(one.rounds for one in found)
    return [
        Record("T9", "2 to 8 resume one run at once", total, len(troubles), "rounds", notes, time.monotonic() - begun)
    ]
