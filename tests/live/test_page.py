"""The live page in a real browser: a run is seen to go on, to die, to be resumed and to end, and the page survives it."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, Server, sandbox_process
from tests.live.asking import ui

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
PATIENCE = 60_000  # milliseconds, on a machine that has much else to do


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of a context of its own. `said` has what it complained of."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    shown = context.new_page()
    shown.said = []
    shown.on("pageerror", lambda error: shown.said.append(str(error)))
    shown.on("console", lambda message: shown.said.append(message.text))
    yield shown
    context.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with sandbox_process("--images", "120") as found:
        yield found


def manifest(server: Server, name: str) -> str:
    return "uuid,name\n" + "".join(f"{uuid},{name}\n" for uuid in sorted(server.images()))


def expect_text(page: Any, selector: str, words: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(words, timeout=PATIENCE)


def when(page: Any, what: Callable[[], bool]) -> None:
    """Wait until something is so. The page's policy forbids playwright's own way."""
    until = time.monotonic() + PATIENCE / 1000
    while not what():
        assert time.monotonic() < until
        page.wait_for_timeout(100)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_run_is_seen_to_go_on_to_die_to_be_resumed_and_to_end(cli: Cli, server: Server, page: Any) -> None:
    cli = cli.at(server)
    cli.write("m.csv", manifest(server, HOSTILE))
    run = cli.start("run", "m.csv", "--yes", "--rate", "8/s", "--run-id", "r1", "--progress", "none")
    server.wait_for_put()
    with ui(cli, "r1") as found:
        page.goto(found.url)
        assert page.url == f"http://127.0.0.1:{found.port}/run/r1"
        expect_text(page, "#verdict", "Running:")
        expect_text(page, "#line", "watching")
        first = int(page.locator(".updated b").inner_text())
        when(page, lambda: int(page.locator(".updated b").inner_text()) > first + 5)
        page.locator("summary", has_text="The pictures in numbers").click()
        page.evaluate("scrollTo(0, 300)")
        before = page.locator("#verdict").inner_text()
        when(page, lambda: page.locator("#verdict").inner_text() != before)
        assert page.locator("details[open] summary", has_text="The pictures").count() == 1, "what was opened stays open"
        assert page.evaluate("scrollY") == 300

        run.kill()
        run.communicate(timeout=30)
        expect_text(page, "#verdict", "Interrupted: the process ended suddenly;")
        expect_text(page, ".command", "bulkimg resume r1")
        assert page.locator("details[open] summary", has_text="The pictures").count() == 1

        again = cli.start("resume", "r1", "--rate", "20/s", "--progress", "none")
        expect_text(page, "#verdict", "Running:")
        again.communicate(timeout=100)
        assert again.returncode == 0
        expect_text(page, "#verdict", "Finished: every one of 120 rows is updated")
        expect_text(page, "#line", "This run is over.")
        assert page.locator(".updated b").inner_text() == "120"
        assert "window.pwned=1" in page.locator("#live").inner_text()
        assert page.evaluate("window.pwned") is None
        assert page.locator("img").count() == 0
        assert page.said == []


def test_the_list_shows_a_run_that_begins_and_its_page_survives_the_ui(cli: Cli, server: Server, page: Any) -> None:
    """An open page goes on with the next `bulkimg ui` at its port."""
    cli, port = cli.at(server), free_port()
    cli.write("m.csv", manifest(server, "two"))
    (cli.place / "runs").mkdir()
    with ui(cli, "--port", str(port)) as found:
        page.goto(found.url)
        expect_text(page, "#live", "The first command:")
        expect_text(page, ".command", "bulkimg run manifest.csv")
        run = cli.start("run", "m.csv", "--yes", "--rate", "5/s", "--run-id", "r2", "--progress", "none")
        expect_text(page, "#runs", "running")
        page.locator("#runs a", has_text="r2").click()
        expect_text(page, "#verdict", "Running:")
    expect_text(page, "#line", "does not answer")
    seen = page.locator("#verdict").inner_text()
    with ui(cli, "--port", str(port)):
        expect_text(page, "#line", "watching")
        when(page, lambda: page.locator("#verdict").inner_text() != seen)
    run.kill()
    run.communicate(timeout=30)
    Path(f"/dev/shm/bulkimg-ui-{os.getuid()}/{port}").unlink(missing_ok=True)


def test_two_pages_of_two_ports_are_open_in_one_browser(cli: Cli, server: Server, page: Any) -> None:
    cli = cli.at(server)
    cli.write("m.csv", manifest(server, "three"))
    cli("run", "m.csv", "--yes", "--rate", "unlimited", "--run-id", "r3")
    with ui(cli) as one, ui(cli) as other:
        page.goto(one.url)
        page.goto(other.url)
        for found in (one, other, one):
            page.goto(f"http://127.0.0.1:{found.port}/run/r3")
            expect_text(page, "#verdict", "Finished:")


def test_a_file_opens_the_page_although_it_is_of_another_site(cli: Cli, page: Any) -> None:
    """As --open does it: the first answer is 403, and its own refresh brings the cookie."""
    with ui(cli) as found:
        cli.write("open.html", f'<!doctype html><meta http-equiv="refresh" content="0;url={found.url}">')
        page.goto((cli.place / "open.html").as_uri())
        expect_text(page, "#live", "The first command:")
        assert page.url == f"http://127.0.0.1:{found.port}/"


def test_no_other_page_frames_it_or_reads_it(cli: Cli, page: Any) -> None:
    with ui(cli) as found, ui(cli) as other:
        page.goto(found.url)
        page.goto(other.url)
        page.goto(
            f"http://127.0.0.1:{other.port}/nothing"
        )  # a page of another port of this machine, without a policy of ours
        page.route(
            "**/attack",
            lambda route: route.fulfill(content_type="text/html", body=_ATTACK.replace("PORT", str(found.port))),
        )
        page.goto(f"http://127.0.0.1:{other.port}/attack")
        page.wait_for_function("window.tried")
        assert page.evaluate("window.tried") == ["TypeError", "no script"]
        framed = page.frames[1]
        assert "Runs" not in framed.content()


_ATTACK = """<!doctype html><body><iframe src="http://127.0.0.1:PORT/"></iframe><script>
const there = "http://127.0.0.1:PORT/";
const read = fetch(there, {credentials: "include"}).then(answer => answer.text(), error => error.name);
const script = new Promise(done => {
  const made = document.createElement("script");
  made.src = there; made.onload = () => done("script"); made.onerror = () => done("no script");
  document.body.append(made);
});
Promise.all([read, script, new Promise(done => addEventListener("load", done))]).then(found => window.tried = found.slice(0, 2));
</script>"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 400)])
def test_nothing_is_cut_off(cli: Cli, server: Server, browser: Any, scheme: Any, width: int) -> None:
    cli = cli.at(server)
    cli.write("m.csv", manifest(server, f"{scheme}-{width}-with-a-long-name"))
    cli("run", "m.csv", "--yes", "--rate", "unlimited", "--run-id", "r4-" + "long" * 20, "--note", "a note " * 20)
    with ui(cli) as found:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        page = context.new_page()
        page.goto(found.url)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.click("#runs a")
        page.wait_for_selector("#verdict")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        context.close()
