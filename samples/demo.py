"""`make demo`: starts the sandbox, runs samples/relabel.csv through it, shows the results and what to type next."""

import csv
import os
import subprocess
import sys
from pathlib import Path

BULKIMG = Path(sys.executable).with_name("bulkimg")
RUN = [str(BULKIMG), "run", "samples/relabel.csv", "--yes", "--rate", "60/s"]


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> int:
    sandbox = subprocess.Popen(
        [str(BULKIMG), "sandbox", "--port", "0", "--service-time", "20"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert sandbox.stdout is not None
        url = sandbox.stdout.readline().split()[1]
        session = sandbox.stdout.readline().split()[1]
        say(f"A practice server is at {url}. Now the first of the two commands you will use every day:\n")
        say("  $ bulkimg check samples/relabel.csv")
        subprocess.run([str(BULKIMG), "check", "samples/relabel.csv"], check=True)
        say(f"\n  $ {' '.join(['bulkimg', *RUN[1:]])}")
        done = subprocess.run(RUN, env={**os.environ, "BULKIMG_ENDPOINT": url, "BULKIMG_SESSION": session}, check=False)
        show_results()
    finally:
        sandbox.terminate()
        sandbox.wait(10)
    return done.returncode


def show_results() -> None:
    results = max(Path("runs").iterdir()) / "results.csv"
    with results.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    say(f"\nEvery row of the manifest has one line in {results}. The first three of {len(rows)}:\n")
    for row in rows[:3]:
        say(f"  line {row['line']:>3}  {row['uuid']}  {row['status']}  {row['after']}")
    say(
        "\nNext, with a server to practise on in another terminal (.venv/bin/bulkimg sandbox, then the two exports it prints):\n"
        "  .venv/bin/bulkimg check samples/mistakes.csv      every problem of a bad manifest, with its fix\n"
        "  .venv/bin/bulkimg plan jobs/campaign.toml         what a job file would change, field by field; sends nothing\n"
        "  .venv/bin/bulkimg apply last --canary 5           five images first, then the others; asks before both\n"
        "  .venv/bin/bulkimg undo last                       the old values back\n"
        "  .venv/bin/bulkimg status last                     what a run did\n"
        "README.md has your first run against your own server."
    )


if __name__ == "__main__":
    sys.exit(main())
