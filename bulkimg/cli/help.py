"""`bulkimg help`: print the manual's pages offline, from the same text as docs/."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bulkimg.cli import screen
from bulkimg.cli.main import COMMANDS, app
from bulkimg.cli.options import Flags, with_options
from bulkimg.errors import UsageError
from bulkimg.values import nearest

KINDS = ("tutorial", "how-to", "reference", "explanation")
_PACKAGE = Path(__file__).parent.parent


def topics() -> Mapping[str, Path]:
    """Return every page by its topic, in the manual's order. Raises UsageError if this copy has no manual."""
    places = (_PACKAGE / "manual", _PACKAGE.parent / "docs")  # of a wheel, of a checkout
    found = {page.stem: page for place in places for kind in KINDS for page in sorted((place / kind).glob("*.md"))}
    if not found:
        raise UsageError("this copy of bulkimg has no manual; install it from its wheel or from a checkout")
    return found


def complete_topics(incomplete: str) -> list[tuple[str, str]]:
    """Complete topics for the shell."""
    return [(name, _title(page)) for name, page in topics().items() if name.startswith(incomplete)]


@with_options()
def command(
    flags: Flags,
    topic: Annotated[
        str, typer.Argument(metavar="[TOPIC]", help="A page or a command.", autocompletion=complete_topics)
    ] = "",
) -> None:
    """Without a topic, lists them."""
    if not topic:
        _list()
    elif page := topics().get(topic):
        _show(page)
        if topic in COMMANDS:  # results is both
            screen.note(f"the command of this name: bulkimg {topic} --help")
    elif topic in COMMANDS:
        app([topic, "--help"], prog_name="bulkimg", standalone_mode=False)
    else:
        raise UsageError(
            f"there is no topic {topic!r}{nearest(topic, [*topics(), *COMMANDS], whole=False)}; bulkimg help lists them"
        )


def _list() -> None:
    for kind in KINDS:
        screen.out(f"{kind.capitalize()}:")
        pages = [(f"  {name}", _title(page)) for name, page in topics().items() if page.parent.name == kind]
        screen.out(screen.table(pages))
    screen.note("read one with: bulkimg help TOPIC")


def _title(page: Path) -> str:
    with page.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()


def _show(page: Path) -> None:
    """Print a page, formatted on a terminal and as Markdown elsewhere."""
    text = page.read_text("utf-8")
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        screen.out(text.rstrip("\n"))
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console(width=min(100, Console().width)).print(Markdown(text, hyperlinks=False))
