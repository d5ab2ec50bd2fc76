"""Read the pages that show commands, and run them in order in one shell.

A fenced block's info string says how it is used:

    ```sh                 run; every command exits 0
    ```sh exit=3          run; the last command exits 3, the others 0
    ```sh no-run          not run; every line begins with one of NO_RUN
    ```console            run what follows `$ `; the other lines are its output
    ```text               after a block that runs: its output
    ```python             run with the virtual environment's Python
    ```toml file=my.toml  written to this file (any language)

An output is checked line by line. Each line must be one that the commands printed, except for times, rates, ids, hashes
and the port. A line of `…` alone stands for any lines. `DOCS_UPDATE=1 pytest tests/docs` replaces a line by the nearest
printed one.
"""

import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.conftest import ROOT, Server, forge
from tests.warm_shell import write_program

DOCUMENTED = "http://127.0.0.1:8080"
NO_RUN = (
    "git clone", "git pull", "cd", "make", "uv tool", "pipx", "sudo", "systemctl", "systemd-analyze", "journalctl", "crontab",
    "man", "podman", "docker", "export", "chmod", "bulkimg sandbox", "bulkimg --install-completion", ".venv/bin/bulkimg sandbox",
    "kubectl", "aws", "gcloud", "bash samples/fleet/slurm.sh", "bash samples/fleet/run.sh",
    "bash samples/fleet/dask-ssh.sh", "sbatch", "bulkimg watch two", "bulkimg ctl two",
    "bulkimg run jobs/regions.toml", "bulkimg plan jobs/regions.toml",
    "bulkimg verify move-1", "bulkimg results move-1", "bulkimg ctl move-1", "bulkimg undo move-1",
    "bulkimg run migration.csv", "bulkimg run samples/relabel.csv --yes --otel",
)  # fmt: skip
_FENCE = re.compile(r"^```(\w*)[ ]?(.*)$")
_SPOKEN_BY = {"sh", "console", "python"}


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is the page's line number of its first line, from 1."""

    language: str
    marks: tuple[str, ...]
    lines: tuple[str, ...]
    line: int
    exits: int = 0
    output_at: tuple[int, int] = (
        0,
        0,
    )  # the lines of the page that hold its output, from 0; the end is exclusive

    @property
    def file(self) -> str:
        """Return the file that the block is written to, or ""."""
        return next((mark.partition("=")[2] for mark in self.marks if mark.startswith("file=")), "")

    @property
    def runs(self) -> bool:
        return self.language in _SPOKEN_BY and "no-run" not in self.marks and not self.file


@dataclass
class Ran:
    """The result of a page: problems as sentences, and its text with the printed outputs."""

    problems: list[str] = field(default_factory=list)
    text: str = ""


