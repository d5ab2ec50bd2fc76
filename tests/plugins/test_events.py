"""An event hook observes a run in a thread of its own. Nothing that it does changes the run."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bulkimg
from bulkimg.engine import plugging
from bulkimg.engine.plugins import load_plugins
from bulkimg.plugins.events import MOST, OBSERVED, EventThread
from tests.conftest import Server
from tests.plugins.conftest import Site

NOTES = """
import threading
seen, threads = [], set()
@hookimpl
def bulkimg_event(event):
    seen.append(event)
    threads.add(threading.current_thread())
"""
BLOCKS = """
import threading
go, seen = threading.Event(), []
@hookimpl
def bulkimg_event(event):
    go.wait(60)
    seen.append(event)
"""


def settled(rows: int) -> bulkimg.Settled:
    return bulkimg.Settled([bulkimg.Outcome(n, n + 1, "1" * 32, bulkimg.Status.UPDATED) for n in range(rows)])


def thread_of(site: Site, code: str, most: int = MOST) -> tuple[EventThread, Any]:
    """Return the thread of a plugin, and the plugin's module."""
    module = site.install("observer", code)
    return EventThread(load_plugins(["observer"]).loaded[0], most), site.module(module)


def ended(thread: EventThread) -> None:
    """Close a thread and wait for its end."""
    over = threading.Event()
    thread.close(over.set)
    assert over.wait(30)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_events_come_in_order_and_all_before_the_end(site: Site) -> None:
    thread, module = thread_of(site, NOTES)
    events = [bulkimg.Paused(str(number)) for number in range(500)]
    for event in events:
        thread.put(event)
    ended(thread)
    assert module.seen == events
    assert (thread.left, thread.dropped, thread.failure) == (0, 0, "")
    assert threading.current_thread() not in module.threads


def test_without_events_there_is_no_thread(site: Site) -> None:
    thread, _ = thread_of(site, NOTES)
    before = threading.active_count()
    ended(thread)
    assert threading.active_count() == before


def test_what_a_hook_is_too_slow_for_is_dropped_and_counted_but_for_the_end(site: Site) -> None:
    thread, module = thread_of(site, BLOCKS, most=10)
    large, summary = settled(50), bulkimg.Summary("r", "d", "t", 0, "", {}, ())
    for event in (large, settled(1), bulkimg.Paused("x"), summary):  # one event may be larger than the queue
        thread.put(event)
    assert (thread.left, thread.dropped) == (2, 2)
    module.go.set()
    ended(thread)
    assert module.seen == [large, summary]


def test_what_waits_is_bounded_by_its_outcomes(site: Site) -> None:
    thread, module = thread_of(site, BLOCKS, most=10)
    for _ in range(4):
        thread.put(settled(4))
    assert (thread.left, thread.dropped) == (2, 2)
    module.go.set()
    until(lambda: thread.left == 0)
    thread.put(settled(4))
    ended(thread)
    assert len(module.seen) == 3


@pytest.mark.parametrize("error", ["KeyError('x')", "SystemExit(0)"])
def test_a_hook_that_fails_is_not_called_again(site: Site, error: str) -> None:
    thread, module = thread_of(
        site, f"seen = []\n@hookimpl\ndef bulkimg_event(event):\n    seen.append(event)\n    raise {error}"
    )
    thread.put(bulkimg.Paused("one"))
    until(lambda: bool(thread.failure))
    thread.put(bulkimg.Paused("two"))
    ended(thread)
    assert (module.seen, thread.left) == ([bulkimg.Paused("one")], 0)
    assert thread.failure.startswith(f"bulkimg_event raised {error.partition('(')[0]}: ")


# -- whole runs ---------------------------------------------------------------------------------------------------------


def run(server: Server, place: Path, *plugins: str) -> list[Any]:
    """Run a change of some images. Returns the run's events, the summary last."""
    images = sorted(server.images())[:3]
    changes = [{"uuid": uuid, "name": f"{place.name} {number}"} for number, uuid in enumerate(images)]

    async def events() -> list[Any]:
        async with bulkimg.Run(
            changes,
            endpoint=server.url,
            credentials=bulkimg.Session(server.session),
            runs_dir=place / "runs",
            plugins=plugins,
            rate="unlimited",
        ) as going:
            return [event async for event in going]

    return asyncio.run(events())


def warnings_in(events: list[Any]) -> list[str]:
    return [f"{event.what}: {event.why}" for event in events if isinstance(event, bulkimg.PluginWarning)]


def test_a_plugin_observes_a_run_from_its_plan_to_its_summary(site: Site, server: Server, tmp_path: Path) -> None:
    name = site.install("observer", NOTES)
    events = run(server, tmp_path, "observer")
    module = site.module(name)
    assert module.seen == [event for event in events if isinstance(event, OBSERVED)]
    kinds = [type(event) for event in module.seen]
    assert (kinds[0], kinds[1], kinds[-1]) == (bulkimg.PlanMade, bulkimg.Started, bulkimg.Summary)
    assert sum(len(event.outcomes) for event in module.seen if isinstance(event, bulkimg.Settled)) == 3
    assert warnings_in(events) == []


def test_a_failing_observer_is_a_warning_and_changes_nothing(site: Site, server: Server, tmp_path: Path) -> None:
    module = site.install("fails", "@hookimpl\ndef bulkimg_event(event): raise OSError('no disk')", version="7")
    other = site.install("observer", NOTES)
    events = run(server, tmp_path, "fails", "observer")
    assert warnings_in(events) == [
        f"plugin fails (bulkimg-fails 7): bulkimg_event raised OSError: no disk ({module}.py:4); it observes nothing more"
    ]
    assert (events[-1].exit_code, events[-1].counts["updated"]) == (0, 3)
    assert isinstance(site.module(other).seen[-1], bulkimg.Summary)


def test_a_hook_that_never_returns_holds_no_run_up(
    site: Site, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugging, "LAST_EVENTS", 0.05)
    name = site.install("blocks", BLOCKS)
    events = run(server, tmp_path, "blocks")
    (warning,) = warnings_in(events)
    assert warning.startswith("plugin blocks (bulkimg-blocks 1.0): did not observe the last ")
    assert warning.endswith("events within 0.05 s")
    assert (events[-1].exit_code, events[-1].counts["updated"]) == (0, 3)
    site.module(name).go.set()


def test_a_credential_in_a_failure_is_hidden(site: Site, server: Server, tmp_path: Path) -> None:
    site.install("leaks", f"@hookimpl\ndef bulkimg_event(event): raise OSError('{server.session}')")
    (warning,) = warnings_in(run(server, tmp_path, "leaks"))
    assert "raised OSError: [hidden] (" in warning


def test_a_plan_is_not_observed_and_its_apply_is(site: Site, server: Server, tmp_path: Path) -> None:
    module = site.install("observer", NOTES)
    at: dict[str, Any] = {"credentials": bulkimg.Session(server.session), "runs_dir": tmp_path / "runs"}
    changes = [{"uuid": min(server.images()), "name": "planned"}]
    plan = bulkimg.plan(changes, endpoint=server.url, plugins=["observer"], **at)
    assert site.module(module).seen == []
    bulkimg.apply(plan.run_id, **at)
    assert [type(event) for event in site.module(module).seen] == [
        bulkimg.PlanMade,
        bulkimg.Started,
        bulkimg.Settled,
        bulkimg.Summary,
    ]
