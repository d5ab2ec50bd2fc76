"""Plant bugs on purpose (T56): each breaks one promise, and some test has to see it.

A copy of the project gets one bug of bugs_catalogue.py. What saw it the last time (BUGS.md) is run first, then its own test and
those of its room, then all suites in a fixed order, until one of them fails. A bug that no suite sees is a hole in the battery.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.battery.bugs_catalogue import BUGS, Bug
from tests.battery.planting import Package, Unplantable
from tests.battery.report import Record
from tests.conftest import ROOT

COPIED = ("bulkimg", "tests", "samples", "jobs", "docs", "pyproject.toml", "README.md", "Makefile")
PACKAGE = Package(ROOT / "bulkimg")
TOLD = Path(__file__).with_name("BUGS.md")
NOTHING_SEEN = (0, 4, 5)  # passed; and pytest's: no such test, no test at all
LIMIT = 420.0  # seconds for one suite; a bug that makes it hang has been seen

_PYTEST = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header")
SUITES: dict[str, tuple[str, ...]] = {
    "simulation (200 seeds)": (sys.executable, "-m", "tests.battery", "simulation", "--size", "200", "--dry"),
    "tests of the rooms": (
        *_PYTEST,
        "tests/applier",
        "tests/pace",
        "tests/zstack",
        "tests/ledger",
        "tests/manifest",
        "tests/planner",
        "tests/cli/test_screen.py",
    ),
    # Not the test that every bug can be planted: it sees that one has been.
    "state machine and samples": (*_PYTEST, "tests/battery", "-k", "not planted"),
    "system calls": (sys.executable, "-m", "tests.battery", "syscalls", "--size", "12", "--dry"),
    "power loss": (sys.executable, "-m", "tests.battery", "power", "--size", "1500", "--dry"),
    "journeys": (*_PYTEST, "tests/journeys"),
    "security": (*_PYTEST, "tests/security"),
    "command line": (*_PYTEST, "tests/cli"),
}


def plant(bug: Bug, place: Path) -> Path:
    """A copy of the project with the bug in it; Unplantable."""
    root = place / "project"
    root.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    if (shared := ROOT.parent / "shared").is_dir():
        (place / "shared").symlink_to(shared)
    path, text = PACKAGE.changed(bug.symbol, bug.old, bug.new)
    (root / "bulkimg" / path).write_text(text, "utf-8")
    return root


def caught(bug: Bug, *, everywhere: bool = True) -> str:
    """The suite and the test that saw it, or an empty string. Not `everywhere`: only by what should see it."""
    with tempfile.TemporaryDirectory(prefix="bug-") as name:
        root = plant(bug, Path(name))
        env = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        for suite, command in (*narrow(bug, root), *(SUITES.items() if everywhere else ())):
            try:
                done = subprocess.run(
                    command, cwd=root, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
                )
            except subprocess.TimeoutExpired:
                return f"{suite}: it hangs"
            if done.returncode not in NOTHING_SEEN:
                return f"{suite}: {_first_failure(done.stdout + done.stderr)}"
    return ""


def narrow(bug: Bug, root: Path) -> list[tuple[str, tuple[str, ...]]]:
    """What should see it, the quickest first."""
    return [*remembered(bug, root), *expected(bug), *room(bug, root)]


def expected(bug: Bug) -> list[tuple[str, tuple[str, ...]]]:
    return [("its own test", (*_PYTEST, *bug.test.split()))] if bug.test else []


def room(bug: Bug, root: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The tests of the room that the bug is in: they take seconds, and should see most."""
    folder = PACKAGE.find(bug.symbol).path.parent
    tests = root / "tests" / folder
    return [("its room", (*_PYTEST, f"tests/{folder}"))] if folder.name and tests.is_dir() else []


def remembered(bug: Bug, root: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The suite that saw the bug the last time; of pytest's only the one test. Nothing for a new bug."""
    suite, _, seen = seen_before().get(bug.promise, "").partition(": ")
    if suite in SUITES and SUITES[suite][: len(_PYTEST)] != _PYTEST:
        return [(suite, SUITES[suite])]
    name, _, test = seen.partition("::")
    paths = [str(path.relative_to(root)) for path in sorted(root.glob(f"tests/**/{name}"))] if test else []
    return [(suite, (*_PYTEST, f"{paths[0]}::{test}"))] if paths else []


def seen_before() -> dict[str, str]:
    """What saw each bug the last time that it was tried, by promise."""
    told = TOLD.read_text("utf-8") if TOLD.exists() else ""
    return dict(re.findall(r"^\| (?!promise)([^|]+) \| ([^|]+) \|$", told, re.MULTILINE))


def _first_failure(said: str) -> str:
    if found := re.search(r"FAILED (.+?)(?: - .*)?$", said, re.MULTILINE):
        return found[1].rpartition("/")[2]
    if found := re.search(r"; (seed \d+: .*)", said):
        return found[1].strip()[:160]
    lines = [line for line in said.splitlines() if "Error" in line]
    return (lines or said.splitlines()[-1:] or ["failed"])[0].strip()[:160]


def unplantable() -> list[str]:
    """Bugs whose symbol, or the code within it, is not there exactly once; a test keeps this empty."""
    found = []
    for bug in BUGS:
        try:
            PACKAGE.check(bug.symbol, bug.old, bug.new)
        except (Unplantable, SyntaxError) as why:
            found.append(f"{bug.promise}: {why}")
    return found


def named(promise: str) -> Bug:
    """The bug that breaks this promise."""
    (found,) = (bug for bug in BUGS if bug.promise == promise)
    return found


def bugs(workers: int = 2, seconds: float = 0) -> list[Record]:
    """T56; `seconds`: begin no other bug after so long, and say how many were tried."""
    begun = time.monotonic()

    def one(bug: Bug) -> str | None:
        if seconds and time.monotonic() - begun > seconds:
            return None
        seen = caught(bug)
        sys.stderr.write(f"{bug.promise}: {seen or 'NOT SEEN'}\n")
        return seen

    with ThreadPoolExecutor(workers) as pool:
        tried = {bug: by for bug, by in zip(BUGS, pool.map(one, BUGS), strict=True) if by is not None}
    missed = [bug.promise for bug, by in tried.items() if not by]
    by_suite = [
        f"{suite} {count}"
        for suite in ("its own test", "its room", *SUITES)
        if (count := sum(by.startswith(suite) for by in tried.values()))
    ]
    notes = f"of {len(BUGS)}; seen first by: {', '.join(by_suite)}" + (
        f"; not seen: {'; '.join(missed)}" if missed else ""
    )
    tell({bug.promise: by for bug, by in tried.items()})
    return [Record("T56", "planted bugs", len(tried), len(missed), "bugs", notes, time.monotonic() - begun)]


def tell(seen: Mapping[str, str]) -> None:
    """Write BUGS.md: what saw each bug now or, where it was not tried now, the last time."""
    before = seen_before()
    lines = [
        "# Planted bugs",
        "",
        "Which promise each breaks, and what saw it first.",
        "",
        "| promise | seen by |",
        "|---|---|",
    ]
    for bug in BUGS:
        by = seen[bug.promise] or "**not seen**" if bug.promise in seen else before.get(bug.promise, "not tried yet")
        lines.append(f"| {bug.promise} | {by.replace('|', '/')} |")
    TOLD.write_text("\n".join([*lines, ""]), "utf-8")
