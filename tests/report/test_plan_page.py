"""plan.html as a file and in a real browser: header, rows, search, filters, pages, narrow, on paper, without scripts.

No text in an image's name is ever run.
"""

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkimg.ledger import Ledger, RunDirectory, plans
from bulkimg.ledger.intake import add_rows, merge_duplicates
from bulkimg.model import Row
from bulkimg.planner.diff import plan
from bulkimg.report import plan_page
from bulkimg.report.plan_page import write_plan_page

# «</script » ends a script without its «>», «<!--<script» makes a browser pass over the real end.
HOSTILE = "</script ></script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'><!--<script \u2028\u202e&amp;"


TARGET = "http://node:8080/zstack"


def make_plan(place: Path, count: int, **meta: Any) -> Ledger:
    """Make a plan. Every tenth image is as asked for, every seventh is missing, and the first has a hostile name."""
    place.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.create(place / "run.db")
    for begin in range(1, count + 1, 5000):
        numbers = range(begin, min(begin + 5000, count + 1))
        add_rows(
            ledger, begin, [Row(n + 1, f"{n:032x}", {"name": f"new {n}", "virtio": True}, {}, ()) for n in numbers]
        )
    ledger.set_meta(merged=merge_duplicates(ledger), **{"manifest": "m.csv", **meta})
    ledger.keep_checksums()
    with ledger.transaction():
        last = 0
        while batch := plans.to_plan(ledger, last, 1000):
            last = batch[-1].ordinal
            plans.add(ledger, [(row, plan(row.fields, row.expects, image_of(row.ordinal))) for row in batch])
        plans.make(ledger, "http://node:8080/zstack", surveyed=True)
    return ledger


def image_of(n: int) -> dict[str, Any] | None:
    if n % 7 == 0:
        return None
    return {"name": HOSTILE if n == 1 else f"new {n}" if n % 10 == 0 else f"old {n}", "virtio": n % 10 == 0}


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Open the page of 20,000 rows. `asked` has its network requests, `said` its errors."""
    place = tmp_path_factory.mktemp("plan")
    ledger = make_plan(place, 20_000)
    write_plan_page(ledger, RunDirectory(place), TARGET)
    ledger.close()
    shown = browser.new_page()
    shown.asked, shown.said = [], []
    shown.on("request", lambda request: shown.asked.append(request.url))
    shown.on("console", lambda message: shown.said.append(message.text))
    shown.on("pageerror", lambda error: shown.said.append(str(error)))
    shown.goto((place / "plan.html").as_uri(), timeout=60_000)
    yield shown
    assert shown.said == []
    assert len(shown.asked) == 1, "it loads nothing but itself"


def rows(page: Any) -> list[str]:
    return list(page.locator("#rows tr").all_inner_texts())


def until_it_says(page: Any, words: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#page")).to_contain_text(words)


def test_it_shows_a_hundred_rows_of_twenty_thousand_and_turns_pages(page: Any) -> None:
    assert len(rows(page)) == 100
    assert page.locator("#page").inner_text() == "20,000 rows, page 1 of 200"
    assert page.locator("#back").is_disabled()
    page.click("#next")
    assert rows(page)[0].startswith("102\t")
    page.click("#back")
    assert rows(page)[0].startswith("2\t")


def test_what_an_image_is_called_is_text(page: Any) -> None:
    first = page.locator("#rows tr").first.inner_text()
    assert "</script><script>window.pwned=1</script>" in first
    assert page.evaluate("window.pwned") is None
    assert page.locator("#rows img").count() == 0


def test_it_is_filtered_by_action_field_and_word(page: Any) -> None:
    page.click("[data-action=missing]")
    assert page.locator("#page").inner_text() == "2,857 rows, page 1 of 29"
    assert "the server has no image" in rows(page)[0]
    page.click("[data-action=missing]")
    page.select_option("#field", "virtio")
    assert page.locator("#page").inner_text().startswith("15,428 rows")
    page.fill("#search", "old 7777")
    until_it_says(page, "0 rows")  # 7,777 is a multiple of 7
    page.fill("#search", f"{7779:032x}")
    until_it_says(page, "1 row")
    assert "old 7779" in rows(page)[0]
    assert "new 7779" in rows(page)[0]
    page.fill("#search", "")
    page.select_option("#field", "")
    until_it_says(page, "20,000 rows")


def small_plan(place: Path, rows: list[Row], images: dict[str, dict[str, Any]] | None, **meta: Any) -> Ledger:
    """Make a plan of these rows. With `images` None it has no survey."""
    place.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.create(place / "run.db")
    add_rows(ledger, 1, rows)
    ledger.set_meta(merged=merge_duplicates(ledger), **{"manifest": "m.csv", **meta})
    ledger.keep_checksums()
    with ledger.transaction():
        if images is not None:
            replaces = ledger.meta("settings", {}).get("tags_mode") == "replace"
            plans.add(
                ledger,
                [
                    (row, plan(row.fields, row.expects, images.get(row.uuid), replace_tags=replaces))
                    for row in plans.to_plan(ledger, 0, 1000)
                ],
            )
        plans.make(ledger, TARGET, surveyed=images is not None)
    return ledger


def written(ledger: Ledger, place: Path, refused: str = "") -> str:
    """Return the page's text, and close the ledger."""
    write_plan_page(ledger, RunDirectory(place), TARGET, refused)
    ledger.close()
    return (place / "plan.html").read_text("utf-8")


