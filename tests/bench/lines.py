"""Count the lines of the five rooms of the send path, before they were rebuilt and now: `python -m tests.bench.lines`."""

import ast
import io
import subprocess
import tokenize
from datetime import UTC, datetime

from tests.bench.sections import keep
from tests.conftest import ROOT

BEFORE = "04ad8e4"
ROOMS = {"applier": "apply", "zstack": "zstack", "planner": "plan", "pace": "pace", "engine": "engine"}  # then
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def texts(revision: str, rooms: tuple[str, ...]) -> list[str]:
    """Return the modules of a room, whatever it was called."""
    names = git("ls-tree", "-r", "--name-only", revision, "--", *(f"bulkimg/{room}" for room in rooms)).split()
    return [git("show", f"{revision}:{name}") for name in names if name.endswith(".py")]


def code(text: str) -> int:
    """Return the lines that hold code: no comment, no docstring, not blank."""
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            found |= set(range(token.start[0], token.end[0] + 1))
    return len(found - prose)


def main() -> None:
    table, total = [], [0, 0, 0, 0]
    for room, earlier in ROOMS.items():
        found: list[int] = []
        for revision in (BEFORE, "HEAD"):
            modules = texts(revision, (room, earlier))
            found += [sum(text.count("\n") for text in modules), sum(map(code, modules))]
        table.append((room, found))
        total = [one + other for one, other in zip(total, found, strict=True)]
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, commit {BEFORE} and {git('rev-parse', '--short', 'HEAD').strip()}. "
        "`python -m tests.bench.lines` prints this. Code: without comments, docstrings and blank lines.",
        "",
        "| room | lines before | of code | lines now | of code |",
        "|---|---|---|---|---|",
        *(f"| {room} | {' | '.join(f'{number:,}' for number in found)} |" for room, found in [*table, ("all", total)]),
    ]
    keep("Lines of the send path", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
