"""Pass events to one plugin in a thread of its own, so that a hook that waits does not hold the run up.

The queue is bounded. What a hook is too slow for is dropped and counted.
"""

import threading
from collections import deque
from collections.abc import Callable

from bulkimg.model import (
    Adjusted,
    CanaryPassed,
    Event,
    Held,
    Paused,
    PlanMade,
    Reopened,
    Retrying,
    Settled,
    Started,
    Stopping,
    Summary,
)
from bulkimg.plugins.loading import HookFailed, Plugin

MOST = 10_000  # events and outcomes that wait for a hook
# What plugins observe (docs/reference/plugin-api.md). The others are about bulkimg's own files and messages.
OBSERVED = (
    PlanMade, CanaryPassed, Started, Settled, Retrying, Held, Reopened, Paused, Adjusted, Stopping, Summary,
)  # fmt: skip


class EventThread:
    """The events that wait for a plugin's hook, and the thread that calls it. The first event starts the thread."""

    def __init__(self, plugin: Plugin, most: int = MOST) -> None:
        self.plugin = plugin
        self.failure = ""  # what the hook raised; it is not called again
        self.dropped = 0  # events
        self._most = most
        self._waiting: deque[tuple[Event, int]] = deque()
        self._size = 0  # of what waits
        self._is_closed = self._is_over = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._on_end: Callable[[], None] = lambda: None

    def put(self, event: Event) -> None:
        """Add an event, or drop it where too many wait. It never waits."""
        size = len(event.outcomes) if isinstance(event, Settled) else 1
        with self._changed:
            if self.failure or self._is_closed:
                return
            # The end is never dropped, and one event may be larger than the queue.
            if self._waiting and self._size + size > self._most and not isinstance(event, Summary):
                self.dropped += 1
                return
            self._waiting.append((event, size))
            self._size += size
            self._changed.notify()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name=f"plugin {self.plugin.name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system allows no more threads
            self.failure, self._is_over = f"cannot observe: {error}", True

    def close(self, on_end: Callable[[], None]) -> None:
        """Take no more events. `on_end` is called when none waits any more, in the thread or here."""
        with self._changed:
            self._is_closed, self._on_end = True, on_end
            self._changed.notify()
            is_over = self._is_over or self._thread is None
        if is_over:
            on_end()

    @property
    def left(self) -> int:
        """Return how many events wait or are being observed."""
        with self._changed:
            return len(self._waiting)

    def _work(self) -> None:
        try:
            while (event := self._next()) is not None:
                self.plugin.call("bulkimg_event", event=event)
                self._done()
        except HookFailed as failed:
            with self._changed:
                self.failure = str(failed)
                self._waiting.clear()
        finally:
            with self._changed:
                self._is_over, on_end = True, self._on_end
            on_end()

    def _next(self) -> Event | None:
        """Wait for the next event. Returns None when there is none any more. It stays in the queue until it is done."""
        with self._changed:
            while not self._waiting:
                if self._is_closed:
                    return None
                self._changed.wait()
            return self._waiting[0][0]

    def _done(self) -> None:
        with self._changed:
            _, size = self._waiting.popleft()
            self._size -= size