def static(text: str) -> str:
    """Return what is shown if scripts are blocked."""
    return text[text.index("<body>") : text.index('<script type="application/json"')]


RENAMED = [Row(n + 1, f"{n:032x}", {"name": f"prod-web-{n}", "platform": "Linux"}, {}, ()) for n in range(1, 61)]
BEFORE = {f"{n:032x}": {"name": f"web-{n}", "platform": "Other"} for n in range(1, 61)}


# -- as a file ----------------------------------------------------------------------------------------------------------


def test_the_header_names_who_when_why_and_what(tmp_path: Path) -> None:
    meta = {
        "manifest": "jobs/../samples/relabel.csv",
        "by": {"uid": 1000, "user": "ada", "host": "ops1"},
        "started_at": 1795759200.5,
        "note": "CHG-17",
    }
    ledger = small_plan(tmp_path / "20261127-1", RENAMED, BEFORE, **meta)
    digest = plans.counts(ledger).digest
    text = written(ledger, tmp_path / "20261127-1")
    assert "<title>Plan 20261127-1 · bulkimg</title>" in text
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert {name: re.sub("<[^>]*>", "", value) for name, value in facts.items()} == {
        "Target": TARGET,
        "Manifest": "samples/relabel.csv",
        "Planned by": "ada@ops1",
        "Planned at": "2026-11-27 06:00:00 UTC",
        "Note": "CHG-17",
        "Images": "read before planning",
        "Plan checksum": digest,
    }


def test_the_command_works_when_typed(tmp_path: Path) -> None:
    place = tmp_path / "my runs" / "20261127-1"
    ledger = small_plan(place, RENAMED, BEFORE)
    digest = plans.counts(ledger).digest
    command = f"bulkimg apply 20261127-1 --runs-dir &#39;{tmp_path}/my runs&#39; --checksum {digest[:16]}"
    assert f'<code id="command">{command}</code>' in written(ledger, place)


def test_a_plan_that_a_guard_refuses_shows_the_guard_and_no_command(tmp_path: Path) -> None:
    text = static(written(small_plan(tmp_path, RENAMED, BEFORE), tmp_path, "the plan changes 60 images, <b>"))
    assert "bulkimg apply would refuse this plan:</strong> the plan changes 60 images, &lt;b&gt;." in text
    assert "--checksum" not in text


def test_a_plan_without_changes_has_nothing_to_apply(tmp_path: Path) -> None:
    images = {str(row.uuid): dict(row.fields) for row in RENAMED}
    text = static(written(small_plan(tmp_path, RENAMED, images), tmp_path))
    assert "Nothing to apply: the plan changes no image." in text
    assert "--checksum" not in text
    assert "Changes by field" not in text


def test_counts_fields_and_transitions_are_html(tmp_path: Path) -> None:
    text = static(written(small_plan(tmp_path, RENAMED, BEFORE), tmp_path))
    assert '<div class="tile update" data-action="update"><b>60</b> <span>changes</span></div>' in text
    assert '<li><span class="field">platform</span> <span class="count">60 images</span></li>' in text
    transitions = text[text.index('<ul class="transitions">') : text.index('<h2 id="heading">')]
    assert transitions.count("<li>") == 1
    assert '<del>Other</del> <span class="sign">→</span> <ins>Linux</ins>' in transitions
    assert ">60 images<" in transitions


