"""This file is T56: bugs planted on purpose, each of which breaks one promise, and which test sees it first.

A copy of the project gets one bug. What saw it the last time (BUGS.md) is run first, then its own test and those of its room,
then all suites in a fixed order, until one of them fails. A bug that no suite sees is a hole in the battery. One that cannot be
planted any more has to be written anew.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.battery.report import Record
from tests.conftest import ROOT

COPIED = ("bulkimg", "tests", "samples", "jobs", "docs", "pyproject.toml", "README.md", "Makefile")
TOLD = Path(__file__).with_name("BUGS.md")
NOTHING_SEEN = (0, 4, 5)  # passed; and pytest's: no such test, no test at all
LIMIT = 420.0  # seconds for one suite; a bug that makes it hang has been seen


@dataclass(frozen=True)
class Bug:
    """One text of one file replaced by another."""

    promise: str
    file: str
    old: str
    new: str
    test: str = ""  # where the room's own tests cannot see it: pytest's arguments for the one that should


BUGS = (
    Bug("a retry is recorded before it is sent", "applier/runner.py", "        await self._store.claim_again(errand.claim, self._now())\n", ""),
    Bug("claims are committed before they are handed out", "ledger/writer.py", "            results = [op(self._ledger) for op, _ in group.jobs]\n", "            results = [op(self._ledger) for op, _ in group.jobs]\n            for (_, early), result in zip(group.jobs, results, strict=True):\n                self._call(_resolve, early, result)\n"),
    Bug("every commit reaches the disk", "ledger/store.py", "PRAGMA synchronous=FULL; PRAGMA cache", "PRAGMA synchronous=OFF; PRAGMA cache"),
    Bug("after a failed write nothing is written", "ledger/writer.py", "        if self._failure is None:\n            try:", "        if True:\n            try:"),
    Bug("a failed transaction is the last one", "ledger/store.py", "        if self._failure:\n            raise self._failure\n", ""),
    Bug("nothing is synced again after a failed sync", "ledger/store.py", "        if self._witness and not self._failure:\n", "        if self._witness:\n"),
    Bug("a 503 with an error is a refusal", "applier/verdict.py", "    if answer.status == 200:\n        return _by_inventory(body, claim, answer.status) or _unbound(answer)", "    if answer.status in (200, 503):\n        return _by_inventory(body, claim, answer.status) or Verdict(Next.SETTLED, Status.UPDATED)"),
    Bug("a status is the server's own, never an exception's", "zstack/http.py", "            return _failed(error, sent=sent)\n", "            return Answer(400, sent=sent) if isinstance(error, HttpProcessingError) else _failed(error, sent=sent)\n"),
    Bug("retries have a budget", "pace/budget.py", "        if self._left >= 1:\n", "        if True:\n"),
    Bug("an HTTP date is in GMT", "zstack/limits.py", "    then = then.replace(tzinfo=UTC)\n", "    then = then.replace(tzinfo=None).astimezone()\n    then = then + timedelta(hours=1)\n"),
    Bug("an answer is bound to its image", "applier/verdict.py", '    if inventory is None or inventory.get("uuid") != claim.uuid:\n', "    if inventory is None:\n"),
    Bug("a 202 is bound to its job", "applier/verdict.py", "if job_of(body) == claim.job_uuid else", "if job_of(body) else"),
    Bug("a refusal that names another image is not this row's", "applier/verdict.py", "    if names_another(answer.text, claim.uuid):\n        return _unbound(answer)\n", ""),
    Bug("an outcome is durable before it is shown", "ledger/writer.py", "        with self._ledger.transaction():\n            if group.outcomes:", "        self._call(self._on_settled, group.outcomes)\n        with self._ledger.transaction():\n            if group.outcomes:"),
    Bug("one process holds a run", "ledger/rundir.py", "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)\n"),
    Bug("an outage closes the gate", "pace/gate.py", "        if alone or self._in_a_row >= NEAR:\n", "        if False:\n"),
    Bug("a closed gate lets one through at a time", "pace/gate.py", "                if self._trial is not None:\n", "                if False:\n"),
    Bug("probes grow apart", "pace/gate.py", "        self._rounds += 1\n        seconds *=", "        seconds *="),
    Bug("no row loses a try to an outage", "pace/patience.py", "self._blamed(Blame.ROW) > self._retries", "len(self._streaks) > self._retries"),
    Bug("the start after an outage is slow", "pace/pace.py", "        self._reopened = self._clock()\n        self._climb(self._reopened)\n", "        self._reopened = None\n"),
    Bug("Retry-After holds the run", "pace/gate.py", "        self._close(min(wait, MOST_HOLD), f\"the server asked to wait ({why})\")\n", ""),
    Bug("what is left of a quota is not passed", "pace/pace.py", "health.quota[0] <= self._out", "health.quota[0] < 0"),
    Bug("the HTTP client does not send twice", "zstack/http.py", "            transport.write(request)\n", "            transport.write(request + request)\n"),
    Bug("an answer nobody asked for does not shift the next", "zstack/http.py", " and not protocol.should_close:", ":"),
    Bug("what was open at a crash is asked about", "applier/journey.py", "        if not errand.claim.interrupted:\n            return again_if_unknown(await self._send(errand))\n", "        return again_if_unknown(await self._send(errand))\n"),
    Bug("resume sends no row that has its outcome", "ledger/claims.py", "AND row.problems = 0 AND outcome.ordinal IS NULL", "AND row.problems = 0"),
    Bug("damage of the ledger is refused", "ledger/store.py", "        if found:\n            raise StorageError(f\"{self.path}: is damaged", "        if False:\n            raise StorageError(f\"{self.path}: is damaged"),
    Bug("what may have been applied is not failed", "applier/runner.py", "        if errand.maybe_applied or verdict.maybe_applied:\n            await self._last_word", "        if False:\n            await self._last_word"),
    Bug("an unknown row is not guessed", "applier/journey.py", "        status=Status.UNKNOWN,\n", "        status=Status.FAILED,\n"),
    Bug("a dead session costs one login", "zstack/auth.py", "            if dead != self.ticket:\n                return\n", "", "tests/journeys/test_faults.py -k one_login"),
    Bug("a refused login is not tried for ever", "zstack/auth.py", "            if self._refused:\n                raise self._refused\n", "", "tests/journeys/test_bad_servers.py -k login"),
    Bug("secrets that are echoed are not written down", "zstack/transport.py", "        for secret in self._secrets:\n            if secret in folded:\n", "        for secret in ():\n            if secret in folded:\n", "tests/journeys/test_bad_servers.py -k echoes"),
    Bug("files are private", "ledger/files.py", "os.O_NOFOLLOW | flags, 0o600)", "os.O_NOFOLLOW | flags, 0o644)", "tests/journeys/test_interruptions.py -k private"),
    Bug("a run directory that others can write in is not trusted", "ledger/rundir.py", "    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):\n", "    if False:\n", "tests/security/test_local_user.py"),
    Bug("a spreadsheet runs nothing", "ledger/schema.sql", "SELECT '=+-@' ||", "SELECT '+-@' ||", "tests/security/test_readers.py"),
    Bug("a terminal obeys nothing", "cli/screen.py", '    return _OBEYED.sub(lambda found: ascii(found.group())[1:-1], text)\n', "    return text\n", "tests/cli/test_screen.py"),
    Bug("answers are bounded", "zstack/http.py", "MAX_BODY = 2 << 20", "MAX_BODY = 2 << 30"),
    Bug("concurrency is a hard cap", "applier/runner.py", "        while len(self._workers) < self._pace.concurrency and", "        while len(self._workers) <= self._pace.concurrency and", "tests/journeys/test_library.py"),
    Bug("the rate is a hard cap", "pace/rate.py", "STRETCH = 1.017", "STRETCH = 0.5"),
    Bug("two processes share one rate", "pace/slots.py", "            os.pwrite(self._file, _KEPT.pack(slot, spacing), 0)\n", ""),
    Bug("errors never speed a run up", "pace/limit.py", "        elif heard is Heard.WELL:\n", "        else:\n"),
    Bug("a pause begins no row", "applier/agenda.py", "if not self._pace.paused and (errand", "if (errand", "tests/journeys/test_control.py -k pauses"),
    Bug("outside its hours nothing is changed", "engine/steering.py", "if window.is_open(wall.hour * 60 + wall.minute)", "if True", "tests/journeys/test_control.py -k hours"),
    Bug("a time box ends the run", "engine/steering.py", "self._stop, Exit.TIME_BOX, why)", "print, why)", "tests/journeys/test_control.py -k time_box"),
    Bug("what nobody waits for any more is not asked", "planner/reading.py", " if not asked[1].done()}", "}"),
    Bug("an authority is read once", "engine/world.py", "    authority = read_authority(settings.ca_file)\n", "    authority = read_authority(settings.ca_file) and read_authority(settings.ca_file)\n", "tests/zstack/test_tls.py -k once"),
    Bug("one duplicate does not make every outcome read all rows", "ledger/intake.py", '        db.execute("CREATE INDEX row_leader', '        print("CREATE INDEX row_leader'),
    Bug("a job that is lost is not failed", "applier/verdict.py", '    return Verdict(Next.READ, None, code, message', '    return Verdict(Next.SETTLED, Status.FAILED, code, message'),
    Bug("a password does not cross a network in the clear where that is forbidden", "layers.py", "    if settings.require_tls and settings", "    if False and settings", "tests/security/test_network.py"),
    Bug("a signal starts no new row", "applier/agenda.py", "        while not self._closed:\n", "        while True:\n", "tests/journeys/test_interruptions.py -k signal"),
    Bug("an access key's clock skew is said in words", "zstack/rules.py", '(r"requestTimeTooSkewed', '(r"requestTimeToSkewed'),
    Bug("a value that the image does not show is not taken for applied", "applier/verdict.py", 'as_stored(claim.fields[name]) != ""', 'as_stored(claim.fields[name]) == 0'),
    Bug("what happens to be a password is judged as it was said", "zstack/transport.py", "answer._replace(shown=raw)", "answer._replace(raw=raw)", "tests/journeys/test_bad_servers.py -k password"),
    Bug("a slow answer puts no outage's trouble on a row", "pace/gate.py", "while self._undecided and self._undecided[0] <= era:", "while self._undecided:"),
    Bug("an old answer out of a cache is not believed", "applier/verdict.py", '        verdict = Verdict(Next.READ, Status.DRIFTED', '        verdict = Verdict(Next.SETTLED, Status.DRIFTED'),
    Bug("nobody's later edit is overwritten", "planner/diff.py", "    return [\n        name\n        for name, was in before.items()", "    return [\n        name\n        for name, was in ()"),
    Bug("what was looked at long ago is looked at again", "applier/journey.py", "FRESH = 30.0", "FRESH = 1e9"),
    Bug("an undo takes back only what is still ours", "planner/undo.py", "        expects[name] = _left_tags(written, name, sent, replace_tags) if name in TAGS else sent\n", ""),
    Bug("a boot mode goes back with its architecture", "planner/undo.py", "    if sorted(left) != sorted(before):\n", "    if False:\n"),
    Bug("what cannot be put back is said", "planner/undo.py", '        return "had no value before, and the API cannot remove a value"\n', '        return ""\n'),
    Bug("only what differs is sent", "planner/diff.py", "        if not is_shown(image, name) or not fulfilled(name, value, now[name], replace_tags=replace_tags)\n", "        if True\n", "tests/journeys/test_campaign.py"),
    Bug("a precondition holds or nothing is sent", "planner/diff.py", "    if broken:\n", "    if False:\n"),
    Bug("an image is missing only when it is left out twice", "planner/reading.py", "        while missing:  # a server", "        while False:  # a server"),
    Bug("an answer about other images is none", "planner/reading.py", "                if any(image.get(\"uuid\") not in part for image in images):\n", "                if False:\n"),
    Bug("a plan of too many changes is refused", "planner/guard.py", "    if max_changes.count is not None and changes > max_changes.count:\n", "    if False:\n"),
    Bug("a side effect needs a word", "planner/guard.py", " if counts.fields.get(name) and name not in allowed]\n", " if False]\n"),
    Bug("the canary stops the run", "engine/sending.py", "        if bad:\n", "        if False:\n", "tests/journeys/test_campaign.py -k canary"),
    Bug("only the plan that was looked at is applied", "engine/planning.py", "        if self._checksum is not None and not", "        if False and not", "tests/journeys/test_campaign.py -k looked_at"),
    Bug("tags that are only added lose none", "applier/tagging.py", "        return [*(tag for tag in before if HIDDEN not in tag), *asked]", "        return [*(), *asked]", "tests/journeys/test_tags.py -k none_is_lost"),
    Bug("ignored tags are not believed", "applier/tagging.py", "            if not wrong:\n", "            if True:\n", "tests/journeys/test_tags.py -k none_is_lost"),
    Bug("what an answer does not carry is read back", "applier/journey.py", "        if names and self._can_read:\n", "        if False:\n", "tests/journeys/test_read_back.py"),
    Bug("a page runs nothing that an image is called", "report/plan_page.py", '.replace("<", "\\\\u003c")', "", "tests/report/test_plan_page.py"),
    Bug("a credential in an image is not written down", "planner/diff.py", '    return present(getattr(image, "shown", image), name)\n', "    return present(image, name)\n", "tests/security/test_survey.py"),
    Bug("blanks before an opening quote are no part of a value", "manifest/tabular.py", "            if not inside and (found := self._blanks.match(text, at)):\n", "            if False and (found := self._blanks.match(text, at)):\n", "tests/manifest/test_edges.py"),
    Bug("a cell that looks empty changes nothing", "cells.py", "    if is_blank(text):\n        return None\n", "    if not text.strip(SERVER_TRIMS):\n        return None\n", "tests/manifest/test_edges.py"),
    Bug("a byte order mark wins over the encoding", "manifest/encoding.py", "        if start.startswith(mark):\n", "        if False:\n", "tests/manifest/test_edges.py"),
    Bug("UTF-8 is not read in a configured encoding", "manifest/encoding.py", "contradicted_by_utf8=configured and _is_ascii_superset(asked)", "contradicted_by_utf8=False", "tests/manifest/test_edges.py"),
    Bug("our own files are UTF-8", "manifest/encoding.py", "        if names & OUR_COLUMNS:\n", "        if False:\n", "tests/manifest/test_edges.py"),
    Bug("--strict refuses what is hardly ever meant", "manifest/reader.py", "        if self._settings.strict:\n", "        if False:\n", "tests/manifest/test_edges.py"),
    Bug("nothing is sent without looking", "engine/planning.py", "                return Stop(Exit.TARGET, f\"{why}; nothing was sent. {_WITHOUT_SURVEY}\")\n", "                stop = None\n", "tests/journeys/test_looking_first.py"),
    Bug("a null in a named field costs no survey", "planner/reading.py", "            if not _failed_inside(answer):\n", "            if True:\n", "tests/journeys/test_looking_first.py"),
    Bug("tags that cannot be read cost only what depends on them", "planner/reading.py", "        except CannotRead as why:\n            if kind not in self.unreadable:\n", "        except ZeroDivisionError as why:\n            if kind not in self.unreadable:\n", "tests/journeys/test_looking_first.py"),
    Bug("undo removes no tag that was never read", "planner/undo.py", "        if name in TAGS and name not in written.before:\n", "        if False:\n", "tests/journeys/test_looking_first.py"),
    Bug("a row nobody can tell about is sent again", "applier/journey.py", "    return verdict._replace(next=Next.AGAIN, status=None, maybe_applied=True)\n", "    return verdict\n", "tests/journeys/test_looking_first.py"),
    Bug("one PUT finds out how the key is spelled", "applier/journey.py", "        return self._is_the_api or self._api.key_is_known\n", "        return True\n", "tests/journeys/test_spelling.py"),
    Bug("a redirect ends a run at its first PUT", "applier/journey.py", "        elif not self._is_the_api and 300 <=", "        elif False and 300 <=", "tests/journeys/test_looking_first.py"),
    Bug("the question reaches the terminal", "cli/screen.py", "    return sys.stdin is not None and sys.stdin.isatty()\n", "    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()\n", "tests/cli/test_streams.py"),
    Bug("an ignored hangup stays ignored", "cli/carry.py", "        if number is signal.SIGHUP and", "        if False and", "tests/cli/test_streams.py -k hangup"),
    Bug("a reader that goes away changes no exit code", "cli/screen.py", "        except BrokenPipeError:\n            self._give_up()\n            super().flush()\n", "        except ZeroDivisionError:\n            pass\n", "tests/cli/test_streams.py -k reader"),
    Bug("JSON messages are JSON in every line", "cli/screen.py", "        as_json=log_format.strip() == \"json\",\n", "        as_json=False,\n", "tests/cli/test_streams.py -k json"),
    Bug("--json is always a document", "cli/screen.py", "    if _state.wants_document and not _state.has_document and (exit_code or _state.last_error):\n", "    if False:\n", "tests/cli/test_streams.py -k document"),
    Bug("undo last does not redo a campaign", "engine/undone.py", "        if run.state in _BEGUN and not run.undo_of:\n            return run.directory\n", "        if run.state in _BEGUN:\n            return run.directory\n", "tests/cli/test_history.py -k undo"),
    Bug("a run is undone once", "engine/undone.py", "        if run.undo_of != directory.run_id or", "        if True or", "tests/cli/test_history.py -k undo"),
    Bug("a finished run's name is taken", "engine/begin.py", "        if state == \"done\":\n            raise RunRefused(\n                f\"run {directory.run_id} is finished", "        if False:\n            raise RunRefused(\n                f\"run {directory.run_id} is finished", "tests/cli/test_history.py -k named"),
    Bug("two runs of one work are not under way at once", "engine/overlap.py", "        if (found := _described(other, work, own)) is not None:\n", "        if False:\n", "tests/cli/test_history.py -k living"),
    Bug("what can be resumed is not pruned", "cli/runs.py", "if run[\"state\"] in FINISHED and not", "if True and not", "tests/cli/test_history.py -k prune"),
    Bug("a guard sells no way around", "engine/close.py", "    if state == \"refused\" or (stop is not None and not stop.resumable):\n", "    if state == \"refused\":\n", "tests/cli/test_history.py -k canary_that"),
    Bug("a secret that everybody can read is refused", "credentials.py", "    if found.st_mode & stat.S_IRWXO:\n", "    if False:\n", "tests/cli/test_secrets_and_settings.py"),
)  # fmt: skip

_PYTEST = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header")
SUITES: dict[str, tuple[str, ...]] = {
    "simulation (200 seeds)": (sys.executable, "-m", "tests.battery", "simulation", "--size", "200", "--dry"),
    "tests of the rooms": (
        *_PYTEST,
        "tests/applier",
        "tests/pace",
        "tests/zstack",
        "tests/ledger",
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
    """A copy of the project with the bug in it; ValueError when it cannot be planted."""
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
    path = root / "bulkimg" / bug.file
    text = path.read_text("utf-8")
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.promise}: {bug.file} has its text {text.count(bug.old)} times")
    path.write_text(text.replace(bug.old, bug.new), "utf-8")
    return root


def caught(bug: Bug) -> str:
    """The suite and the test that saw it, or an empty string."""
    with tempfile.TemporaryDirectory(prefix="bug-") as name:
        root = plant(bug, Path(name))
        env = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        for suite, command in (*remembered(bug, root), *expected(bug), *room(bug, root), *SUITES.items()):
            try:
                done = subprocess.run(
                    command, cwd=root, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
                )
            except subprocess.TimeoutExpired:
                return f"{suite}: it hangs"
            if done.returncode not in NOTHING_SEEN:
                return f"{suite}: {_first_failure(done.stdout + done.stderr)}"
    return ""


def expected(bug: Bug) -> list[tuple[str, tuple[str, ...]]]:
    return [("its own test", (*_PYTEST, *bug.test.split()))] if bug.test else []


def room(bug: Bug, root: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The tests of the room that the bug is in: they take seconds, and should see most."""
    tests = f"tests/{Path(bug.file).parent}"
    return [("its room", (*_PYTEST, tests))] if "/" in bug.file and (root / tests).is_dir() else []


