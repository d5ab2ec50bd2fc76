"""`import bulkimg`: the same engine, async, without printing."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast, get_args

import pytest

import bulkimg
from tests.conftest import Server, sandbox_process
from tests.windows import most_within


async def test_a_run_is_a_stream_of_events_and_a_summary(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = [{"uuid": uuid, "name": f"lib-{n}"} for n, uuid in enumerate(sorted(server.images())[:40])]
    credentials = bulkimg.Session(server.session)
    run = bulkimg.Run(
        changes,
        credentials=credentials,
        endpoint=server.url,
        rate="unlimited",
        runs_dir=tmp_path,
    )
    settled = [outcome async for event in run if isinstance(event, bulkimg.Settled) for outcome in event.outcomes]
    assert {(outcome.status, outcome.uuid) for outcome in settled} == {
        (bulkimg.Status.UPDATED, c["uuid"]) for c in changes
    }
    assert run.summary is not None
    assert (run.summary.exit_code, run.summary.counts["updated"]) == (0, 40)
    assert capfd.readouterr() == ("", "")


def test_every_event_has_a_public_name() -> None:
    kinds = get_args(bulkimg.Event)
    assert len(kinds) > 10
    assert {kind.__name__ for kind in kinds} <= set(bulkimg.__all__)
    assert all(getattr(bulkimg, kind.__name__) is kind for kind in kinds)


async def test_a_refused_manifest_raises_with_all_its_problems(tmp_path: Path, server: Server) -> None:
    run = bulkimg.Run(
        [{"uuid": "x", "name": "a"}, {"uuid": "0" * 32, "platform": "Linx"}],
        credentials=bulkimg.Session("s"),
        endpoint=server.url,
        runs_dir=tmp_path,
    )
    with pytest.raises(bulkimg.ManifestRefused) as refused:
        await anext(aiter(run))
    assert [problem.code for problem in refused.value.problems] == ["BAD_UUID", "BAD_VALUE"]


async def test_leaving_the_loop_stops_the_run_and_loses_nothing(tmp_path: Path, server: Server) -> None:
    changes = [{"uuid": uuid, "name": "left"} for uuid in sorted(server.images())[:100]]
    run = bulkimg.Run(
        changes, credentials=bulkimg.Session(server.session), endpoint=server.url, rate="50/s", runs_dir=tmp_path
    )
    events = cast(AsyncGenerator[bulkimg.Event, None], run.__aiter__())
    async for event in events:
        if isinstance(event, bulkimg.Settled):
            break
    await events.aclose()
    (directory,) = tmp_path.iterdir()
    results = (directory / "results.jsonl").read_text().splitlines()
    assert len(results) == 100
    assert not any('"unknown"' in line for line in results)


async def test_rate_and_concurrency_change_while_it_runs(tmp_path: Path) -> None:
    with sandbox_process(
        "--images", "80", "--dialect", "documented", "--workers", "100", "--service-time", "60"
    ) as slow:
        changes = [{"uuid": uuid, "name": "live"} for uuid in slow.images()]
        run = bulkimg.Run(
            changes,
            credentials=bulkimg.Session(slow.session),
            endpoint=slow.url,
            runs_dir=tmp_path,
            rate="unlimited",
            concurrency=1,
        )
        with pytest.raises(bulkimg.UsageError):
            _ = run.pace
        settled = 0
        async for event in run:
            settled += len(event.outcomes) if isinstance(event, bulkimg.Settled) else 0
            if 5 <= settled < 40:
                run.pace.set_concurrency(20)
            if settled >= 40:
                run.pace.set_concurrency(1)
        times = [put["at"] for put in slow.puts()]
    # One PUT takes 60 ms, so more than two within 60 ms are only possible after the change.
    assert 2 < most_within(0.06, times) <= 40
    assert run.summary is not None
    assert run.summary.counts["updated"] == 80


def test_importing_the_library_opens_nothing() -> None:
    assert set(bulkimg.__all__) >= {"Run", "Session", "Account", "AccessKey", "Summary", "Settled"}
    assert all(hasattr(bulkimg, name) for name in bulkimg.__all__)
