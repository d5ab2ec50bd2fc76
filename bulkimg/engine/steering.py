"""Steer a running run: the orders of `bulkimg ctl`, the time limit, and the hours in which rows may start."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from bulkimg.engine.control import Order
from bulkimg.errors import Exit
from bulkimg.model import Adjusted, Event, Paused, Settled, Started
from bulkimg.pace import Pace
from bulkimg.values import Window
from bulkimg.words import clock_text, count, rate_text

LOOK_AT_THE_CLOCK = 20.0  # seconds; short, because clocks are set and summer time begins
BY_HAND = "bulkimg ctl pause"


class Steering:
    """Change the pace of a run, pause it, stop it, and report its status.

    `stop(exit_code, why)` stops the engine. `allow(rows)` raises UsageError if the process cannot have so many rows in
    flight. `keep(**options)` saves options that hold from now on, also in a process that resumes the run.
    """

    def __init__(
        self,
        pace: Pace,
        observe: Callable[[Event], None],
        stop: Callable[[Exit, str], None],
        allow: Callable[[int], None],
        keep: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
        parts: int = 1,
    ) -> None:
        self._pace = pace
        self._parts = parts  # of a shard: the kept rate is that of all shards
        self._observe = observe
        self._stop = stop
        self._allow = allow
        self._keep = keep
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._pending, self._begun = 0, clock()

    @property
    def settled(self) -> Counter[str]:
        """Return the rows that this process has settled since it began to send, by status."""
        return self._counts

    def watch(self, event: Event) -> None:
        """Take note of an event. The engine passes every event."""
        if isinstance(event, Started):
            self._counts.clear()
            self._pending, self._begun = event.pending, self._clock()
        elif isinstance(event, Settled):
            self._counts.update(outcome.status.value for outcome in event.outcomes)

    def obey(self, orders: list[Order]) -> dict[str, Any]:
        """Obey all orders in their sequence. Returns the status afterwards.

        Raises UsageError if one order is not possible; then none is obeyed.
        """
        for name, value in orders:
            if name == "concurrency":
                self._allow(value)
        for name, value in orders:
            match name:
                case "rate":
                    self._pace.rate.set(value)
                    self._observe(Adjusted("rate", rate_text(value)))
                    self._keep(rate=value * self._parts)
                case "concurrency":
                    self._pace.set_concurrency(value)
                    self._observe(Adjusted("concurrency", str(value)))
                    self._keep(concurrency=value)
                case "pause":
                    self.pause(BY_HAND)
                case "go":
                    self.go(BY_HAND)
                case "stop":
                    self._stop(Exit.INTERRUPTED, "stopped with bulkimg ctl stop")
        return self.status()

    def status(self) -> dict[str, Any]:
        """Return the present status as a JSON object. Times are seconds."""
        pace, limit = self._pace, self._pace.limit
        rate = pace.rate.per_second
        settled = self._counts.total()
        seconds = self._clock() - self._begun
        return {
            "schema": 1,
            "settled": settled,
            "pending": self._pending,
            "counts": dict(self._counts),
            "left_s": round((self._pending - settled) * seconds / settled, 1) if settled else None,
            "rate": "unlimited" if math.isinf(rate) else rate,
            "concurrency": limit.most,
            "concurrency_now": limit.value,
            "in_flight": limit.in_flight,
            "paused": pace.paused,
            "held_s": round(pace.breaker.remaining, 1),
            "waiting_for_server": pace.breaker.is_open,
            "baseline_s": round(limit.baseline, 4) if limit.baseline is not None else None,
        }

    def pause(self, why: str) -> None:
        if self._pace.pause(why):
            self._observe(Paused(self._pace.paused))

    def go(self, why: str) -> None:
        if self._pace.go(why):
            self._observe(Paused(self._pace.paused))

    @contextmanager
    def time_box(self, seconds: float | None) -> Iterator[None]:
        """Stop the run after so many seconds; with None, never."""
        if seconds is None:
            yield
            return
        why = f"the time limit is reached (--max-duration {seconds:g}s)"
        timer = asyncio.get_running_loop().call_later(seconds, self._stop, Exit.TIME_BOX, why)
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def within(
        self, window: Window, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> Iterator[None]:
        """Start rows only in these hours of the local clock, within the block. Rows in flight finish."""
        if not window.spans:
            yield
            return
        self._mind(window, now())
        minding = asyncio.ensure_future(self._keep_minding(window, now, sleep))
        try:
            yield
        finally:
            minding.cancel()

    async def _keep_minding(
        self, window: Window, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        while True:
            await sleep(min(LOOK_AT_THE_CLOCK, 60 - now() % 60))
            self._mind(window, now())

    def _mind(self, window: Window, now: float) -> None:
        wall = datetime.fromtimestamp(now).astimezone()
        change = self.go if window.is_open(wall.hour * 60 + wall.minute) else self.pause
        change(f"outside --window {window}")


def in_words(status: dict[str, Any]) -> str:
    """Return a status in one line."""
    rate = status["rate"] if status["rate"] == "unlimited" else rate_text(status["rate"])
    left = f", about {clock_text(status['left_s'])} left" if status["left_s"] is not None else ""
    said = [
        f"{status['settled']:,} of {count(status['pending'], 'row')} settled{left}",
        *(f"{number:,} {name}" for name, number in status["counts"].items() if number),
        f"rate {rate}",
        f"{count(status['in_flight'], 'row')} in flight, limit {status['concurrency_now']} (cap {status['concurrency']})",
    ]
    if status["paused"]:
        said.append(f"paused: {status['paused']}")
    if status["waiting_for_server"]:
        said.append(f"waiting for the server ({status['held_s']:g} s)")
    return "; ".join(said)
