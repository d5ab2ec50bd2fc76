"""A run in time: bars on an axis of work, waits, marks, and pictures that say their numbers in words."""

from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkimg.model import RunEvent, Sample
from bulkimg.report import charts
from bulkimg.report.timeline import GAP, KINDS, MOST_BINS, MOST_MARKS, timeline

BEGUN = 1_700_000_000.0
SVG = "{http://www.w3.org/2000/svg}"


def sample(at: float, *, puts: int = 10, rate: float | None = 200.0, seconds: int = 1, limit: int = 16) -> Sample:
    return Sample(BEGUN + at, seconds, {"put": puts}, {"updated": puts}, {12: puts}, 4, limit, rate, 0)


def event(at: float, kind: str, text: str = "") -> RunEvent:
    return RunEvent(BEGUN + at, kind, text or kind)


def test_a_run_without_a_request_has_no_time() -> None:
    assert timeline([], [event(0, "planmade")]) is None


def test_one_second_still_shows() -> None:
    found = timeline([sample(0)], [])
    assert found is not None
    assert [one.values["put"] for one in found.bins] == [10.0]


def test_seconds_without_a_request_are_bars_of_nothing() -> None:
    found = timeline([sample(0), sample(5)], [])
    assert found is not None
    assert [one.values["put"] for one in found.bins] == [10.0, 0, 0, 0, 0, 10.0]
    assert [one.values["cap"] for one in found.bins] == [200.0] * 6


@settings(deadline=None)  # a busy machine may stop for longer
@given(st.lists(st.tuples(st.integers(1, 4000), st.integers(0, 50)), min_size=1, max_size=60))
def test_bars_are_few_and_lose_no_request(steps: list[tuple[int, int]]) -> None:
    samples, at = [], 0
    for step, puts in steps:
        samples.append(sample(at, puts=puts))
        at += step
    found = timeline(samples, [])
    assert found is not None
    assert len(found.bins) <= MOST_BINS
    sent = sum((one.values["put"] or 0) * one.seconds for one in found.bins)
    assert sent == pytest.approx(sum(puts for _, puts in steps))


def test_long_times_without_a_request_are_cut_out() -> None:
    found = timeline([sample(0), sample(1), sample(90_000), sample(90_001)], [])
    assert found is not None
    assert found.seconds < 2 * GAP
    assert [text for _, text in found.frame.breaks] == ["24:59:58 without a request"]


def test_an_outage_is_not_cut_out() -> None:
    """The circuit breaker asks at least every 75 s, a little more with its spread."""
    found = timeline([sample(at) for at in range(0, 1800, 90)], [])
    assert found is not None
    assert found.frame.breaks == []


def test_waits_are_shaded_to_their_end() -> None:
    events = [event(2, "held"), event(4, "held"), event(7, "reopened"), event(8, "paused", "paused (x)")]
    found = timeline([sample(at) for at in range(11)], events)
    assert found is not None
    assert found.frame.waits == [(2.0, 7.0), (8.0, 11.0)]
    assert found.waited == 8.0
    assert [line.kind for line in found.waits] == ["held", "held", "reopened"]


def test_a_wait_that_a_killed_process_left_ends_with_its_successor() -> None:
    events = [event(1, "started"), event(2, "held"), event(5, "lost"), event(6, "started")]
    found = timeline([sample(at) for at in range(11)], events)
    assert found is not None
    assert found.frame.waits == [(2.0, 5.0)]


def test_marks_have_the_numbers_of_the_list() -> None:
    events = [event(0, "started", "sending"), event(2, "adjusted", "rate"), event(3, "started", "sending the rest")]
    found = timeline([sample(at) for at in range(5)], events)
    assert found is not None
    assert [(mark.at, mark.number, mark.text) for mark in found.frame.marks] == [
        (2.0, 1, "rate"),
        (3.0, 2, "resumed: sending the rest"),
    ]
    assert [line.number for line in found.lines] == [None, 1, 2]


def test_marks_are_few() -> None:
    found = timeline([sample(at) for at in range(99)], [event(at, "adjusted") for at in range(99)])
    assert found is not None
    assert len(found.frame.marks) == MOST_MARKS
    assert len(found.lines) == 99


def drawn(bins: Sequence[charts.Bin], series: Sequence[str], *, cap: str = "") -> ET.Element:
    frame = charts.Frame(10.0, [(1.0, 2.0)], [charts.Mark(3.0, 1, "<rate>")], [(5.0, "a break")])
    return ET.fromstring(str(charts.stacked(frame, bins, series, cap=cap, about="It <says> so.", title="A & B")))


def test_a_picture_is_sound_svg_that_says_what_it_shows() -> None:
    bins = [charts.Bin(float(at), 1.0, {kind: 1.0 for kind in KINDS} | {"cap": 9.0}) for at in range(10)]
    svg = drawn(bins, KINDS, cap="cap")
    assert svg.get("role") == "img"
    assert svg.findtext(f"{SVG}title") == "A & B"
    assert svg.findtext(f"{SVG}desc") == "It <says> so."
    assert not [one for one in svg.iter() if one.get("style") or one.get("class")], "a policy may forbid styles"
    assert any(one.text == "<rate>" for one in svg.iter(f"{SVG}title"))


def test_a_bar_is_as_high_as_its_value() -> None:
    svg = drawn([charts.Bin(0.0, 5.0, {"put": 50.0}), charts.Bin(5.0, 5.0, {"put": 100.0})], ["put"])
    path = next(one.get("d") or "" for one in svg.iter(f"{SVG}path"))
    bars = [
        [float(n) for n in bar.replace("M", "").replace("V", " ").replace("H", " ").split()]
        for bar in path.split("z")[:-1]
    ]
    heights = [bar[1] - bar[2] for bar in bars]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)


def test_a_cap_far_above_what_was_sent_does_not_flatten_the_bars() -> None:
    svg = drawn([charts.Bin(0.0, 10.0, {"put": 10.0, "cap": 1000.0})], ["put"], cap="cap")
    path = next(one.get("d") or "" for one in svg.iter(f"{SVG}path") if one.get("fill") == charts.PALETTE["put"])
    low, high = float(path[1:].split(" ")[1].split("V")[0]), float(path.split("V")[1].split("H")[0])
    assert low - high > 50


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0"), (0.00085, "850 µs"), (0.012, "12 ms"), (0.9999, "1 s"), (3.4, "3.4 s"), (120.0, "120 s")],
)
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert charts.duration(seconds) == text


def test_one_slow_second_does_not_flatten_the_others() -> None:
    frame = charts.Frame(20.0, [], [], [])
    bins = [charts.Bin(float(at), 1.0, {"p50": 15.0 if at == 7 else 0.01}) for at in range(20)]
    svg = ET.fromstring(str(charts.lines(frame, bins, ["p50"], about="", title="")))
    assert "20 ms" in [one.text for one in svg.iter(f"{SVG}text")]


def test_numbers_of_marks_at_one_time_do_not_cover_each_other() -> None:
    frame = charts.Frame(10.0, [], [charts.Mark(5.0, number, "x") for number in (1, 2, 3)], [])
    svg = ET.fromstring(str(charts.stacked(frame, [charts.Bin(0.0, 10.0, {"put": 1.0})], ["put"], about="", title="")))
    places = [float(one.get("cx") or 0) for one in svg.iter(f"{SVG}circle")]
    assert all(later - earlier >= 14 for earlier, later in pairwise(places))
