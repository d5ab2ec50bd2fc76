"""plan.html in a real browser: rows, search, filters and pages; and nothing an image is called is ever run."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkimg.ledger import Ledger, plans
from bulkimg.ledger.intake import add_rows, merge_duplicates
from bulkimg.model import Row
from bulkimg.plan.diff import plan
from bulkimg.report import write_plan_page

# «</script » ends a script without its «>», «<!--<script» makes a browser pass over the real end.
HOSTILE = "</script ></script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'><!--<script \u2028\u202e&amp;"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def make_plan(place: Path, count: int) -> Ledger:
    """Every tenth image is as asked for, every seventh is not there; the first one is called something hostile."""
    ledger = Ledger.create(place / "run.db")
    for begin in range(1, count + 1, 5000):
        numbers = range(begin, min(begin + 5000, count + 1))
        add_rows(
            ledger, begin, [Row(n + 1, f"{n:032x}", {"name": f"new {n}", "virtio": True}, {}, ()) for n in numbers]
        )
    ledger.set_meta(merged=merge_duplicates(ledger), manifest="m.csv")
    ledger.seal()
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


pytestmark = pytest.mark.xdist_group("plan page")  # its 100,000 rows are made once


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is absent")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of 100,000 rows, with everything it asks the network for in `asked` and its complaints in `said`."""
    place = tmp_path_factory.mktemp("plan")
    ledger = make_plan(place, 100_000)
    write_plan_page(ledger, place / "plan.html", "20261124-1", "http://node:8080/zstack")
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


def test_it_shows_a_hundred_rows_of_a_hundred_thousand_and_turns_pages(page: Any) -> None:
    assert len(rows(page)) == 100
    assert page.locator("#page").inner_text() == "100,000 rows, page 1 of 1,000"
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
    assert page.locator("#page").inner_text() == "14,285 rows, page 1 of 143"
    assert "the server has no image" in rows(page)[0]
    page.click("[data-action=missing]")
    page.select_option("#field", "virtio")
    assert page.locator("#page").inner_text().startswith("77,143 rows")
    page.fill("#search", "old 77777")
    until_it_says(page, "0 rows")  # 77,777 is a multiple of 7
    page.fill("#search", f"{77779:032x}")
    until_it_says(page, "1 rows")
    assert "old 77779" in rows(page)[0]
    assert "new 77779" in rows(page)[0]
    page.fill("#search", "")
    page.select_option("#field", "")
    until_it_says(page, "100,000 rows")


def test_a_page_without_a_survey_shows_what_is_sent(browser: Any, tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "run.db")
    add_rows(ledger, 1, [Row(2, "a" * 32, {"name": "new"}, {}, ())])
    ledger.set_meta(merged=merge_duplicates(ledger), manifest="m.csv")
    ledger.seal()
    with ledger.transaction():
        plans.make(ledger, "http://node:8080/zstack", surveyed=False)
    write_plan_page(ledger, tmp_path / "plan.html", "1", "http://node:8080/zstack")
    ledger.close()
    shown = browser.new_page()
    shown.goto((tmp_path / "plan.html").as_uri())
    assert "the images were not looked at" in shown.locator("#where").inner_text()
    assert [text.split() for text in rows(shown)] == [["2", "a" * 32, "changes", "name", "new"]]