def test_a_value_that_is_similar_is_marked_inside(tmp_path: Path) -> None:
    text = static(written(small_plan(tmp_path, RENAMED, BEFORE), tmp_path))
    assert (
        '<del class="part">web-7</del> <span class="sign">→</span> <ins class="part"><mark>prod-</mark>web-7</ins>'
        in text
    )


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("add", '<span>prod; web</span> <span class="sign">+</span> <ins>night</ins>'),
        ("replace", '<del>prod; web</del> <span class="sign">→</span> <ins>night</ins>'),
    ],
)
def test_tags_that_are_added_do_not_look_replaced(tmp_path: Path, mode: str, expected: str) -> None:
    uuid = "a" * 32
    rows = [Row(2, uuid, {"userTags": ["night"]}, {}, ())]
    ledger = small_plan(tmp_path, rows, {uuid: {"userTags": ["prod", "web"]}}, settings={"tags_mode": mode})
    assert expected in written(ledger, tmp_path)


def test_the_first_hundred_rows_are_html(tmp_path: Path) -> None:
    text = static(written(make_plan(tmp_path, 250), tmp_path))
    assert text.count('<tr role="row"><td') == 100
    assert "The first 100 of 250 rows. The rest is in plan.csv." in text


def test_no_text_becomes_part_of_the_page(tmp_path: Path) -> None:
    """Hostile texts are in run, target, manifest, note, user, host, both names, transitions and messages."""
    bad = "</script><script>pwned()</script><!--<script {{rows}} \x1b\u202e\"'><img src=x onerror=pwned()>&amp;"
    uuids = [f"{n:032x}" for n in range(4)]
    ledger = small_plan(
        tmp_path,
        [Row(n, uuid, {"description": bad + "!"}, {"name": "x"} if n == 3 else {}, ()) for n, uuid in enumerate(uuids)],
        {uuid: {"description": bad, "name": bad} for uuid in uuids},
        manifest=bad,
        note=bad,
        by={"user": bad, "host": bad},
    )
    hostile = RunDirectory(tmp_path / "a&b'\"<i>")
    hostile.path.mkdir()
    write_plan_page(ledger, hostile, bad, bad)
    ledger.close()
    text = (hostile.path / "plan.html").read_text("utf-8")
    assert text.count("</script>") == 2
    assert text.count("<script") == 2
    assert not re.search(r"<(img|i)\b|<!--", text)
    assert not re.search("[\x1b\u202e]", text)
    assert static(text).count("&lt;/script&gt;") >= 10
    assert text.count("{{rows}}") == static(text).count("{{rows}}") + text[text.index('id="data"') :].count("{{rows}}")


def test_only_the_page_s_own_script_may_run(tmp_path: Path) -> None:
    text = written(small_plan(tmp_path, RENAMED, BEFORE), tmp_path)
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"\s(style|on\w+)=", static(text))
    assert not re.search(r"(src|href|url)\s*[=(]", text)


def test_memory_does_not_grow_with_the_plan(tmp_path: Path) -> None:
    peaks = []
    for count in (2_000, 20_000):
        ledger = make_plan(tmp_path / str(count), count)
        tracemalloc.start()
        write_plan_page(ledger, RunDirectory(tmp_path / str(count)), TARGET)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        ledger.close()
    assert peaks[1] < peaks[0] + 1_000_000


