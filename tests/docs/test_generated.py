"""Generated files match the program: the reference of the command line, man pages, completion."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bulkimg.cli import reference
from bulkimg.cli.main import COMMANDS

MADE = reference.files()


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_it_is_fresh(path: Path) -> None:
    assert path.read_text("utf-8") == MADE[path], "run `make reference`"


def test_nothing_else_lies_there() -> None:
    for folder in ("man", "completion"):
        assert {path for path in MADE if path.parent.name == folder} == set((reference.DOCS / folder).iterdir())


@pytest.mark.parametrize("page", [path for path in MADE if path.suffix == ".1"], ids=lambda path: path.name)
def test_man_shows_the_page_without_a_complaint(page: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is absent")
    command = ["groff", "-man", "-Tutf8", "-ww", "-z", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_has_examples_and_exit_codes() -> None:
    text = reference.markdown()
    for name in COMMANDS:
        part = text.split(f"## bulkimg {name}\n")[1].split("\n## ")[0]
        assert "**Examples**" in part
        assert "**Exit codes**" in part