def pages() -> list[Path]:
    """Return README.md, the tutorial and the how-tos."""
    return [ROOT / "README.md", *sorted((ROOT / "docs" / "tutorial").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]  # fmt: skip


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page. A console is split into one block for each command."""
    found: list[Block] = []
    opened: re.Match[str] | None = None
    begun = 0
    lines = page.read_text("utf-8").split("\n")
    for at, text in enumerate(lines):
        fence = _FENCE.match(text)
        if opened is None and fence:
            opened, begun = fence, at + 1
        elif opened is not None and text == "```":
            block = Block(opened[1], tuple(opened[2].split()), tuple(lines[begun:at]), begun + 1, _exit(opened[2]))
            found += _commands(block) if block.language == "console" else [block]
            opened = None
    assert opened is None, f"{page.name}:{begun}: a block is not closed"
    return list(_with_outputs(found))


def _exit(marks: str) -> int:
    found = re.search(r"\bexit=(\d+)", marks)
    return int(found[1]) if found else 0


def _commands(block: Block) -> Iterator[Block]:
    """Return the commands of a console, each with the place of its output. `exit=` is for the last one."""
    starts = [at for at, text in enumerate(block.lines) if text.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        stop = start + 1
        while block.lines[stop - 1].endswith("\\"):
            stop += 1
        command = (block.lines[start][2:], *block.lines[start + 1 : stop])
        exits = block.exits if start == starts[-1] else 0
        first = block.line - 1
        yield Block("console", block.marks, command, block.line + start, exits, (first + stop, first + end))


def _with_outputs(found: Sequence[Block]) -> Iterator[Block]:
    """Return the blocks, with a text block as the output of the block before it that runs."""
    for block, after in zip(found, [*found[1:], None], strict=True):
        if after and after.language == "text" and block.runs and block.language != "console":
            first = after.line - 1
            yield replace(block, output_at=(first, first + len(after.lines)))
        else:
            yield block


# -- run a page ---------------------------------------------------------------------------------------------------------


def sandbox_arguments(page: Path) -> list[str]:
    """Return the arguments of the page's `bulkimg sandbox`. The port is the test's own."""
    for block in blocks(page):
        for line in block.lines:
            if block.language == "sh" and re.match(r"(\.venv/bin/)?bulkimg sandbox\b", line):
                words = shlex.split(line, comments=True)[2:]
                assert "--port" not in words
                return words
    return []


def run_page(page: Path, place: Path, server: Server) -> Ran:
    """Run the page's blocks in `place`, an empty folder."""
    for name in ("samples", "jobs"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for job in (place / "jobs").iterdir():
        job.write_text(job.read_text("utf-8").replace(DOCUMENTED, server.url), "utf-8")
    logs = place.parent / "logs"
    logs.mkdir()
    found = blocks(page)
    script = "\n".join(_script(number, block, logs, server) for number, block in enumerate(found))
    (logs / "script").write_text(script, "utf-8")
    environment = _environment(page, place, server)
    inherited = [] if "kill -9" in script else [_quick_commands(place, environment)]
    with (logs / "bash").open("wb") as log:
        subprocess.run(
            ["bash", str(logs / "script")], cwd=place, env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, timeout=100, check=False, pass_fds=inherited,
        )  # fmt: skip
    return _judge(page, found, logs, server)


def _environment(page: Path, place: Path, server: Server) -> dict[str, str]:
    """Make a new home. The tutorial exports server and credentials itself; for others docs/index.md says how."""
    home = place.parent / "home"
    home.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),  # this checkout's code, and not the installed one
        "HOME": str(home),
        "LANG": "C.UTF-8",
    }
    if page.parent.name != "tutorial":
        environment |= {"BULKIMG_ENDPOINT": server.url, "BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "password"}
    return environment


def _quick_commands(place: Path, environment: dict[str, str]) -> int:
    """Put a `bulkimg` that forks in front of the installed one. Returns the descriptor that it needs."""
    folder = place.parent / "bin"
    folder.mkdir()
    environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"
    return write_program(forge(), folder, environment)


def _script(number: int, block: Block, logs: Path, server: Server) -> str:
    """Return the shell code of a block.

    Every command that fails writes its exit code to `N.failed`, the last one its own to `N.code`.
    """
    text = "\n".join(block.lines).replace(DOCUMENTED, server.url)
    if block.file or block.language == "python":
        (logs / f"{number}.file").write_text(f"{text}\n", "utf-8")
    if block.file:
        return f"mkdir -p $(dirname {shlex.quote(block.file)}); cp {logs}/{number}.file {shlex.quote(block.file)}"
    if not block.runs:
        return ""
    if block.language == "python":
        text = f"python {logs}/{number}.file"
    return (
        f"trap 'echo $? >> {logs}/{number}.failed' ERR\n"
        f"{{\n{text}\n}} > {logs}/{number}.out 2>&1\n"
        f"echo $? > {logs}/{number}.code\n"
    )


def _judge(page: Path, found: Sequence[Block], logs: Path, server: Server) -> Ran:
    lines = page.read_text("utf-8").split("\n")
    ran = Ran()
    for number, block in reversed(list(enumerate(found))):
        if not block.runs:
            continue
        where = f"{page.name}:{block.line}: {block.lines[0]}"
        code = _read(logs / f"{number}.code").strip()
        out = _read(logs / f"{number}.out").replace(server.url, DOCUMENTED).replace("\ufeff", "")
        failed = _read(logs / f"{number}.failed").split()
        wanted = [str(block.exits)] if block.exits else []
        if code != str(block.exits) or failed != wanted:
            ran.problems.append(f"{where}\nexit {code or 'none'}, failed {failed}, wanted {block.exits}\n{out}")
        begin, end = block.output_at
        shown, missing = _compare(lines[begin:end], out)
        if missing:
            ran.problems.append(f"{where}\nnever printed: {missing}\n{out}")
        lines[begin:end] = shown
    ran.problems.reverse()
    ran.text = "\n".join(lines)
    return ran


def _read(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


# -- compare outputs ----------------------------------------------------------------------------------------------------

_VARIES = [
    (re.compile(r"\d{8}-\d{6}\.\d{3}-\w{4}"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?"), "<when>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<host>"),
    (re.compile(r"(?<=--checksum )[0-9a-f]{16}"), "<hash>"),
    (re.compile(r"\d+\.\d+(?=/s| s\b|, *\n)"), "<number>"),
    (re.compile(r"\b\d:\d\d left"), "<left>"),
    (re.compile(r'("(?:requests_per_s|sending_s|duration_s)": )[\d.]+'), r"\1<number>"),
    (re.compile(r"(?<=commit )[0-9a-f]{12}|(?<=Python )[\d.]+\w*|(?<=SQLite )[\d.]+"), "<version>"),
    (re.compile(r"\s+"), " "),
]


def _plain(line: str) -> str:
    for pattern, word in _VARIES:
        line = pattern.sub(word, line)
    return line.strip()


def _compare(shown: Sequence[str], out: str) -> tuple[list[str], list[str]]:
    """Return (the lines as they should be, those that were never printed).

    A `…` at the end of a line stands for any text.
    """
    printed = {_plain(line): line.rstrip() for line in out.split("\n") if line.strip()}
    lines, missing = [], []
    for line in shown:
        plain = _plain(line)
        begin = plain.removesuffix("…").strip()
        if not begin or plain in printed or (plain.endswith("…") and any(one.startswith(begin) for one in printed)):
            lines.append(line)
            continue
        missing.append(line)
        near = difflib.get_close_matches(plain, printed, 1, 0.3)
        lines.append(printed[near[0]] if near else line)
    return lines, missing
