"""The bar and the messages on terminals of 60 and of 200 columns: complete, with nothing cut."""

import re
from collections.abc import Iterator

import pytest

from tests.cli.terminal import at_width
from tests.cli.test_commands import manifest, some_images
from tests.conftest import UUID, Cli, Server, sandbox_process


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    with sandbox_process("--images", "200", "--service-time", "100") as found:
        yield found


@pytest.mark.parametrize("columns", [60, 200])
def test_the_bar_shows_rows_pace_and_troubles_whole(cli: Cli, slow: Server, columns: int) -> None:
    text = manifest(some_images(slow, 60)).splitlines()
    text[5:5] = [f"{UUID[:-1]}{n},is not there" for n in range(3)]
    cli.write("m.csv", "\n".join(text) + "\n")
    code, lines = at_width(
        cli.at(slow), columns, "run", "m.csv", "--yes", "--no-survey", "--rate", "30/s", "--concurrency", "4"
    )
    assert code == 1, lines
    heads = [line for line in lines if "━" in line or re.search(r"\d %  ", line)]
    paces = [line for line in lines if "in flight" in line and "rows/s" in line]
    troubles = [line for line in lines if re.fullmatch(r"[123] failed\s*", line)]
    assert heads
    assert paces
    assert troubles, "what is not fine is named"
    assert all(re.search(r"\d+ %  \d+/63 rows(, \d+:\d\d left)?\s*$", line) for line in heads), heads
    whole = r"\d+\.\d rows/s, \d+ requests/s \(cap 30(\.0)?/s\), \d+ in flight\s*"
    assert all(re.fullmatch(whole, line) for line in paces), paces
    assert all(len(line.rstrip()) <= columns for line in heads + paces + troubles)
    assert not any("…" in line for line in heads + paces + troubles)
    assert any("100 %" in line for line in heads)


def test_without_a_cap_none_is_shown(cli: Cli, slow: Server) -> None:
    cli.write("m.csv", manifest(some_images(slow, 20, 80)))
    code, lines = at_width(cli.at(slow), 60, "run", "m.csv", "--yes", "--no-survey", "--rate", "unlimited")
    assert code == 0
    paces = [line for line in lines if "in flight" in line and "rows/s" in line]
    assert paces
    assert not any("cap" in line for line in paces)


def test_messages_wrap_at_words_and_a_command_stays_whole(cli: Cli, slow: Server) -> None:
    cli.write("m.csv", f"uuid,name\n{UUID},is not there\n")
    long = "a-directory-with-a-name-that-is-longer-than-the-terminal-is-wide"
    code, lines = at_width(cli.at(slow), 60, "run", "m.csv", "--yes", "--rate", "unlimited", "--runs-dir", long)
    assert code == 1
    (following,) = (line for line in lines if line.startswith("next:"))
    assert re.fullmatch(rf"next:    bulkimg retry \S+ --runs-dir {long}", following.rstrip())
    assert len(following) > 60
    others = [line for line in lines if not re.match(r"(next|results|check|review):", line) and long not in line]
    assert others
    assert [line for line in others if len(line.rstrip()) > 60] == []


def test_no_word_is_cut_where_a_message_wraps(cli: Cli) -> None:
    cli.write("m.csv", f"uuid,platform\n{UUID},Linx\n")
    narrow = at_width(cli, 60, "run", "m.csv", "--yes")[1]
    wide = at_width(cli, 2000, "run", "m.csv", "--yes")[1]
    assert len(narrow) > len(wide)

    def said(lines: list[str]) -> list[str]:
        words = " ".join(" ".join(lines).split()).split(" ")
        return [re.sub(r"\d{8}-\d{6}\.\d{3}-\w{4}", "RUN", word) for word in words]

    assert said(narrow) == said(wide)
