"""What a page shows is drawn once for everybody, only when something has changed, and of any run: also of a broken one."""

import asyncio
import itertools
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from markupsafe import Markup

from bulkimg.ledger import Ledger, RunDirectory, new_run, timeline
from bulkimg.ledger.intake import add_rows
from bulkimg.live import board, streams
from bulkimg.live.drawing import ROWS_EVERY, ROWS_SHARE, Drawing
from bulkimg.live.streams import Channel
from bulkimg.model import Row, RunEvent, Sample
from bulkimg.report import render
from tests.conftest import Cli, Server
from tests.live.asking import ui


def a_run(runs_dir: Path, name: str, state: str = "running") -> RunDirectory:
    """Make a run that this process holds."""
    directory = new_run(runs_dir, time.time(), name)
    ledger = Ledger.create(directory.ledger)
    add_rows(ledger, 1, [Row(n + 1, f"{n:032x}", {"name": f"n{n}"}, {}, ()) for n in range(1, 11)])
    ledger.keep_checksums()
    ledger.set_meta(state=state, manifest="m.csv", settings={})
    ledger.close()
    return directory


def written_to(directory: RunDirectory) -> None:
    ledger = Ledger.open(directory.ledger)
    sample = Sample(time.time(), 1, {"put": 1}, {"updated": 1}, {}, 1, 1, 5.0, 9)
    timeline.add(ledger, [sample], [RunEvent(time.time(), "adjusted", "the rate is 5/s now")])
    ledger.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_has_not_changed_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, clock = a_run(tmp_path, "r"), Clock()
    drawing = Drawing(directory, clock)
    first = drawing.draw()
    assert "Running: 0 of 10 rows" in first
    monkeypatch.setattr(Drawing, "_drawn", lambda _: pytest.fail("drawn again"))
    clock.now += 1000
    assert drawing.draw() is first


