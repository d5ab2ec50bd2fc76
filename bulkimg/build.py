"""Find the commit that this copy of bulkimg was made from."""

import json
import subprocess
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "zstack-bulkimg"


def commit() -> str:
    """Return the commit of this checkout or of the installed package, or "" if it is not known."""
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
