"""Measure how long `bulkimg run` takes from exec until it sends: `python -m tests.bench.startup`.

One row, a given session, `--no-survey`, a server in this process. Each moment is of the machine's monotonic clock. The
first line of `main` is reached when `bulkimg.cli.main` is imported, as the console script and `python -m bulkimg` do.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.answers import answering
from tests.bench.sections import keep, machine
from tests.conftest import ROOT

TURNS = 11
SAYS = "import time; print(time.monotonic())"
IMPORTED = f"import bulkimg.cli.main; {SAYS}"


def until(code: str) -> float:
    """Return the seconds from exec until Python has run the code, which prints that moment."""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return float(done.stdout) - begun


def until_put(place: Path, number: int) -> float:
    """Return the seconds from exec until the server has read the head of the first PUT."""
    moments: list[float] = []
    manifest = place / "m.csv"
    manifest.write_text(f"uuid,name,platform\n{1:032x},new,Linux\n")
    with answering(lambda: moments.append(time.monotonic())) as url:
        environment = {**os.environ, "BULKIMG_SESSION": "0" * 32, "BULKIMG_ENDPOINT": url}
        command = [sys.executable, "-m", "bulkimg", "run", str(manifest), "--yes", "--no-survey", "--progress", "none"]
        command += ["--runs-dir", str(place / f"runs-{number}"), "-q"]
        begun = time.monotonic()
        subprocess.run(command, check=True, env=environment, cwd=ROOT)
    return moments[0] - begun


def main() -> None:
    found: dict[str, list[float]] = {"Python alone": [], "the first line of main": [], "the first PUT": []}
    with tempfile.TemporaryDirectory(prefix="bulkimg-startup-") as place:
        for number in range(1 + TURNS):  # the first turn reads what is not in memory yet
            turn = (until(SAYS), until(IMPORTED), until_put(Path(place), number))
            for moments, seconds in zip(found.values(), turn, strict=True):
                moments.append(seconds)
    rows = [
        f"| {name} | {statistics.median(s[1:]):.3f} | {min(s[1:]):.3f} | {max(s[1:]):.3f} |"
        for name, s in found.items()
    ]
    text = [
        f"{machine()}. Seconds from exec, {TURNS} turns after one that is not counted; one row, `--no-survey`, the server on loopback.",
        "`python -m tests.bench.startup` prints this.",
        "",
        "| until | median | least | most |",
        "|---|---|---|---|",
        *rows,
    ]
    print("\n".join(text))
    if "--keep" in sys.argv[1:]:
        keep("Start-up", "\n".join(text))


if __name__ == "__main__":
    main()
