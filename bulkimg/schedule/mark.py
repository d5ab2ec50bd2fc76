"""Mark the files that schedule writes, so that `--list` tells what has changed since."""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

_BEGINS = "# X-Bulkimg: "


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a file comes from: the job file and its hash, the version of bulkimg, `--when`, and the hash of its own text."""

    job: str
    job_sha256: str
    version: str
    when: str
    kind: str  # systemd, cron or k8s
    text_sha256: str = ""


def marked(text: str, mark: Mark) -> str:
    """Return the text with the mark as its first line."""
    whole = asdict(mark) | {"text_sha256": _digest(text)}
    return f"{_BEGINS}{json.dumps(whole)}\n{text}"


def read_mark(text: str) -> Mark | None:
    """Return the mark of a text, or None if schedule did not write it."""
    first = text.partition("\n")[0]
    if not first.startswith(_BEGINS):
        return None
    try:
        found = json.loads(first.removeprefix(_BEGINS))
        mark = Mark(**found)
    except (ValueError, TypeError):
        return None
    return mark if all(isinstance(value, str) for value in asdict(mark).values()) else None


def drift(text: str, mark: Mark, version: str) -> list[str]:
    """Return what has changed since the file was written, in a few words each."""
    found = []
    if _digest(text.partition("\n")[2]) != mark.text_sha256:
        found.append("edited by hand")
    try:
        if digest_of(Path(mark.job)) != mark.job_sha256:
            found.append("the job file has changed since")
    except OSError:
        found.append("the job file is gone or cannot be read")
    if mark.version != version:
        found.append(f"written by bulkimg {mark.version}, this is {version}")
    return found


def digest_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
