"""Pass the events of one run to its plugins. Without any, every method does nothing."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from bulkimg.credentials import Credentials
from bulkimg.engine.attending import secrets_of
from bulkimg.engine.plugins import Plugins, environment_redactor
from bulkimg.model import Event, Observer, PluginWarning, Summary
from bulkimg.words import count

if TYPE_CHECKING:
    from bulkimg.plugins.events import EventThread

LAST_EVENTS = 5.0  # most seconds for the events that wait when a run has ended


class Plugging:
    """The event hooks of one run. A plan is not observed: it is no run."""

    def __init__(self, plugins: Plugins, observe: Observer, credentials: Credentials, *, plan_only: bool) -> None:
        self._observe = observe
        self._redactor = environment_redactor()
        self._redactor.add_secret(*secrets_of(credentials))
        self._remarks = () if plan_only else plugins.remarks
        self._threads: list[EventThread] = [] if plan_only else _threads(plugins)

    def begin(self) -> None:
        """Say how the plugins differ from those that the run began with."""
        for what, why in self._remarks:
            self._observe(PluginWarning(what, why))

    @property
    def is_watching(self) -> bool:
        """Return whether a plugin observes events."""
        return bool(self._threads)

    def watch(self, event: Event) -> None:
        """Pass an event on. The engine passes every event if `is_watching`."""
        self._pass(event)

    async def end(self, summary: Summary | None) -> None:
        """Pass the end on, and wait for the hooks, but not for long."""
        if not self._threads:
            return
        if summary:
            self._pass(summary)
        over, loop, left = asyncio.Event(), asyncio.get_running_loop(), len(self._threads)

        def one_is_over() -> None:
            nonlocal left
            left -= 1
            if not left:
                over.set()

        def tell() -> None:
            with suppress(RuntimeError):  # nothing waits any more
                loop.call_soon_threadsafe(one_is_over)

        for thread in self._threads:
            thread.close(tell)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_EVENTS):
                await over.wait()
        for thread in self._threads:
            self._warn(thread)
        self._threads = []

    def _pass(self, event: Event) -> None:
        from bulkimg.plugins.events import OBSERVED

        if not isinstance(event, OBSERVED):
            return
        for thread in list(self._threads):
            thread.put(event)
            if thread.failure:
                self._threads.remove(thread)
                self._warn(thread)

    def _warn(self, thread: "EventThread") -> None:
        """Say what went wrong with a plugin, if anything did."""
        found = []
        if thread.failure:
            found.append(f"{thread.failure}; it observes nothing more")
        elif left := thread.left:
            found.append(f"did not observe the last {count(left, 'event')} within {LAST_EVENTS:g} s")
        if thread.dropped:
            found.append(f"is slower than the run: {count(thread.dropped, 'event')} left out")
        for why in found:
            self._observe(PluginWarning(thread.plugin.label, self._redactor.text(why)))


def _threads(plugins: Plugins) -> "list[EventThread]":
    if not plugins.loaded:
        return []
    from bulkimg.plugins.events import EventThread  # imported only now: most runs have no plugin

    return [EventThread(plugin) for plugin in plugins.loaded if "bulkimg_event" in plugin.hooks]
