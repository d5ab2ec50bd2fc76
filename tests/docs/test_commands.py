"""Every command in README, tutorial and how-tos is run as it is written, against a sandbox of its own."""

import os
from pathlib import Path

import pytest

from tests.conftest import ROOT, sandbox_process
from tests.docs.pages import NO_RUN, blocks, pages, run_page, sandbox_arguments

PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


@PAGES
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    place = tmp_path / "checkout"
    place.mkdir()
    with sandbox_process(*sandbox_arguments(page)) as server:
        ran = run_page(page, place, server)
    if os.environ.get("DOCS_UPDATE"):
        page.write_text(ran.text, "utf-8")
    assert not ran.problems, "\n\n".join(ran.problems)


@PAGES
def test_only_what_no_test_can_run_is_left_out(page: Path) -> None:
    for block in blocks(page):
        assert block.language, f"{page.name}:{block.line}: the block has no language"
        if "no-run" not in block.marks:
            continue
        assert block.language == "sh"
        continues = False
        for line in block.lines:
            if line.strip() and not line.startswith("#") and not continues:
                is_named = any(line == word or line.startswith(f"{word} ") for word in NO_RUN)
                assert is_named, f"{page.name}:{block.line}: {line!r} can be run"
            continues = line.endswith("\\")


@PAGES
def test_a_mark_is_one_that_means_something(page: Path) -> None:
    for block in blocks(page):
        for mark in block.marks:
            assert mark == "no-run" or mark.startswith(("exit=", "file=")), f"{page.name}:{block.line}: {mark}"
