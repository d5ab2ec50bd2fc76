"""T63, T64: no text of a manifest or a server deceives the reader of a terminal, log or spreadsheet."""

import asyncio
import csv
import io
import json
import re
from typing import Any

import pytest

from tests.battery.api import Call, Reply, accepted, error, inventories, inventory
from tests.conftest import Cli, Done, corpus
from tests.security.servers import scripted
from tests.zstack.raw import http, raw_server

SESSION: dict[str, Any] = {"BULKIMG_SESSION": "5e551017" * 4}
# What a terminal obeys: C0 but newline, DEL, C1, directions, and the separators at which some viewers break lines.
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def hostile_texts() -> list[str]:
    return json.loads(corpus("bulkimg-hostile/terminal_and_log.json").read_text("utf-8"))  # type: ignore[no-any-return]


def formulas() -> list[str]:
    found = json.loads(corpus("bulkimg-hostile/csv_formula.json").read_text("utf-8"))
    return [*found, *corpus("csv-injection/csv-payload.txt").read_text("utf-8").splitlines()]


def obeyed(*done: Done) -> list[str]:
    return [found for one in done for stream in (one.out, one.err) for found in OBEYED.findall(stream)]


PLACES = ("plain", "details", "description", "code", "drift", "job", "job code", "unbound", "read")


def said(place: str, text: str, call: Call) -> Reply | bytes | None:
    """Return the hostile text in that place of the server's answers to one row."""
    if call.kind == "read":
        return inventories([{"uuid": call.uuid, "name": text}]) if place == "read" else None
    if call.kind == "put" and place.startswith("job"):
        return accepted(call.job)
    if call.kind == "poll" and not place.startswith("job"):
        return None
    if place == "plain":
        return http(f"refused {call.uuid}: {text}".encode(), "400 Bad Request")
    if place in ("unbound", "read"):
        return http(text.encode(), "200 OK")
    if place == "drift":
        return inventory(call.uuid, {"name": text, "description": text})
    field = {"job": "details", "job code": "code"}.get(place, place)
    given: dict[str, Any] = {
        "code": "SYS.1006",
        "description": "refused",
        "details": f"image[uuid:{call.uuid}]",
        field: text,
    }
    return error(**given)


async def told_everything(cli: Cli, texts: list[str], *options: str) -> Done:
    """A run in which each text is a row's new name, and is in every place of the server's answers."""
    pairs = [(text, place) for place in PLACES for text in texts]
    names = [f"n{n} {text}".replace("\0", "") for n, (text, _) in enumerate(pairs)]
    lines = [json.dumps({"uuid": f"{n:032x}", "description": name}) for n, name in enumerate(names)]
    cli.write("m.jsonl", "\n".join(lines) + "\n")
    jobs: dict[str, int] = {}

    def script(call: Call) -> Reply | bytes | None:
        if call.kind in ("put", "read"):
            number = int(call.uuid, 16)
            jobs.setdefault(call.job, number)
        elif call.kind == "poll":
            number = jobs[call.uuid]
        else:
            return None
        text, place = pairs[number]
        return said(place, text, call)

    async with raw_server(scripted(script)) as raw:
        words = ("run", "m.jsonl", "--yes", "-v", "--rate", "unlimited", "--retries", "0", "--max-errors", "none")
        given: dict[str, Any] = {**SESSION, "BULKIMG_ENDPOINT": raw.url}
        done = await asyncio.to_thread(lambda: cli(*words, *options, code=1, **given))
    assert len(cli.results()) == len(pairs)
    return done


def forged(text: str) -> list[str]:
    """Return lines that a hostile text made by itself."""
    return [line for line in text.splitlines() if line.startswith(("[OK]", "2026-01-01", "ERROR fake", "ok"))]


async def test_a_terminal_and_a_log_get_nothing_to_obey(cli: Cli) -> None:
    """The run itself, then everything that reports it later."""
    done = await told_everything(cli, hostile_texts())
    later = [await asyncio.to_thread(cli, *words) for words in (("status",), ("status", "--json"), ("runs",))]
    checked = await asyncio.to_thread(lambda: cli("run", "m.jsonl", "-n", **SESSION))
    assert obeyed(done, checked, *later) == []
    assert [line for one in (done, checked, *later) for line in forged(one.out + one.err)] == []


async def test_every_log_line_is_one_json_object(cli: Cli) -> None:
    done = await told_everything(cli, hostile_texts(), "--log-format", "json", "--progress", "json")
    assert obeyed(done) == []
    lines = done.err.split("\n")
    assert lines.pop() == ""
    assert {type(json.loads(line)) for line in lines} == {dict}
    assert all("event" in json.loads(line) for line in lines)


async def test_one_json_document_stays_one_whatever_the_server_says(cli: Cli) -> None:
    done = await told_everything(cli, hostile_texts(), "--json", "--progress", "none")
    assert obeyed(done) == []
    assert sum(done.json()["counts"].values()) == len(PLACES) * len(hostile_texts())


