"""Describe the events of a run: one sentence each, the same on the command line and in the library's log."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bulkimg.model import (
    Action,
    Adjusted,
    CanaryPassed,
    Event,
    Held,
    MetricsFailed,
    NoControl,
    NotifyFailed,
    Paused,
    PlanCounts,
    PlanMade,
    PluginWarning,
    Reopened,
    ReportFailed,
    Retrying,
    Started,
    Stopping,
    Surveyed,
    Unreadable,
    WorkerChanged,
)
from bulkimg.words import count, rate_text

SURVEY_EVERY = 5.0  # seconds between two sentences about the survey
SAY_AGAIN = 2.0  # a wait for the same reason is reported again when it is this many times longer
_WARNINGS = (Held, MetricsFailed, NoControl, NotifyFailed, PluginWarning, ReportFailed, Stopping, Unreadable)
_ACTIONS = {Action.UPDATE: "to update"}


def plan_line(counts: PlanCounts) -> str:
    """Return `plan: 412 to update (platform 400, name 12), 3 unchanged, 1 conflict`."""
    said = [f"{number:,} {_ACTIONS.get(Action(name), name)}" for name, number in counts.actions.items() if number]
    if counts.actions[Action.UPDATE]:
        said[0] += f" ({', '.join(f'{name} {number:,}' for name, number in counts.fields.items())})"
    return f"plan: {', '.join(said) or 'nothing to do'}"


MOST_WORKERS = 20  # lines


def worker_lines(workers: Sequence[Mapping[str, Any]], most: int = MOST_WORKERS) -> Iterator[str]:
    """Yield a line for each worker of a cluster, those that work first, and how many are left out."""
    found = sorted(workers, key=lambda worker: worker["state"] != "working")
    for worker in found[:most]:
        rows, rate = count(worker["rows"], "row"), worker["rate"]
        said = f"worker {worker['name']}: {rows}, {count(worker['requests'], 'request')}"
        if worker["state"] == "working":
            yield f"{said}, {worker['in_flight']} in flight, {'no cap' if rate is None else f'cap {rate_text(rate)}'}"
        else:
            yield f"{said}, {worker['state']}"
    if len(found) > most:
        yield f"… and {len(found) - most} more workers"


def level(event: Event) -> int:
    """Return the event's level for `logging`."""
    if isinstance(event, Retrying):
        return logging.DEBUG
    return logging.WARNING if isinstance(event, _WARNINGS) else logging.INFO


class Narrator:
    """Turn events into sentences. `clock` is monotonic seconds.

    Repeated waits and the progress of a survey are reported only now and then.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: Held | None = None  # the last wait that was reported
        self._surveyed_at = clock()

    def sentence(self, event: Event) -> str:
        """Return one sentence, or "" for an event that needs none."""
        if isinstance(event, Surveyed):
            return f"read {event.images:,} of {count(event.of, 'image')}" if self._is_time(event) else ""
        if isinstance(event, Held):
            return f"{event.why}; sending pauses for {event.seconds:.1f} s" if self._is_news(event) else ""
        if isinstance(event, Reopened):
            self._held = None
        return _sentence(event)

    def _is_time(self, event: Surveyed) -> bool:
        if event.images >= event.of or self._clock() - self._surveyed_at < SURVEY_EVERY:
            return False
        self._surveyed_at = self._clock()
        return True

    def _is_news(self, event: Held) -> bool:
        """Return whether to report the wait. Half an hour of outage gives a few sentences, not forty."""
        last = self._held
        if last is not None and last.why == event.why and event.seconds < SAY_AGAIN * last.seconds:
            return False
        self._held = event
        return True


def _sentence(event: Event) -> str:
    match event:
        case PlanMade(counts):
            return plan_line(counts)
        case Unreadable(kind, why):
            return (
                f"{kind} cannot be read ({why}): rows that set them are sent without a diff, and undo leaves them out"
            )
        case CanaryPassed(rows):
            return f"canary: {rows:,} of {count(rows, 'row')} updated"
        case Started():
            return f"run {event.run_id}: sending {event.pending:,} of {count(event.rows, 'row')} to {event.target}"
        case Reopened(seconds):
            return f"the server answers again after {seconds:.0f} s; sending resumes"
        case Retrying():
            return f"image {event.uuid}: {event.code}; retry in {event.after:.1f} s"
    return _of_control(event)


def _of_control(event: Event) -> str:
    match event:
        case Paused(why):
            return f"paused ({why}): rows in flight finish" if why else "pause ended: sending resumes"
        case Adjusted(what, value):
            return f"{what} is now {value} (bulkimg ctl)"
        case NoControl(why):
            return f"bulkimg ctl is not available for this run: {why}"
        case NotifyFailed(what, why) | MetricsFailed(what, why) | ReportFailed(what, why) | PluginWarning(what, why):
            return f"{what}: {why}; the run and its exit code are not affected"
        case WorkerChanged(worker, what):
            return f"worker {worker} {what}"
        case Stopping(why):
            return f"stopping ({why}): waiting for rows in flight"
    return ""