def luminance(color: str) -> float:
    parts = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "paper", "least"),
    [
        *((ink, paper, 4.5) for ink in ("ink", "soft") for paper in ("paper", "ground")),
        *((kind, f"{kind}{paper}", 4.5) for kind in ("old", "new") for paper in ("bg", "mark")),
        *((dot, "paper", 3.0) for dot in ("update", "unchanged", "conflict", "missing", "accent")),
    ],
)
def test_texts_have_contrast(scheme: int, ink: str, paper: str, least: float) -> None:
    style = (Path(plan_page.__file__).parent / "templates" / "page.css").read_text("utf-8")
    colors = dict(re.findall(r"--(\w+): (#\w{6})", style.split(":root {")[1 + scheme]))
    light, dark = sorted((luminance(colors[ink]), luminance(colors[paper])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= least


# -- in a browser -------------------------------------------------------------------------------------------------------


def opened(browser: Any, place: Path, width: int = 1400, **how: Any) -> Any:
    shown = browser.new_context(viewport={"width": width, "height": 1000}, **how).new_page()
    shown.goto((place / "plan.html").as_uri())
    return shown


def test_a_page_without_a_survey_shows_what_is_sent(browser: Any, tmp_path: Path) -> None:
    written(small_plan(tmp_path, [Row(2, "a" * 32, {"name": "new"}, {}, ())], None), tmp_path)
    shown = opened(browser, tmp_path)
    assert "not read; each row is sent as the manifest has it" in shown.locator("#facts").inner_text()
    assert [text.split() for text in rows(shown)] == [["2", "a" * 32, "changes", "name", "new"]]


def test_script_and_python_write_the_same_rows(browser: Any, tmp_path: Path) -> None:
    """The script draws the first page again when the user returns to it: not one character may differ."""
    odd = ["<b>&amp;\"'</b>", "a\nb", "x\u202ey", "😀 one", "cafe\u0301 one", "应用", ""]
    images: dict[str, dict[str, Any]] = {
        **BEFORE,
        **{f"{n:032x}": {"name": text, "platform": None} for n, text in enumerate(odd, 1)},
    }
    new = [
        Row(n + 2, f"{n:032x}", {"name": (odd[n - 1][:3] if n <= 7 else "") + "e one", "userTags": ["a;b"]}, {}, ())
        for n in range(1, 150)
    ]
    for n, text in enumerate(odd, 1):
        images[f"{n:032x}"]["userTags"] = [text] if text else []
    written(small_plan(tmp_path, new, images, settings={"tags_mode": "add"}), tmp_path)
    shown = opened(browser, tmp_path)
    as_written = shown.locator("#rows").evaluate("body => [...body.rows].map(row => row.outerHTML)")
    shown.click("#next")
    shown.click("#back")
    assert shown.locator("#rows").evaluate("body => [...body.rows].map(row => row.outerHTML)") == as_written
    assert "mark" in as_written[3]


@pytest.mark.parametrize(("width", "highest"), [(400, 12_000), (700, 9_000), (1000, 8_000), (1400, 6_500)])
def test_it_is_readable_at_every_width(browser: Any, tmp_path: Path, width: int, highest: int) -> None:
    long = [
        Row(row.line, row.uuid, {**row.fields, "name": f"prod-windows-server-2019-std-ci-runner-{row.line:04}"}, {}, ())
        for row in RENAMED
    ]
    meta = {"by": {"user": "u" * 80, "host": "h" * 80}, "note": "n" * 300, "manifest": "m" * 300}
    written(small_plan(tmp_path / ("r" * 100), long, BEFORE, **meta), tmp_path / ("r" * 100))
    for scripts in (True, False):
        shown = opened(browser, tmp_path / ("r" * 100), width, java_script_enabled=scripts)
        box = shown.locator("html").bounding_box()
        assert box["height"] <= highest
        widths = "([document.documentElement, ...document.querySelectorAll('#rows td, #facts dd, .command')].every(e => e.scrollWidth <= e.clientWidth + 1))"
        assert not scripts or shown.evaluate(widths)
        assert not scripts or shown.evaluate("document.documentElement.scrollWidth") == width
        line = shown.locator("#rows ins").first.bounding_box()
        assert line["width"] >= 150, "a value is not broken into pieces"


def test_a_card_shortens_the_uuid_and_copies_all_of_it(browser: Any, tmp_path: Path) -> None:
    written(small_plan(tmp_path, [Row(2, "0123456789abcdef" * 2, {"name": "new"}, {}, ())], None), tmp_path)
    shown = opened(browser, tmp_path, 400)
    code = shown.locator("#rows code")
    assert code.bounding_box()["width"] < 120
    assert code.get_attribute("title") == "0123456789abcdef" * 2
    select = "code => { getSelection().selectAllChildren(code); return getSelection().toString(); }"
    assert code.evaluate(select) == "0123456789abcdef" * 2
    assert shown.get_by_role("row").count() == 2
    assert shown.get_by_role("columnheader").count() == 4


def test_without_scripts_it_shows_everything_but_controls(browser: Any, tmp_path: Path) -> None:
    written(make_plan(tmp_path, 250, note="CHG-17"), tmp_path)
    shown = opened(browser, tmp_path, java_script_enabled=False)
    assert len(rows(shown)) == 100
    assert shown.locator("button:visible, input:visible, select:visible").count() == 0
    text = shown.locator("body").inner_text()
    for words in ("CHG-17", "Changes by field", "Most frequent changes", "no such image", "bulkimg apply"):
        assert words in text
    assert "The first 100 of 250 rows. The rest is in plan.csv." in text


def test_the_script_takes_over_without_a_move(browser: Any, tmp_path: Path) -> None:
    written(small_plan(tmp_path, RENAMED, BEFORE), tmp_path)
    text = (tmp_path / "plan.html").read_text("utf-8")
    (tmp_path / "still").mkdir()
    (tmp_path / "still" / "plan.html").write_text(text[: text.rindex("<script>")] + "</body></html>", "utf-8")
    places = [
        [opened(browser, place).locator(what).bounding_box() for what in ("#tiles", "#panels", "#rows")]
        for place in (tmp_path, tmp_path / "still")
    ]
    assert places[0] == places[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_paper_it_is_black_on_white_without_controls(browser: Any, tmp_path: Path, scheme: str) -> None:
    written(make_plan(tmp_path, 800, note="CHG-17"), tmp_path)
    shown = opened(browser, tmp_path, 720, color_scheme=scheme)
    shown.emulate_media(media="print", color_scheme=scheme)
    from playwright.sync_api import expect

    expect(shown.locator("#printed")).to_have_text("The first 500 of 800 rows. The rest is in plan.csv.")
    assert len(rows(shown)) == 500
    assert shown.locator("#bar:visible, nav:visible, #copy:visible").count() == 0
    assert {"CHG-17", "Most frequent changes"} <= set(shown.locator("body").inner_text().split("\n"))
    colors = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    assert shown.locator("body").evaluate(colors) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert shown.locator("#rows ins").first.evaluate(colors) == ["rgb(0, 0, 0)", "rgba(0, 0, 0, 0)"]
    assert shown.locator("#rows tr").first.evaluate("e => getComputedStyle(e).breakInside") == "avoid"
    assert shown.evaluate("document.documentElement.scrollWidth") == 720
    shown.emulate_media(media="screen")
    expect(shown.locator("#rows tr")).to_have_count(100)


def test_printing_takes_500_rows_of_what_is_filtered(browser: Any, tmp_path: Path) -> None:
    written(make_plan(tmp_path, 800), tmp_path)
    shown = opened(browser, tmp_path)
    shown.click("[data-action=missing]")
    shown.evaluate(
        "addEventListener('beforeprint', () => { window.printed = [document.querySelectorAll('#rows tr').length, document.getElementById('printed').textContent]; })"
    )
    assert shown.pdf(format="A4").startswith(b"%PDF")
    assert shown.evaluate("window.printed") == [114, "114 rows that match the filter"]
    shown.click("[data-action=missing]")
    shown.pdf(format="A4")
    assert shown.evaluate("window.printed") == [500, "The first 500 of 800 rows. The rest is in plan.csv."]


@pytest.mark.parametrize("clipboard", ["there", "absent"])
def test_the_command_is_copied(browser: Any, tmp_path: Path, clipboard: str) -> None:
    written(small_plan(tmp_path, RENAMED, BEFORE), tmp_path)
    shown = opened(browser, tmp_path)
    if clipboard == "there":
        shown.evaluate("navigator.clipboard.writeText = async text => { window.taken = text; }")
    else:
        shown.evaluate(
            "navigator.clipboard.writeText = async () => { throw new Error(); }; document.execCommand = () => false"
        )
    shown.click("#copy")
    from playwright.sync_api import expect

    command = shown.locator("#command").inner_text()
    said = "Copied." if clipboard == "there" else "The command is selected; copy it with Ctrl+C."
    expect(shown.locator("#copied")).to_have_text(said)
    assert shown.evaluate("window.taken ?? getSelection().toString()") == command


def test_it_is_used_with_the_keyboard(browser: Any, tmp_path: Path) -> None:
    written(make_plan(tmp_path, 250), tmp_path)
    shown = opened(browser, tmp_path)
    shown.keyboard.press("Tab")  # Copy
    shown.keyboard.press("Tab")
    shown.keyboard.press("Enter")
    assert shown.locator("[data-action=update]").get_attribute("aria-pressed") == "true"
    assert shown.locator("#page").inner_text().startswith("193 rows")
    for control in shown.locator("button:visible, input:visible, select:visible").all():
        assert control.evaluate("e => e.ariaLabel || e.innerText")
