"""Keep RESULTS.md: one section for each part of the bench, which replaces the part's last one."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
HEAD = (
    "# What was measured\n\nEach section says when, and which command prints it again; `make bench` runs them all.\n\n"
)


def machine() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}"


def keep(title: str, text: str) -> None:
    """Put the section into the file, in place of one with the same title, else at the end."""
    section = f"## {title}\n\n{text.strip()}\n"
    known = RESULTS.read_text("utf-8") if RESULTS.exists() else HEAD
    old = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    known = old.sub(lambda _: section + "\n", known) if old.search(known) else known.rstrip() + "\n\n" + section
    RESULTS.write_text(known.rstrip() + "\n", "utf-8")