def remembered(bug: Bug, root: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The suite that saw the bug the last time; of pytest's only the one test. Nothing for a new bug."""
    seen = (
        re.search(rf"^\| {re.escape(bug.promise)} \| ([^:|]+): (.*) \|$", TOLD.read_text("utf-8"), re.M)
        if TOLD.exists()
        else None
    )
    if not seen:
        return []
    if seen[1] in SUITES and SUITES[seen[1]][: len(_PYTEST)] != _PYTEST:
        return [(seen[1], SUITES[seen[1]])]
    name, _, test = seen[2].partition("::")
    paths = [str(path.relative_to(root)) for path in sorted(root.glob(f"tests/**/{name}"))]
    return [(seen[1], (*_PYTEST, f"{paths[0]}::{test}"))] if paths and test else []


def _first_failure(said: str) -> str:
    if found := re.search(r"FAILED (.+?)(?: - .*)?$", said, re.MULTILINE):
        return found[1].rpartition("/")[2]
    if found := re.search(r"; (seed \d+: .*)", said):
        return found[1].strip()[:160]
    lines = [line for line in said.splitlines() if "Error" in line]
    return (lines or said.splitlines()[-1:] or ["failed"])[0].strip()[:160]


def unplantable() -> list[str]:
    """Bugs whose text is not where it was; a test keeps this empty."""
    found = []
    for bug in BUGS:
        count = (ROOT / "bulkimg" / bug.file).read_text("utf-8").count(bug.old)
        if count != 1:
            found.append(f"{bug.promise}: {bug.file} has its text {count} times")
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
        tried = [(bug, by) for bug, by in zip(BUGS, pool.map(one, BUGS), strict=True) if by is not None]
    missed = [bug.promise for bug, by in tried if not by]
    by_suite = [
        f"{suite} {count}"
        for suite in ("its own test", "its room", *SUITES)
        if (count := sum(by.startswith(suite) for _, by in tried))
    ]
    notes = f"of {len(BUGS)}; seen first by: {', '.join(by_suite)}" + (
        f"; not seen: {'; '.join(missed)}" if missed else ""
    )
    head = [
        "# Planted bugs",
        "",
        "Which promise each breaks, and what saw it first.",
        "",
        "| promise | seen by |",
        "|---|---|",
    ]
    lines = [f"| {bug.promise} | {by.replace('|', '/') or '**not seen**'} |" for bug, by in tried]
    TOLD.write_text("\n".join([*head, *lines, ""]), "utf-8")
    return [Record("T56", "planted bugs", len(tried), len(missed), "bugs", notes, time.monotonic() - begun)]
