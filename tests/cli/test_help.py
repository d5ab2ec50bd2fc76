"""Help: groups, rare options on request, examples that work, near names, the manual offline."""

import platform
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bulkimg import __version__
from bulkimg.cli import manual
from bulkimg.cli.help import KINDS, topics
from bulkimg.cli.main import COMMANDS, app
from bulkimg.cli.options import OPTIONS
from bulkimg.layers import flag
from tests.conftest import ROOT, Cli

GROUPED = ("run", "plan", "check", "resume", "apply", "retry", "undo")


def parser(command: str) -> tuple[Any, Any]:
    """Return a command of the real tree, and its context."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("bulkimg", [], resilient_parsing=True)
    return group.get_command(context, command), context


def spellings(command: str) -> set[str]:
    """Return every option of the command."""
    found, context = parser(command)
    words = (word for param in found.get_params(context) for word in (*param.opts, *param.secondary_opts))
    return {word for word in words if word.startswith("-")}


def section(text: str, title: str) -> str:
    """Return the lines below a title of a help page."""
    found = re.search(rf"^{re.escape(title)}:\n((?:[ ].*\n?|\n)*)", text, re.MULTILINE)
    return found[1] if found else ""


def test_the_options_of_run_stand_in_groups_in_order(cli: Cli) -> None:
    text = cli("run", "--help").out
    titles = re.findall(r"^([A-Z][\w ]*):$", text, re.MULTILINE)
    assert titles == [
        "Arguments",
        "Options",
        "Manifest",
        "Guards",
        "Pace",
        "Server",
        "Output",
        "Examples",
        "Exit codes",
    ]
    for option, group in [
        ("--map", "Manifest"), ("--canary", "Guards"), ("--rate", "Pace"), ("--endpoint", "Server"), ("--json", "Output"),
    ]:  # fmt: skip
        assert re.search(rf"^  (-\w, )?{option}\b", section(text, group), re.MULTILINE), option


def test_every_shared_option_stands_in_one_group() -> None:
    grouped = [name for names in manual.GROUPS.values() for name in names]
    assert len(grouped) == len(set(grouped))
    assert set(OPTIONS) == set(grouped)
    assert set(grouped) >= manual.RARE


@pytest.mark.parametrize("command", GROUPED)
def test_rare_options_are_shown_by_help_all_only(cli: Cli, command: str) -> None:
    short, whole = cli(command, "--help").out, cli(command, "--help-all").out
    known = spellings(command)
    rare = {flag(name) for name in manual.RARE} & known
    assert rare
    for option in rare:
        assert not re.search(rf"^  {option}\b", short, re.MULTILINE), option
        assert re.search(rf"^  {option}\b", whole, re.MULTILINE), option
    hidden = len({name for name in manual.RARE if flag(name) in known})
    assert f"{hidden} rarely used options are shown by --help-all." in " ".join(short.split())
    assert "rarely used" not in whole


@pytest.mark.parametrize("command", GROUPED)
def test_help_all_shows_every_option(cli: Cli, command: str) -> None:
    text = cli(command, "--help-all").out
    assert [option for option in spellings(command) if not re.search(rf"(^|[\s,/]){option}\b", text)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_three_examples_and_its_exit_codes(cli: Cli, command: str) -> None:
    text = cli(command, "--help").out
    examples = section(text, "Examples")
    shown = [line for line in examples.splitlines() if line.startswith("  bulkimg ")]
    assert len(shown) == 3
    codes = [
        int(found[1]) for line in section(text, "Exit codes").splitlines() if (found := re.match(r"  (\d+) ", line))
    ]
    assert codes == list(manual.CODES_OF[command])
    assert codes[:1] == [0]


@pytest.mark.parametrize(
    ("command", "example"), [(name, line) for name, found in manual.EXAMPLES.items() for line, _ in found]
)
def test_every_example_is_understood_by_its_command(command: str, example: str) -> None:
    words = shlex.split(re.sub(r" [<>] \S+", "", example))
    assert words[0] == "bulkimg"
    assert words[1] in {command, "run"}  # init's third example is the next step
    found, context = parser(words[1])
    made = found.make_context(words[1], words[2:], parent=context)
    assert made.params is not None


def test_every_command_has_examples_and_codes_and_no_other_has() -> None:
    assert set(manual.EXAMPLES) == set(COMMANDS) == set(manual.CODES_OF)


def test_the_documented_exit_codes_are_those_of_the_help() -> None:
    text = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    assert [code for code in manual.EXIT_CODES if not re.search(rf"^\|\s*`?{code}\b", text, re.MULTILINE)] == []


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("rnu", "run"),
        ("plna", "plan"),
        ("statsu", "status"),
        ("verfy", "verify"),
        ("docter", "doctor"),
        ("udno", "undo"),
    ],
)
def test_a_wrong_command_is_answered_with_the_nearest(cli: Cli, wrong: str, near: str) -> None:
    done = cli(wrong, code=2)
    assert f"there is no command {wrong!r}; did you mean {near!r}?" in done.err
    assert done.out == ""


def test_a_command_that_resembles_nothing_points_to_the_list(cli: Cli) -> None:
    assert "there is no command 'xyzzyx'; bulkimg --help lists them" in cli("xyzzyx", code=2).err
    assert "did you mean --version?" in cli("version", code=2).err


def test_a_wrong_option_is_answered_with_the_nearest(cli: Cli) -> None:
    assert "--max-errors" in cli("run", "m.csv", "--max-error", "5", code=2).err


# -- the manual ---------------------------------------------------------------------------------------------------------


def test_help_lists_every_page(cli: Cli) -> None:
    lines = [line.split()[0] for line in cli("help").out.splitlines() if line.startswith("  ")]
    pages = {page.stem for kind in KINDS for page in (ROOT / "docs" / kind).glob("*.md")}
    assert set(lines) == pages
    assert len(lines) == len(pages)
    assert pages >= {"manifest", "credentials", "jobs", "exit-codes", "json", "results", "library", "limits"}


@pytest.mark.parametrize("topic", [page.stem for kind in KINDS for page in sorted((ROOT / "docs" / kind).glob("*.md"))])
def test_a_topic_is_the_page_of_the_docs(cli: Cli, topic: str) -> None:
    page = topics()[topic]
    assert page.is_relative_to(ROOT / "docs")
    assert cli("help", topic).out == page.read_text("utf-8").rstrip("\n") + "\n"


def test_a_page_with_the_name_of_a_command_names_the_command(cli: Cli) -> None:
    assert set(topics()) & set(COMMANDS) == {"results"}
    assert cli("help", "results").err == "the command of this name: bulkimg results --help\n"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in topics()])
def test_help_of_a_command_is_its_help(cli: Cli, command: str) -> None:
    assert cli("help", command).out == cli(command, "--help").out


@pytest.mark.parametrize(("wrong", "near"), [("credentails", "credentials"), ("manifst", "manifest"), ("udo", "undo")])
def test_a_wrong_topic_is_answered_with_the_nearest(cli: Cli, wrong: str, near: str) -> None:
    assert f"there is no topic {wrong!r}; did you mean {near!r}?" in cli("help", wrong, code=2).err


def test_a_topic_that_resembles_nothing_points_to_the_list(cli: Cli) -> None:
    assert "bulkimg help lists them" in cli("help", "xyzzyx", code=2).err


def test_help_needs_no_network_no_home_and_no_configuration(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "config" / "bulkimg").mkdir(parents=True)
    cli.write("config/bulkimg/config.toml", "is not [TOML")
    assert cli("help", "manifest", HOME="/nonexistent").out.startswith("# ")


# -- version, and what a start costs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_names_itself_python_and_sqlite(cli: Cli, flag: str) -> None:
    said = cli(flag).out
    assert said.startswith(f"bulkimg {__version__} (")
    assert f"Python {platform.python_version()}" in said
    assert f"SQLite {sqlite3.sqlite_version}" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_help_and_version_import_neither_the_http_client_nor_the_models(words: list[str]) -> None:
    code = (
        f"import sys\nsys.argv = ['bulkimg', *{words!r}]\nfrom bulkimg.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'aiohttp', 'pydantic', 'pydantic_core', 'asyncio', 'uvloop', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
