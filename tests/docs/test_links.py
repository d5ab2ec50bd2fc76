"""Relative links lead to existing pages, and the site's menu names every page."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))) if path.exists()]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """Return the text without its fenced blocks."""
    return _FENCED.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """Return what can follow the # of a link: headings as GitHub and Python-Markdown write them."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert path.is_relative_to(ROOT), f"{page.name}: {target} leaves the repository"
        assert path.is_relative_to(DOCS) or not page.is_relative_to(DOCS), f"{page.name}: {target} leaves the site"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}: there is no such heading"


def test_the_menu_names_every_page_and_no_other() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"[\w/-]+\.md", menu)
    assert len(named) == len(set(named))
    assert set(named) == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_plain_markdown(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(re.findall("^# ", prose(page), re.MULTILINE)) == 1, "one title"
    assert not re.search(r"^\s*<(?!https?:)[a-z!/]", prose(page), re.MULTILINE), "no HTML"
    assert all(len(line) <= 120 for line in prose(page).split("\n") if not line.startswith("|")), (
        "lines of 120 characters"
    )
    assert text.endswith("\n")