def test_rows_are_read_now_and_then_and_the_rest_at_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If reading the rows took t, they are read again after 50 t; what is cheap is shown at once."""
    directory, clock = a_run(tmp_path, "r"), Clock()
    drawing = Drawing(directory, clock)
    from bulkimg.report import run_page

    took, read = 1.0, []
    real = run_page.report

    def slow(*given: object, **named: object) -> run_page.Report:
        read.append(clock.now)
        clock.now += took
        return real(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(run_page, "report", slow)
    drawing.draw()
    begun = clock.now
    while clock.now < begun + 3 * ROWS_SHARE * took:
        written_to(directory)
        drawing.draw()
        clock.now += 2
    assert len(read) == 3
    assert min(b - a for a, b in itertools.pairwise(read)) >= ROWS_SHARE * took > ROWS_EVERY
    assert drawing.draw().count("the rate is 5/s now") > 30


def test_an_end_is_drawn_at_once(tmp_path: Path) -> None:
    directory, clock = a_run(tmp_path, "r"), Clock()
    drawing = Drawing(directory, clock)
    drawing.draw()
    directory.release()
    assert "Interrupted: the process ended suddenly; 10 rows left." in drawing.draw()
    assert not drawing.is_final, "it can be resumed"
    directory.hold()
    assert "Running:" in drawing.draw()
    ledger = Ledger.open(directory.ledger)
    ledger.set_meta(state="done")
    ledger.close()
    directory.release()
    assert "Finished" in drawing.draw()
    assert drawing.is_final


def test_those_who_look_do_not_take_each_other_for_the_run(tmp_path: Path) -> None:
    directory = a_run(tmp_path, "r")
    directory.release()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: RunDirectory(directory.path).is_held(), range(4000)))
    assert not any(found)
    directory.hold()
    assert directory.is_held()


class Counting:
    """A drawing that counts how often it is drawn, and changes every time."""

    is_final = False

    def __init__(self) -> None:
        self.times = 0

    def draw(self) -> Markup:
        self.times += 1
        return Markup(f"drawing {self.times}")


async def test_eight_streams_are_drawn_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "EVERY", 0.05)
    drawing = Counting()
    with ThreadPoolExecutor(1) as executor:
        channel = Channel(drawing, executor, time.monotonic)

        async def follow() -> list[bytes]:
            found = []
            async for event in channel.follow():
                found.append(event)
                if len(found) == 21:
                    return found
            return found

        got = await asyncio.wait_for(asyncio.gather(*[follow() for _ in range(8)]), 60)
    assert all(len(events) == 21 for events in got)
    assert drawing.times <= 2 * 21, "not 8 times as often"


def broken(directory: RunDirectory) -> None:
    directory.ledger.write_bytes(b"this is no ledger" * 1000)


def of_another_version(directory: RunDirectory) -> None:
    with sqlite3.connect(directory.ledger) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")


def forged(directory: RunDirectory) -> None:
    with sqlite3.connect(directory.ledger) as db:
        db.execute("UPDATE meta SET value = '\"planned\"' WHERE key = 'state'")


def without_a_table(directory: RunDirectory) -> None:
    with sqlite3.connect(directory.ledger) as db:
        db.execute("DROP TABLE sample")


def with_a_record_that_is_none(directory: RunDirectory) -> None:
    with sqlite3.connect(directory.ledger) as db:
        db.execute("INSERT INTO sample VALUES (1, 1, 'nonsense', '[', '{\"x\": 1}', 1, 1, 1, 1)")


def removed(directory: RunDirectory) -> None:
    shutil.rmtree(directory.path)


BROKEN = {
    broken: "is not a readable ledger",
    of_another_version: "was written by another version of bulkimg",
    forged: "the checksum of its header is wrong",
    without_a_table: "no such table",
    with_a_record_that_is_none: "is damaged",
    removed: "is gone: its directory was removed",
}
EACH = pytest.mark.parametrize(("breaks", "said"), BROKEN.items(), ids=[breaks.__name__ for breaks in BROKEN])


@EACH
def test_a_run_that_cannot_be_read_is_a_sentence(
    cli: Cli, server: Server, breaks: Callable[[RunDirectory], None], said: str
) -> None:
    """On its page, in the list beside the others, and in the terminal."""
    image = sorted(server.images())[0]
    for name in ("good", "bad"):
        cli.write("m.csv", f"uuid,name\n{image},{name}\n")
        cli.at(server)("run", "m.csv", "--yes", "--run-id", name)
    directory = RunDirectory(cli.place / "runs" / "bad")
    with ui(cli) as page:
        cookie = page.cookie
        assert "Finished:" in page.ask("/run/bad", cookie=cookie).text
        breaks(directory)
        time.sleep(2.1)  # a drawing holds for two seconds
        answer = page.ask("/run/bad", cookie=cookie)
        assert said in answer.text
        assert "Finished:" in page.ask("/run/good", cookie=cookie).text
        listed = page.ask("/", cookie=cookie).text
        assert 'href="/run/good"' in listed
        if breaks is not removed:
            assert said in listed or breaks in (without_a_table, with_a_record_that_is_none)
            done = cli("watch", "bad", code=None)
            assert done.code in (7, 8)
            assert said in done.err


def test_a_list_of_many_runs_is_drawn_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No drawing reads longer than it may; the next one continues."""
    for number in range(5):
        a_run(tmp_path, f"r{number}").release()
    clock = Clock()
    real = board.read

    def slow(directory: RunDirectory) -> board.RunLine:
        clock.now += 0.3
        return real(directory)

    monkeypatch.setattr(board, "read", slow)
    listed = board.Board(tmp_path, clock)
    assert [listed.draw().count('<b class="state">…</b>') for _ in range(4)] == [3, 1, 0, 0]
    assert clock.now == pytest.approx(1001.5), "each run was read once"


@pytest.mark.parametrize(
    ("settled", "running", "tone", "words"),
    [
        ({"updated": 10}, False, "good", "10 of 10 rows with an outcome"),
        ({"updated": 9, "failed": 1}, False, "bad", "10 of 10 rows with an outcome, 1 not fine"),
        ({"updated": 5}, True, "open", "5 of 10 rows with an outcome"),
        ({"updated": 5, "drifted": 2}, True, "bad", "7 of 10 rows with an outcome, 2 not fine"),
        ({"updated": 5, "unprocessed": 5}, False, "bad", "5 of 10 rows with an outcome, 5 not fine"),
    ],
)
def test_a_bar_tells_by_colour_and_in_words_whether_all_rows_are_fine(
    settled: dict[str, int], running: bool, tone: str, words: str
) -> None:
    line = board.RunLine(
        "r", 0.0, state="running" if running else "done", running=running, rows=10, counts=tuple(settled.items())
    )
    drawn = render.fragment("live_runs.html", lines=[line], more=0, others=0, problem="", place="runs")
    assert f'<progress class="{tone}" max="10" value="{line.settled}" aria-label="{words}"' in drawn
    assert ("not fine</b>" in drawn) == (tone == "bad")


