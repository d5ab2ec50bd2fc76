"""`make demo`: start the sandbox, run samples/relabel.csv through it, show the results and what to type next."""

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
        say(f"A practice server listens on {url}. Check a manifest, then run it:\n")
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
    directory = max((path for path in Path("runs").iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    with (directory / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    say(f"\n{directory}/results.csv has one line for every row of the manifest. The first 3 of {len(rows)}:\n")
    for row in rows[:3]:
        say(f"  line {row['line']:>3}  {row['uuid']}  {row['status']}  {row['after']}")
    say(
        f"\nThe demo's server has ended; its run stays: .venv/bin/bulkimg status {directory.name}\n"
        "\nNext: start .venv/bin/bulkimg sandbox in another terminal, and type the two exports that it prints. Then:\n"
        "  .venv/bin/bulkimg check samples/mistakes.csv                   list every problem of a bad manifest\n"
        "  .venv/bin/bulkimg plan jobs/campaign.toml --run-id campaign-1  show what a job would change; sends nothing\n"
        "  .venv/bin/bulkimg apply campaign-1 --canary 5                  send 5 images, then the others; asks before both\n"
        "  .venv/bin/bulkimg undo campaign-1                              put the old values back\n"
        "README.md shows how to use your own server; docs/tutorial/first-campaign.md explains these steps."
    )


if __name__ == "__main__":
    sys.exit(main())
