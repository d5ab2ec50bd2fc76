"""report.html as a file and in a real browser: order, sizes, hostile names, without scripts, styles or a network."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from bulkimg.ledger import Ledger, RunDirectory, claims, timeline
from bulkimg.model import Outcome, RunEvent, Sample, Status
from bulkimg.report.run_page import pages, report, write_report
from tests.report.test_plan_page import HOSTILE, make_plan

BEGUN = 1_764_000_000.0
# Jenkins' default for archived pages: no script, no style, nothing from elsewhere.
STRICT = "sandbox; default-src 'none'; img-src 'self'; style-src 'self';"


def make_run(place: Path, rows: int = 60, *, seconds: int = 30, wide: bool = False, **meta: Any) -> Ledger:
    """Make a run of which every fifth row failed for one of three causes."""
    long = "x" * 4000 if wide else ""
    ledger = make_plan(
        place,
        rows,
        settings={"endpoint": "http://node:8080", "base_path": "/zstack", "tags_mode": "add", "job_name": "nightly"},
        run_id=place.name,
        version="9.9",
        sha256="ab" * 32,
        by={"user": "ada", "host": "desk", "uid": 1},
        note=f"CHG-17 {HOSTILE}",
        started_at=BEGUN,
        ended_at=BEGUN + seconds,
        exit_code=1,
        next=f"bulkimg retry {place.name}",
        **{"state": "done", **meta},
    )
    ledger.set_meta(**{"state": "done", **meta})
    with ledger.transaction():
        last, codes = 0, ("SYS.1006", "SYS.1007", "HTTP_500")
        while batch := claims.claim(ledger, last, 1000, lambda: "c" * 32, BEGUN, None):
            last = batch[-1].ordinal
            claims.settle(ledger, [_outcome(item, codes, long) for item in batch])
    samples = [
        Sample(
            BEGUN + at,
            1,
            {"put": 40, "poll": 20},
            {"updated": 30, "failed": 9},
            {10: 30, 14: 9, 20: 1},
            8,
            16,
            100.0,
            0,
        )
        for at in range(seconds)
    ]
    events = [
        RunEvent(BEGUN, "started", "sending"),
        RunEvent(BEGUN + 5, "held", f"HTTP_500 {HOSTILE}"),
        RunEvent(BEGUN + 9, "reopened", "the server answers again"),
        RunEvent(BEGUN + 12, "adjusted", "rate is now 50/s (bulkimg ctl)"),
    ]
    timeline.add(ledger, samples, events)
    return ledger


def _outcome(item: Any, codes: tuple[str, ...], long: str) -> Outcome:
    failed = item.ordinal % 5 == 0
    code = codes[item.ordinal % 3] if failed else ""
    return Outcome(
        item.ordinal, item.line, item.uuid, Status.FAILED if failed else Status.UPDATED, code,
        f"the server said {HOSTILE}" if failed else "", "check it" if failed else "", 200, 1, item.job_uuid,
        BEGUN, 5 + item.ordinal % 900, tuple(item.fields), {name: f"old {long}" for name in item.fields},
        {name: f"new {long}" for name in item.fields},
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "20261127-1"
    ledger = make_run(place, 150)
    found = write_report(ledger, RunDirectory(place))
    ledger.close()
    return found


@pytest.fixture
def text(made: Path) -> str:
    return made.read_text("utf-8")


def shown(html: str) -> str:
    """The page's own words."""
    body = re.sub(r"<style>.*?</style>|<(title|desc)>.*?</\1>", "", html, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_everything_is_in_the_promised_order(text: str) -> None:
    said = shown(text)
    order = [
        "Run 20261127-1", "Finished, but ", "updated", "Next command bulkimg retry 20261127-1", "Requests a second",
        "Latency of PUTs", "Rows in flight", "Outcomes a second", "What happened", "The pictures in numbers",
        "Rows that are not fine", "Changes by field", "Most frequent changes", "Changed images", "The slowest rows", "This run",
        "Target http://node:8080/zstack", "Manifest SHA-256", "Job nightly", "ada@desk", "CHG-17", "Version bulkimg 9.9",
    ]  # fmt: skip
    missing = [words for words in order if words not in said]
    assert not missing
    places = [said.index(words) for words in order]
    assert places == sorted(places), dict(zip(order, places, strict=True))


def test_causes_have_hint_lines_and_three_uuids(text: str) -> None:
    causes = text[text.index('<ul class="causes">') : text.index('<div id="panels">')]
    items = causes.split("<li>")[1:]
    failed = [item for item in items if "check it" in item]
    assert len(failed) == 3
    assert all(len(re.findall(r"line \d+: <code>[0-9a-f]{32}</code>", item)) == 3 for item in failed)


def test_every_picture_says_what_it_shows(text: str) -> None:
    drawings = re.findall(r'<svg[^>]*role="img".*?</svg>', text, re.DOTALL)
    assert len(drawings) == 4
    assert all("<title>" in one and "<desc>" in one for one in drawings)
    assert "1,800 requests in 0:30: 60.0 a second on average, at most 60. The cap was 100/s." in shown(text)
    assert "p50 " in shown(text)
    rows = text[text.index('class="numbers"') :].count('<th scope="row">')
    assert rows >= 30, "a line for each second"


def test_the_numbers_have_every_status_that_occurs_and_no_other(text: str, tmp_path: Path) -> None:
    def heads(html: str) -> list[str]:
        table = html[html.index('class="numbers"') :]
        found = re.findall(r'<th scope="col">([^<]*)</th>', table[: table.index("</thead>")])
        row = table[table.index("<tbody>") : table.index("</tr>", table.index("<tbody>"))]
        assert len(found) == row.count("<td>") + 1
        return [head for head in found if head.removesuffix("/s") in set(Status)]

    assert heads(text) == ["updated/s", "failed/s"]
    ledger = make_run(tmp_path / "1", 20)
    timeline.add(ledger, [Sample(BEGUN + 30, 1, {}, {"drifted": 1, "unknown": 2}, {}, 0, 16, 100.0, 0)], [])
    html = "".join(pages(report(ledger, RunDirectory(tmp_path / "1"), held=False)))
    ledger.close()
    assert heads(html) == ["updated/s", "failed/s", "drifted/s", "unknown/s"]


def test_no_text_of_the_page_has_a_character_that_a_reader_does_not_see(tmp_path: Path) -> None:
    """Not in facts, titles of marks, legends, causes or values: everything goes through one place."""
    hostile = "a\x1b]0;pwned\x07b\u202ec\u2066d\u200be\x00f\x85g\u061ch\ufeffi<b>&"
    ledger = make_run(tmp_path / "1", 20, manifest=f"m{hostile}\ud800.csv")
    settings = {"endpoint": f"http://{hostile}", "base_path": hostile, "job_name": hostile}
    ledger.set_meta(
        settings=settings, sha256=hostile, by={"user": hostile, "host": f"{hostile}\udfff"}, undo_of=hostile, retry_of=hostile,
        note=hostile, version=hostile, next=hostile, reason=hostile, plan_digest=hostile,
    )  # fmt: skip
    events = [RunEvent(BEGUN + 3, kind, hostile) for kind in ("started", "adjusted", "held", "paused", "stopping")]
    timeline.add(ledger, [], events)
    directory = RunDirectory(tmp_path / "1")
    for state in ("done", "stopped"):
        ledger.set_meta(state=state)
        html = "".join(
            pages(report(ledger, directory, held=False, other=(ledger, RunDirectory(tmp_path / hostile[2:8]))))
        )
        assert (
            re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", html)
            == []
        )
        assert "<b>&" not in html
        assert html.count("a\\x1b]0;pwned\\x07b\\u202ec\\u2066d\\u200be\\x00f\\x85g\\u061ch\\ufeffi&lt;b&gt;&amp;") > 15
        assert "<circle" in html[: html.index("What happened")], "the marks of the events are there"
    ledger.close()


def test_nothing_is_loaded_and_nothing_is_run(text: str) -> None:
    assert not re.findall(r"<(?:script|link|img|iframe|object|embed|form|base)\b", text)
    assert not re.findall(r'\s(?:style|on\w+|href|src)="', text.replace("http-equiv", ""))
    assert set(re.findall(r"https?://[^\s<\"']+", text)) == {"http://node:8080/zstack", "http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text
    assert "window.pwned=1</script>" not in text


@pytest.mark.parametrize(("rows", "seconds", "wide"), [(5, 2, False), (3000, 3000, False), (600, 900, True)])
def test_it_is_below_300_kb(tmp_path: Path, rows: int, seconds: int, wide: bool) -> None:
    place = tmp_path / "r"
    ledger = make_run(place, rows, seconds=seconds, wide=wide)
    assert write_report(ledger, RunDirectory(place)).stat().st_size <= 300_000
    ledger.close()


@pytest.mark.parametrize(
    ("state", "held", "words"),
    [
        ("running", True, "Running: "),
        ("running", False, "Interrupted: the process ended suddenly"),
        ("stopped", False, "Stopped: the time limit is reached"),
        ("refused", False, "Refused: "),
    ],
)
def test_the_verdict_fits_the_state(tmp_path: Path, state: str, held: bool, words: str) -> None:
    ledger = make_run(tmp_path / "r", 5, state=state, reason="the time limit is reached")
    said = shown("".join(pages(report(ledger, RunDirectory(tmp_path / "r"), held=held))))
    assert words in said
    assert ("As of " in said) == (state == "running")
    ledger.close()


def test_a_run_that_sent_nothing_has_a_page_without_pictures(tmp_path: Path) -> None:
    ledger = make_plan(tmp_path / "r", 5, version="1", run_id="r")
    said = "".join(pages(report(ledger, RunDirectory(tmp_path / "r"), held=False)))
    assert "Planned: nothing was sent." in shown(said)
    assert "<figure>" not in said
    ledger.close()


def test_two_runs_are_compared_and_two_servers_are_named(tmp_path: Path) -> None:
    one, two = (make_run(tmp_path / name, rows) for name, rows in (("one", 20), ("two", 40)))
    two.set_meta(settings={"endpoint": "https://other", "base_path": "/zstack"})
    found = report(one, RunDirectory(tmp_path / "one"), held=False, other=(two, RunDirectory(tmp_path / "two")))
    said = shown("".join(pages(found)))
    assert "Compared with run two" in said
    assert "Rows 20 40" in said
    assert "this one of http://node:8080/zstack, the other of https://other/zstack" in said
    one.close()
    two.close()


# -- in a browser -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_asks_for_nothing(browser: Any, made: Path, scheme: str, width: int) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=True
    )
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(made.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert asked == [made.as_uri()]
    assert said == []
    assert page.evaluate("window.pwned") is None
    assert page.locator("figure svg[role=img]").count() == 4
    context.close()


def test_pictures_keep_their_colours_under_a_policy_without_styles(browser: Any, made: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    body = made.read_text("utf-8")
    page.route(
        "**/*",
        lambda route: route.fulfill(body=body, content_type="text/html", headers={"Content-Security-Policy": STRICT}),
    )
    page.goto("http://reports.invalid/report.html")
    bars = page.locator("figure svg[role=img] path[fill='#2f7fc1']").first
    assert bars.bounding_box()["height"] > 20
    assert page.locator("figure svg[role=img]").first.bounding_box()["width"] > 400
    assert "Finished, but" in page.locator("body").inner_text()
    context.close()