def test_the_list_names_only_what_has_a_page(tmp_path: Path) -> None:
    """Neither a name that no run can have nor a symbolic link, to a directory or to a ledger."""
    runs = tmp_path / "runs"
    for name in ("good", "my run", "-x", "a" * 101):
        a_run(runs, name).release()
    a_run(tmp_path, "elsewhere").release()
    (runs / "linked").symlink_to(tmp_path / "elsewhere")
    (runs / "inside").mkdir()
    (runs / "inside" / "run.db").symlink_to(tmp_path / "elsewhere" / "run.db")
    drawn = board.Board(runs).draw()
    assert drawn.count("<li ") == 1
    assert 'href="/run/good"' in drawn
    assert "5 directories are not shown: a symbolic link, or a name that no run can have" in drawn


@pytest.mark.parametrize("what", ["the directory", "the ledger"])
def test_what_became_a_symbolic_link_is_not_read(tmp_path: Path, what: str) -> None:
    directory, other = a_run(tmp_path / "runs", "r"), a_run(tmp_path, "elsewhere")
    drawing, listed = Drawing(directory), board.Board(tmp_path / "runs")
    assert "0 of 10 rows" in drawing.draw()
    directory.release()
    if what == "the directory":
        shutil.rmtree(directory.path)
        directory.path.symlink_to(other.path)
    else:
        directory.ledger.unlink()
        directory.ledger.symlink_to(other.ledger)
    assert "is a symbolic link, which the page does not follow" in drawing.draw()
    assert "0 of 10 rows" not in drawing.draw()
    assert 'href="/run/r"' not in listed.draw()
    assert "is a symbolic link" in board.read(directory).problem


def test_a_link_and_a_name_that_no_run_can_have_get_no_page(cli: Cli, server: Server) -> None:
    image = sorted(server.images())[0]
    cli.write("m.csv", f"uuid,name\n{image},linked\n")
    cli.at(server)("run", "m.csv", "--yes", "--run-id", "real")
    (cli.place / "other").mkdir()
    (cli.place / "other" / "link").symlink_to(cli.place / "runs" / "real")
    shutil.copytree(cli.place / "runs" / "real", cli.place / "other" / "my run")
    err = cli("ui", "link", "--runs-dir", "other", code=2).err
    assert "other/link: is a symbolic link, which the page does not follow" in err
    assert "other/my run: the name of the directory is not that of a run" in cli("ui", "other/my run", code=2).err
    with ui(cli, "--runs-dir", "other") as page:
        assert page.ask("/run/link", cookie=page.cookie).status == 404
        assert page.ask("/run/my%20run", cookie=page.cookie).status == 404


def test_a_run_whose_name_has_no_time_tells_it_from_its_ledger(tmp_path: Path) -> None:
    directory = a_run(tmp_path, "copied")
    (directory.path / ".begun").unlink()
    assert "time unknown" in board.Board(tmp_path).draw()
    ledger = Ledger.open(directory.ledger)
    ledger.set_meta(created_at=86400.0)
    ledger.close()
    assert "1970-01-02 00:00:00 UTC" in board.Board(tmp_path).draw()


def test_watching_changes_no_file_of_a_run(cli: Cli, server: Server) -> None:
    image = sorted(server.images())[1]
    cli.write("m.csv", f"uuid,name\n{image},quiet\n")
    cli.at(server)("run", "m.csv", "--yes", "--run-id", "quiet")

    def files() -> dict[str, tuple[int, bytes]]:
        return {
            path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (cli.place / "runs" / "quiet").iterdir()
        }

    before = files()
    with ui(cli) as page:
        cookie = page.cookie
        page.ask("/", cookie=cookie)
        page.ask("/run/quiet", cookie=cookie)
    cli("watch", "quiet")
    after = files()
    assert {name: found for name, found in after.items() if not name.startswith("run.db-")} == before


def test_it_ends_when_nobody_asks_and_not_while_a_page_is_open(cli: Cli, tmp_path: Path) -> None:
    (cli.place / "runs").mkdir()
    process = cli.start("ui", "--idle", "2s")
    assert process.stdout is not None
    assert process.stderr is not None
    url = process.stdout.readline().split()[-1]
    from tests.live.asking import Ui

    page = Ui(process, url, int(url.split(":")[2].partition("/")[0]), "")
    with page.stream("/stream", page.cookie) as stream:
        assert stream.readline().startswith(b"retry:")
        begun = time.monotonic()
        while time.monotonic() < begun + 3:
            assert process.poll() is None
            time.sleep(0.1)
    assert process.wait(30) == 0
    assert "ended: no request for 2s" in process.stderr.read()
    process.stdout.close()
    process.stderr.close()
