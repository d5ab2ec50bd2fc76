"""T28: sessions that expire in a run, logins that are refused or slow. T30: retries under 503, and the stop rule.

python -m tests.battery.faults_sessions sessions --dialect zstack
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.battery.faults_catalogue import BOTH, DOCUMENTED
from tests.battery.report import Record
from tests.battery.trial import Bench, bench, tell, within

Rules = list[dict[str, Any]]
MOST_LOGINS_REFUSED = 3  # in a row; more could lock the account


@dataclass(frozen=True)
class Death:
    """A way in which credentials fail.

    More logins than `most_logins` are a failure. `all_updated`: the run must succeed.
    """

    name: str
    rules: Rules
    most_logins: int
    all_updated: bool
    account: bool = True


def dies(after: int, **more: Any) -> dict[str, Any]:
    return {"on": "put", "do": "kill-session", "after": after, "first": 1, **more}


def deaths(rows: int) -> list[Death]:
    half = rows // 2
    refused = {"on": "login", "do": "login-refused", "after": 1}
    return [
        Death("dies once", [dies(half)], 2, all_updated=True),
        Death("dies twice", [dies(half // 2), dies(half)], 3, all_updated=True),
        Death(
            "dies, and login takes 1 s",
            [dies(half), {"on": "login", "do": "login-slow", "arg": 1.0}],
            2,
            all_updated=True,
        ),
        Death("dies, and login is refused", [dies(half), refused], 1 + MOST_LOGINS_REFUSED, all_updated=False),
        Death(
            "dies, too many sessions",
            [dies(half), {**refused, "arg": "ID.1006"}],
            1 + MOST_LOGINS_REFUSED,
            all_updated=False,
        ),
        Death(
            "login refused at once", [{"on": "login", "do": "login-refused"}], MOST_LOGINS_REFUSED, all_updated=False
        ),
        Death("dies with every PUT", [{"on": "put", "do": "kill-session"}], 2 + MOST_LOGINS_REFUSED, all_updated=False),
        Death("401 once", [{"on": "put", "do": "status", "arg": 401, "after": half, "first": 1}], 2, all_updated=True),
        Death("a given session dies", [dies(half)], 0, all_updated=False, account=False),
    ]


def sessions(dialect: str, rows: int = 200) -> Record:
    """T28: one login for each expiry, no row `failed` by it, at most three refused logins."""
    begun, failures, logins, trials = time.monotonic(), 0, [], 0
    for death in deaths(rows):
        with bench(rows, dialect, account=death.account, sync=False) as ready:
            ready.witness.set_script(death.rules)
            done = ready.run(*within("4s"), limit=90)
            count = _logins(ready)
            found = ready.check() if (ready.place / "runs").is_dir() else None
            bad = int(count > death.most_logins) + done.hung + done.crashed
            if found:
                bad += found.bad + found.statuses["failed"]
                bad += int(death.all_updated and found.statuses["updated"] != rows)
            failures, trials = failures + bad, trials + 1
            logins.append(f"{death.name}: {count}")
            tell(f"T28 {death.name}, {dialect}", done, f"{count} logins; {found}", bad, found.problems if found else [])
    notes = f"logins: {', '.join(logins)}"
    return Record("T28", f"sessions, {dialect}", trials, failures, "runs", notes, time.monotonic() - begun)


def _logins(ready: Bench) -> int:
    log = ready.witness.log("run")
    return sum(one["kind"] == "request" and one["path"].endswith("/accounts/login") for one in log)


def storm(dialect: str, rows: int = 500, shares: tuple[float, ...] = (0.1, 0.5)) -> Record:
    """T30: plain 503 to a share of the PUTs. Retries stay within the budget of 10 % + 10, and no row fails by it."""
    begun, failures, trials, told = time.monotonic(), 0, 0, []
    for share in shares:
        with bench(rows, dialect, sync=False) as ready:
            ready.witness.set_script([{"on": "put", "do": "status", "arg": 503, "share": share}])
            done = ready.run("--retries", "8", *within("8s"), limit=110)
            found = ready.check()
            retries, requests = while_rows_are_fresh(ready.witness.log("run"))
            over = retries > 0.1 * requests + 11  # one more for the PUT that finds out the action key
            bad = found.bad + done.hung + done.crashed + over
            failures, trials = failures + bad, trials + rows
            told.append(
                f"{share:.0%}: {retries} retries in the first {requests} requests (until the last row had its first "
                f"PUT), {found.puts - rows} in all, {found.statuses['updated']} updated in {done.seconds:.0f} s"
            )
            tell(f"T30 503 storm {share:.0%}, {dialect}", done, f"{found}; {told[-1]}", bad, found.problems)
    notes = f"503 to a share of the PUTs: {'; '.join(told)}"
    return Record("T30", f"503 storm, {dialect}", trials, failures, "rows", notes, time.monotonic() - begun)


def while_rows_are_fresh(log: list[dict[str, Any]]) -> tuple[int, int]:
    """Return (retries, requests) until the last row got its first PUT: after that only retries are left."""
    requests = [one for one in log if one["kind"] == "request"]
    firsts: dict[str, int] = {}
    for n, one in enumerate(requests):
        if one["path"].endswith("/actions"):
            firsts.setdefault(one["path"], n)
    until = requests[: max(firsts.values(), default=-1) + 1]
    return sum(one["path"].endswith("/actions") for one in until) - len(firsts), len(until)


def stop_rule(dialect: str, rows: int = 1400) -> Record:
    """T30: every row is refused. With the default error limit no new row starts soon after 1,000 of them."""
    begun = time.monotonic()
    with bench(rows, dialect, sync=False) as ready:
        ready.witness.set_script([{"on": "put", "do": "json-status", "arg": [503, "SYS.1007"]}])
        done = ready.run("--max-errors", "", limit=110)  # the default
        found = ready.check()
        tried = len({one["path"] for one in ready.witness.puts()})
        stopped = done.code == 4 and tried < rows
        bad = found.bad + done.hung + done.crashed + (not stopped)
        tell(f"T30 stop rule, {dialect}", done, f"{found}; {tried} rows tried", bad, found.problems)
    notes = f"exit {done.code}, {tried} of {rows} rows tried"
    return Record("T30", f"stop rule, {dialect}", 1, int(bad > 0), "runs", notes, time.monotonic() - begun)


TESTS: dict[str, Callable[[str], Record]] = {"sessions": sessions, "storm": storm, "stop": stop_rule}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tests", nargs="*", default=list(TESTS))
    parser.add_argument("--dialect", choices=BOTH, default=DOCUMENTED)
    asked = parser.parse_args()
    for name in asked.tests:
        print(TESTS[name](asked.dialect))


if __name__ == "__main__":
    main()
