"""Show a run while it runs: a bar, plain lines, JSON lines or nothing; all observers of the same events."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from bulkimg.cli import screen
from bulkimg.model import (
    GOOD,
    Action,
    CanaryPassed,
    Event,
    Held,
    NoControl,
    Paused,
    PlanCounts,
    PlanMade,
    ProcessLost,
    Reopened,
    Retrying,
    Settled,
    Started,
    Status,
    Stopping,
    Surveyed,
    Unreadable,
)
from bulkimg.settings import Settings

PLAIN_EVERY = 5.0  # seconds between two lines
SAY_AGAIN = 2.0  # a wait for the same reason is told again when it is so much longer than the one told last
_BAD = tuple(status for status in Status if status not in GOOD and status is not Status.UNPROCESSED)


class Tally:
    """Counts of what has been seen, and what follows from them. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = clock()
        self.pending = 0
        self.counts: Counter[Status] = Counter()
        self._waiting: dict[int, float] = {}
        self.held_until = 0.0

    def see(self, event: Event) -> None:
        if isinstance(event, Started):
            self._begun, self.pending = self._clock(), event.pending
        elif isinstance(event, Settled):
            self.counts.update(outcome.status for outcome in event.outcomes)
            for outcome in event.outcomes:
                self._waiting.pop(outcome.ordinal, None)
        elif isinstance(event, Retrying):
            self._waiting[event.ordinal] = event.after
        elif isinstance(event, Held):
            self.held_until = self._clock() + event.seconds
        elif isinstance(event, Reopened):
            self.held_until = 0.0

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def bad(self) -> str:
        """What is not well so far, by its name: `2 failed, 1 unknown`."""
        said = [f"{self.counts[status]:,} {status}" for status in _BAD if self.counts[status]]
        return ", ".join(said) or "0 failed"

    @property
    def retrying(self) -> int:
        return len(self._waiting)

    @property
    def rate(self) -> float:
        """Rows a second since the start."""
        return self.done / max(self._clock() - self._begun, 1e-3)

    @property
    def remaining(self) -> str:
        """Time to the end at this rate, as `1:02:03`."""
        if not self.done:
            return "-:--"
        minutes, seconds = divmod(round((self.pending - self.done) / self.rate), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

    @property
    def line(self) -> str:
        held = max(0.0, self.held_until - self._clock())
        waits = f", waits {held:.0f} s for the server" if held else ""
        return (
            f"{self.done:,}/{self.pending:,} rows, {self.rate:.1f}/s, {self.bad}, "
            f"{self.retrying} retrying, {self.remaining} left{waits}"
        )


def plan_line(counts: PlanCounts) -> str:
    """`plan: 412 update (platform 400, name 12), 3 unchanged, 1 conflict`."""
    said = [f"{count:,} {action}" for action, count in counts.actions.items() if count] or ["nothing to do"]
    if counts.actions[Action.UPDATE]:
        said[0] += f" ({', '.join(f'{name} {count:,}' for name, count in counts.fields.items())})"
    return f"plan: {', '.join(said)}"


class Progress(Protocol):
    """Watches events until it is closed."""

    def see(self, event: Event) -> None: ...
    def close(self) -> None: ...


class _Plain:
    """A line every few seconds, good in a log."""

    def __init__(self, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally, self._clock, self._last = tally, clock, clock()

    def see(self, event: Event) -> None:
        if isinstance(event, Settled) and self._clock() - self._last >= PLAIN_EVERY:
            self._last = self._clock()
            screen.note(self._tally.line, "progress")

    def close(self) -> None:
        if self._tally.pending:
            screen.note(self._tally.line, "progress")


class _Json:
    """A JSON line a second, and one at the end."""

    def __init__(self, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally, self._clock, self._last = tally, clock, clock()

    def see(self, event: Event) -> None:
        if isinstance(event, Settled) and self._clock() - self._last >= 1:
            self._last = self._clock()
            self._show()

    def _show(self) -> None:
        counts = {status.value: self._tally.counts[status] for status in Status if self._tally.counts[status]}
        document = {"event": "progress", "done": self._tally.done, "pending": self._tally.pending, "counts": counts}
        screen.note_json(document | {"rows_per_s": round(self._tally.rate, 1), "retrying": self._tally.retrying})

    def close(self) -> None:
        self._show()


class _Bar:
    """A bar on a terminal. Rich refreshes it ten times a second, whatever the number of events."""

    def __init__(self, tally: Tally) -> None:
        from rich import progress  # the other kinds do without rich
        from rich.console import Console

        self._tally = tally
        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[line]}"),
            console=Console(file=sys.stderr),
            transient=False,
        )
        self._task = self._bar.add_task("rows", total=None, line="")

    def see(self, event: Event) -> None:
        if isinstance(event, PlanMade | CanaryPassed):
            self._bar.stop()  # a question may follow, and a bar would swallow it
        elif isinstance(event, Started | Settled):
            self._bar.start()
        if isinstance(event, Started | Settled | Retrying | Held):
            tally = self._tally
            line = f"{tally.rate:.1f}/s  {tally.bad}  {tally.retrying} retrying  {tally.remaining} left"
            self._bar.update(self._task, total=tally.pending, completed=tally.done, line=line)

    def close(self) -> None:
        self._bar.stop()


class _Nothing:
    def see(self, event: Event) -> None:
        pass

    def close(self) -> None:
        pass


def _of_steering(event: Event) -> str:
    if isinstance(event, Paused):
        return f"paused: {event.why}; what is in flight finishes" if event.why else "goes on"
    if isinstance(event, NoControl):
        return f"bulkimg ctl cannot reach this run ({event.why})"
    if isinstance(event, ProcessLost):
        rest = f"{event.left} of its kind left" if event.left else "the run sends by itself from now on"
        if not event.was_there:
            return f"a process that was to send has not come up; {rest}"
        return f"a process that was sending has ended; what it had sent is asked about; {rest}"
    if isinstance(event, Stopping):
        return f"stopping: {event.why}; rows in flight finish, Ctrl-C ends at once"
    return ""


class Watcher:
    """The observer the commands hand to the engine: messages, and the kind of progress that was asked for."""

    def __init__(self, settings: Settings, *, tells_plan: bool = True) -> None:
        self._tells_plan = tells_plan
        self._json = settings.log_format == "json"
        self._verbose = settings.verbose
        self._tally = Tally()
        self._held: Held | None = None  # the last wait that was told
        self._said_at = time.monotonic()  # when a survey was last told of
        kind = settings.progress
        if kind == "auto":
            kind = "bar" if sys.stderr.isatty() else "plain"
        if kind == "bar" and (self._json or settings.quiet):
            kind = "json" if self._json else "none"
        kinds: dict[str, Callable[[], Progress]] = {
            "bar": lambda: _Bar(self._tally),
            "plain": lambda: _Plain(self._tally),
            "json": lambda: _Json(self._tally),
            "none": _Nothing,
        }
        self._progress = kinds[kind]()

    @property
    def has_begun(self) -> bool:
        """Whether rows have been sent, or could have been."""
        return self._tally.pending > 0

    def __call__(self, event: Event) -> None:
        self._tally.see(event)
        self._progress.see(event)
        if said := self._words(event):
            self._say(event, said)

    def _words(self, event: Event) -> str:
        if isinstance(event, PlanMade):
            return plan_line(event.counts) if self._tells_plan else ""
        if isinstance(event, Unreadable):
            return f"{event.kind} cannot be read ({event.why}): they are sent without a difference, and undo leaves them out"
        if isinstance(event, CanaryPassed):
            return f"canary: {event.rows:,} {'row' if event.rows == 1 else 'rows'} sent, all of them are fine"
        if isinstance(event, Surveyed) and event.images < event.of and self._is_time():
            return f"looked at {event.images:,} of {event.of:,} images"
        if isinstance(event, Started):
            return f"run {event.run_id}: {event.pending:,} of {event.rows:,} rows to send to {event.target}"
        if isinstance(event, Held) and self._is_news(event):
            self._held = event
            return f"{event.why}: nothing is sent for {event.seconds:.1f} s"
        if isinstance(event, Reopened):
            self._held = None
            return f"the server answers again, after {event.seconds:.0f} s"
        if isinstance(event, Retrying) and self._verbose:
            return f"image {event.uuid}: {event.code}, sent again in {event.after:.1f} s"
        return _of_steering(event)

    def _is_time(self) -> bool:
        """A survey of many images says now and then how far it is."""
        now = time.monotonic()
        if now - self._said_at < PLAIN_EVERY:
            return False
        self._said_at = now
        return True

    def _is_news(self, event: Held) -> bool:
        """Half an hour of outage is a few lines, not forty."""
        last = self._held
        return last is None or last.why != event.why or event.seconds >= SAY_AGAIN * last.seconds

    def _say(self, event: Event, text: str) -> None:
        screen.note(screen.one_line(text), type(event).__name__.lower())

    def close(self) -> None:
        self._progress.close()
