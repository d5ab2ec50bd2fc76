"""Compose what a message says: what happened, to how many, why, and the next command.

Messages leave this machine, so they hold no value of a row unless the rule asks for rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkimg.errors import Exit
from bulkimg.model import Status, iso_utc
from bulkimg.notifications import NotifyOn
from bulkimg.words import count

Document = Mapping[str, Any]  # summary.json, or the part of it that is known when a run starts
MOST_TEXT = 90_000  # bytes; healthchecks keeps 100 kB
_STOPPED = frozenset({Exit.ERROR_LIMIT, Exit.TARGET, Exit.TIME_BOX, Exit.INTERRUPTED, Exit.TERMINATED})
# The reason of a failed canary ends with the message of a row, which may quote the row's values.
_CANARY = re.compile(
    r"(canary rows? did not succeed; the first is in line \d+: \w+): .*(; nothing else was sent)$", re.S
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `kind` is the type of the webhook, `data` its content."""

    kind: str
    title: str
    text: str
    data: Document
    at: float  # seconds since the epoch

    @property
    def body(self) -> Document:
        """Return the webhook's JSON object."""
        return {"type": self.kind, "timestamp": iso_utc(self.at), "data": self.data}


def event_of(summary: Document, before: int | None, asked: Sequence[NotifyOn]) -> NotifyOn | None:
    """Return the first event that a rule asks for and that this end is. `before` is the job's last exit code."""
    counts, code = summary.get("counts", {}), summary["exit_code"]
    happened: dict[NotifyOn, bool] = {
        "stopped": code in _STOPPED,
        "failed": code != Exit.OK,
        "recovered": code == Exit.OK and before not in (None, Exit.OK) and not summary.get("undo_of"),
        "changed": bool(counts.get(Status.UPDATED, 0) + counts.get(Status.DRIFTED, 0)),
        "always": True,
    }
    return next((event for event, is_so in happened.items() if is_so and event in asked), None)


def started(document: Document, job: str, at: float) -> Message:
    """Say that a run starts."""
    text = f"run {document['run_id']}{_of(job)} starts: {count(document['rows_to_do'], 'row')} to {document['target']}"
    return Message("run.started", f"bulkimg{_named(job)}: started", clean(text), {**document, "job": job}, at)


def finished(summary: Document, job: str, event: str, rows: Sequence[Document], at: float) -> Message:
    """Say how a run ended. `rows` are the first rows that are not fine, if the rule asks for rows."""
    shown = {**(summary if rows else without_values(summary)), "job": job, "event": event}
    if rows:
        shown["first_rows"] = list(rows)
    word = {"always": "finished"}.get(event, event)
    title = f"bulkimg{_named(job)}: {word}, {_counts(summary)}"
    return Message("run.finished", clean(title), _cut("\n".join(map(clean, _lines(shown, job)))), shown, at)


def tested(job: str, at: float) -> Message:
    """Say that this is a test."""
    text = "This is a test of bulkimg notify --test. No run has started or ended."
    return Message("notify.test", f"bulkimg{_named(job)}: test message", text, {"job": job, "message": text}, at)


def without_values(summary: Document) -> Document:
    """Return the summary without texts that may quote a row or an image."""
    causes = [
        {**cause, "message": "", "hint": "" if cause["status"] == Status.INVALID else cause["hint"]}
        for cause in summary.get("causes", ())
    ]
    return {**summary, "causes": causes, "reason": _CANARY.sub(r"\1\2", summary.get("reason", ""))}


def clean(text: str) -> str:
    """Return one line of text without characters that a terminal or a log obeys."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _lines(summary: Document, job: str) -> list[str]:
    seconds = f" after {summary['duration_s']:.0f} s" if summary.get("duration_s") else ""
    lines = [f"run {summary['run_id']}{_of(job)} on {summary['target']}: exit code {summary['exit_code']}{seconds}"]
    lines.append(_counts(summary))
    lines += [f"stopped: {summary['reason']}"] if summary.get("reason") else []
    lines += [_cause(cause) for cause in summary.get("causes", ())[:10]]
    for row in summary.get("first_rows", ()):
        lines.append(
            f"line {row['line']}: image {row['uuid']}: {row['status']} {row['code']} {row['message']}".rstrip()
        )
    by = summary.get("by") or {}
    where = f"{by['host']}:" if by.get("host") else ""
    lines.append(f"results: {where}{Path(summary['directory']).absolute()}")
    lines += [f"next: {summary['next']}"] if summary.get("next") else []
    return lines


def _cause(cause: Document) -> str:
    why = " ".join(part for part in (cause["code"], cause["message"]) if part)
    hint = f" ({cause['hint']})" if cause["hint"] else ""
    first = "in" if cause["rows"] == 1 else "first in"
    return f"{cause['rows']:,} {cause['status']}: {why or 'no code'}, {first} line {cause['first_line']}{hint}"


def _counts(summary: Document) -> str:
    if (counts := summary.get("counts")) is None:
        return f"exit code {summary['exit_code']}"
    return ", ".join(f"{counts[status]:,} {status}" for status in Status if counts.get(status)) or "no rows"


def _named(job: str) -> str:
    return f" {clean(job)}" if job else ""


def _of(job: str) -> str:
    return f" of job {job}" if job else ""


def _cut(text: str) -> str:
    return text.encode()[:MOST_TEXT].decode("utf-8", "ignore")
