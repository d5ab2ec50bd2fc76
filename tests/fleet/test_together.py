"""What processes that ran at the same time did in each second, as the timeline of one run."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bulkimg
from bulkimg.ledger.merging import together
from bulkimg.model import Sample
from tests.conftest import Server

MOMENTS = st.integers(0, 300)


def sample(at: float, seconds: int = 1, puts: int = 1, rate: float | None = 5.0) -> Sample:
    return Sample(at, seconds, {"put": puts}, {"updated": puts}, {3: puts}, 2, 4, rate, 10)


def test_the_same_second_of_two_processes_is_one() -> None:
    (found,) = together([sample(7.0, puts=3), sample(7.0, puts=4)])
    assert found == Sample(7.0, 1, {"put": 7}, {"updated": 7}, {3: 7}, 4, 8, 10.0, 20)


def test_one_process_without_a_limit_is_a_run_without_a_limit() -> None:
    (found,) = together([sample(7.0), sample(7.0, rate=None)])
    assert found.rate is None


def test_seconds_of_which_another_process_has_a_minute_are_in_the_minute() -> None:
    found = list(together([sample(60.0, 60, 9), sample(61.0), sample(119.0), sample(120.0), sample(121.0)]))
    assert [(one.at, one.seconds, one.requests["put"]) for one in found] == [(60, 60, 11), (120, 1, 1), (121, 1, 1)]


@given(st.lists(MOMENTS), st.lists(MOMENTS), st.lists(st.integers(0, 3), unique=True))
def test_nothing_is_lost_and_all_is_in_order(one: list[int], other: list[int], minutes: list[int]) -> None:
    given = [sample(float(at)) for at in sorted({*one})] + [sample(float(at)) for at in sorted({*other})]
    given += [sample(60.0 * at, 60, 5) for at in minutes]
    found = list(together(given))
    assert sum(each.requests["put"] for each in found) == sum(each.requests["put"] for each in given)
    assert sum((Counter(each.latency) for each in found), Counter()) == sum(
        (Counter(each.latency) for each in given), Counter()
    )
    ends = [(each.at, each.at + each.seconds) for each in found]
    assert all(end <= begin for (_, end), (begin, _) in pairwise(ends)), "no two overlap"


def test_a_shard_in_the_library(server: Server, tmp_path: Path) -> None:
    images = sorted(server.images())[:8]
    rows = [{"uuid": uuid, "description": "by a program"} for uuid in images]
    session = bulkimg.Session(server.session)
    done = [
        bulkimg.run(rows, endpoint=server.url, credentials=session, runs_dir=tmp_path, rate=4000, shard=f"{at}/2")
        for at in (1, 2)
    ]
    assert sorted(row.uuid for result in done for row in result.rows()) == images
    with pytest.raises(bulkimg.UsageError, match="shard is the run's own"):
        bulkimg.resume(done[0].run_id, runs_dir=tmp_path, credentials=session, shard="2/2")
    with pytest.raises(bulkimg.UsageError, match="is not a shard; write I/N"):
        bulkimg.run(rows, endpoint=server.url, credentials=session, runs_dir=tmp_path, shard="3")