async def test_try_shows_a_hostile_answer_written_out(cli: Cli) -> None:
    text = "".join(hostile_texts())
    answers = [Reply.text(400, text), error(text, text, description=text), Reply.of(200, {text: text})]
    for answer in answers:
        async with raw_server(scripted(lambda call, answer=answer: answer if call.kind == "put" else None)) as raw:  # type: ignore[misc]
            given: dict[str, Any] = {**SESSION, "BULKIMG_ENDPOINT": raw.url}
            words = ("try", "7" * 32, "--set", f"description={text.replace(chr(0), '')}", "--send")
            done = await asyncio.to_thread(lambda given=given, words=words: cli(*words, code=None, **given))  # type: ignore[misc]
        assert done.code in (0, 1, 2)
        assert obeyed(done) == []


def test_hostile_arguments_and_file_names_are_written_out(cli: Cli) -> None:
    """`bulkimg check *` in a folder with names that another user chose."""
    for text in hostile_texts():
        name = text.replace("\0", "").replace("/", "")
        if not name.strip():
            continue
        (cli.place / f"{name}.csv").write_text("uuid,name\nx,y\n")
    names = sorted(path.name for path in cli.place.glob("*.csv"))
    for words in (
        ["check", names[0]], ["check", *names], ["check", "--\x1b[31m"], ["\x1b]0;pwned\x07"], ["run", "x.csv", "--rate", names[0]],
        ["status", names[0]], ["run", "x.csv", "--profile", names[0]], ["check", "x.csv", "--map", f"{names[0]}=\x1b[2J"],
    ):  # fmt: skip
        done = cli(*words, code=None)
        assert done.code in (2, 3), words
        assert obeyed(done) == [], words


def test_a_hostile_environment_is_written_out(cli: Cli) -> None:
    cli.write("m.csv", f"uuid,name\n{7:032x},x\n")
    for option in ("ENDPOINT", "RATE", "TIMEOUT", "PROFILE", "ENCODING", "PROGRESS"):
        done = cli("run", "m.csv", code=2, **SESSION, **{f"BULKIMG_{option}": "x\x1b]0;pwned\x07\u202e\x9b2J"})
        assert obeyed(done) == [], option


# ---------------------------------------------------------------------------------------------------------------------

_BEGINNINGS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
_SKIPPED = ' \t\r\n\v\f\u00a0\u3000\ufeff"'


def is_formula(cell: str) -> bool:
    """Return whether a spreadsheet might run the text.

    Written from OWASP's page alone. An apostrophe at the beginning makes it text.
    """
    return cell[:1] in tuple(_BEGINNINGS) or cell.lstrip(_SKIPPED)[:1] in tuple(_BEGINNINGS)


def records(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


async def test_no_cell_of_the_result_file_begins_like_a_formula(cli: Cli) -> None:
    """Names, codes, messages, hints and what the server shows; the JSONL is exact."""
    texts = formulas()
    await told_everything(cli, texts, "--results", "copy.csv")
    for path in (cli.run_dir() / "results.csv", cli.place / "copy.csv"):
        header, *rows = records(path.read_bytes().decode())
        assert len(rows) == len(texts) * len(PLACES)
        assert {len(row) for row in rows} == {len(header)}
        assert [cell for row in rows for cell in row if is_formula(cell)] == []
    shown = [
        result["after"].get("name") or result["after"]["description"] for result in cli.results() if result["after"]
    ]
    drifts = [text for text in texts for _ in range(1)]
    assert [text for text in shown if text in texts][: len(drifts)] == drifts


async def test_our_own_columns_of_what_is_fed_back_are_no_formulas(cli: Cli) -> None:
    """failed.csv: the manifest's cells are exact. `_status` and the like come from bulkimg and from the server."""
    await told_everything(cli, formulas())
    header, *rows = records((cli.run_dir() / "failed.csv").read_bytes().decode())
    ours = [at for at, name in enumerate(header) if name.startswith("_")]
    assert len(ours) == 4
    assert {len(row) for row in rows} == {len(header)}
    assert [row[at] for row in rows for at in ours if is_formula(row[at])] == []


@pytest.mark.parametrize("text", ["a\r=1+1", "a\rb", "\r=1+1", "a\nb", "a\r\nb", 'a"b', "a;b", "a\tb"])
def test_what_is_fed_back_is_a_manifest_again_whatever_a_cell_holds(cli: Cli, text: str) -> None:
    """A cell that ends a line would begin a row of its own."""
    cli.write("m.jsonl", "".join(json.dumps({"uuid": f"{n:032x}", "description": text}) + "\n" for n in range(2)))
    cli("run", "m.jsonl", "--yes", code=5, BULKIMG_ENDPOINT="http://127.0.0.1:9", **SESSION)
    fed_back = cli.run_dir() / "unprocessed.csv"
    assert {len(row) for row in records(fed_back.read_bytes().decode())} == {6}
    cli("check", str(fed_back))


@pytest.mark.parametrize("delimiter", ["\t"])
async def test_no_formula_begins_behind_another_delimiter(cli: Cli, delimiter: str) -> None:
    """A spreadsheet with another delimiter finds no formula either. `;` is an exception (README)."""
    payloads = [f"x{delimiter}{formula}" for formula in ("=1+1", "@SUM(1,1)", "=cmd|' /C calc'!A0")]
    await told_everything(cli, [*payloads, ";=1+1"])
    cells: list[Any] = [
        cell for row in records((cli.run_dir() / "results.csv").read_bytes().decode(), delimiter)[1:] for cell in row
    ]
    assert [cell for cell in cells if is_formula(cell)] == []
