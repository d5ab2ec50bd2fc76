"""Where this copy of bulkimg comes from."""

import json
import subprocess
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "zstack-bulkimg"


def commit() -> str:
    """The commit, as far as it is known: of the checkout that this is, or that was installed from; "" otherwise."""
    root = Path(__file__).parent.parent
    if (root / ".git").exists():
        return _git(root)
    try:
        origin = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return ""
    return str(json.loads(origin or "{}").get("vcs_info", {}).get("commit_id", ""))[:12]


def _git(root: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
