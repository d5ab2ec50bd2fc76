"""Show four nights of a job, started by a real cron: `python -m tests.schedule.nights` (root, Debian's cron, five minutes).

Every minute is a night: changes, then nothing to do, then a failure with its messages, then the recovery.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import ROOT, Server, sandbox_process
from tests.notify.receiver import Receiver, receiving
from tests.schedule.cron import letters, running_cron, wait_until, why_not


def bulkimg(place: Path, *words: str) -> str:
    """Run a command, show it with what it says, and return its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    show(f"$ bulkimg {' '.join(words)}")
    done = subprocess.run(
        [sys.executable, "-m", "bulkimg", *words],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    show(done.stdout + done.stderr)
    assert done.returncode == 0, done.returncode
    return done.stdout


def show(text: str) -> None:
    print(text.rstrip("\n"), flush=True)


def prepare(place: Path, server: Server, receiver: Receiver) -> str:
    """Write the job from `bulkimg init`, and return its line for cron."""
    bulkimg(place, "init", "nightly.toml")
    job = place / "nightly.toml"
    text = (
        job.read_text("utf-8")
        .replace('"relabel.csv"        ', '"nightly.csv"')
        .replace("http://127.0.0.1:8080", server.url)
    )
    messages = '[[notify]]\non = ["failed", "recovered", "changed"]\nwebhook_file = "hook.url"\n'
    text = text.replace("# skip_invalid = true ", "keep = { last = 30, days = 90 }\nskip_invalid = true ")
    job.write_text(f"{text}\n{messages}", "utf-8")
    for name, secret in (("account", "admin"), ("password", "password"), ("hook.url", receiver.url)):
        (place / name).write_text(f"{secret}\n")
        (place / name).chmod(0o600)
    write_manifest(place, server, "golden")
    bulkimg(place, "check", "nightly.toml")
    words = ("--credential", "account=./account", "--credential", "password=./password")
    out = bulkimg(place, "schedule", "nightly.toml", "--when", "*/1 * * * *", "--as", "cron", *words)
    return next(line for line in out.splitlines() if not line.startswith("#"))


def write_manifest(place: Path, server: Server, name: str, *more: str) -> None:
    rows = [f"{uuid},{name}-{at}" for at, uuid in enumerate(sorted(server.images())[:400])]
    temporary = place / "new.csv"
    temporary.write_text("\n".join(["uuid,name", *rows, *more]) + "\n")
    temporary.rename(place / "nightly.csv")


def night(title: str, place: Path, mail: Path, server: Server, receiver: Receiver) -> None:
    """Wait until cron has run the job once more, and show what it left."""
    before = len(ended(place)), len(letters(mail)), len(receiver.requests), len(server.requests())
    wait_until(lambda: len(ended(place)) > before[0])
    time.sleep(3)  # messages and mail are sent after the files
    summary = json.loads(sorted(ended(place))[-1].read_text("utf-8"))
    counts = {name: number for name, number in summary["counts"].items() if number}
    show(f"\n== {title}: cron started it at {summary['started_at']}, exit {summary['exit_code']}, {counts}")
    show(f"   requests to the server: {len(server.requests()) - before[3]}")
    show(
        f"   messages: {[request.json()['data'].get('event') or request.json()['type'] for request in receiver.requests[before[2] :]]}"
    )
    for request in receiver.requests[before[2] :]:
        show(f"     {json.dumps(request.json())[:300]} …")
    show(f"   mails of cron: {len(letters(mail)) - before[1]}")
    for letter in letters(mail)[before[1] :]:
        show("\n".join(f"     | {line}" for line in letter.splitlines()))


def ended(place: Path) -> list[Path]:
    return list(place.glob("runs/*/summary.json"))


def main() -> None:
    if why := why_not():
        sys.exit(f"left out: {why}")
    with tempfile.TemporaryDirectory() as name, sandbox_process("--images", "1000") as server, receiving() as receiver:
        place = Path(name)
        line = prepare(place, server, receiver)
        show(f"\ncrontab:\n{line}")
        with running_cron(place, f"PYTHONPATH={ROOT}\n{line}\n") as mail:
            night("first night, 400 images to change", place, mail, server, receiver)
            night("second night, nothing to do", place, mail, server, receiver)
            write_manifest(place, server, "golden", f"{'0' * 31}1,nobody")
            night("third night, one image does not exist", place, mail, server, receiver)
            write_manifest(place, server, "golden")
            night("fourth night, the list is right again", place, mail, server, receiver)
        show("")
        bulkimg(place, "runs")


if __name__ == "__main__":
    main()
