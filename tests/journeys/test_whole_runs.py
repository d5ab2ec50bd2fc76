"""Whole runs against the sandbox in both dialects: one outcome and one PUT for every row, the table as asked for."""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Cli, Server, corpus, sandbox_process
from tests.stamped import stamped_sandbox
from tests.windows import most_within

COUNT = 5000


@pytest.fixture(scope="module")
def big(dialect: str) -> Iterator[Server]:
    with sandbox_process("--images", str(COUNT), "--dialect", dialect) as found:
        yield found


def rows_for(server: Server, mark: str) -> list[dict[str, str]]:
    platforms = ("Linux", "Windows", "Other")
    return [
        {
            "uuid": uuid,
            "name": f'{mark}-{n:05d} 镜像, "{n}"',
            "platform": platforms[n % 3],
            "virtio": str(n % 2 == 0).lower(),
        }
        for n, uuid in enumerate(sorted(server.images()))
    ]


def as_csv(rows: list[dict[str, str]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps({**row, "virtio": row["virtio"] == "true"}) + "\n" for row in rows)


def check_whole(cli: Cli, server: Server, rows: list[dict[str, str]], puts: list[dict[str, Any]]) -> None:
    """Check the figures of the issue with code that is independent of bulkimg."""
    results = cli.results()
    assert [result["uuid"] for result in results] == [row["uuid"] for row in rows]
    assert {result["status"] for result in results} == {"updated"}
    with (cli.run_dir() / "results.csv").open(newline="", encoding="utf-8") as file:
        assert [record["uuid"] for record in csv.DictReader(file, strict=True)] == [row["uuid"] for row in rows]
    images = server.images()
    for row in rows:
        image = images[row["uuid"]]
        assert (image["name"], image["platform"], image["virtio"]) == (
            row["name"],
            row["platform"],
            row["virtio"] == "true",
        )
    spelled = Counter(next(iter(json.loads(put["body"]))) for put in puts)
    assert len(puts) == len(rows) + (spelled["updateimage"] if "updateImage" in spelled else 0)
    if "updateImage" in spelled:
        assert spelled["updateimage"] == 1, "only the first PUT asks how the server spells the key"
    assert all(count == 1 for uuid, count in Counter(put["path"] for put in puts[2:]).items())


@pytest.mark.parametrize(("form", "count"), [("m.csv", COUNT), ("m.jsonl", 1000), ("m.csv.gz", 1000)])
def test_every_row_of_each_format_is_sent_once(cli: Cli, big: Server, form: str, count: int) -> None:
    rows = rows_for(big, form)[:count]
    text = (as_jsonl if "jsonl" in form else as_csv)(rows)
    cli.write(form, gzip.compress(text.encode()) if form.endswith("gz") else text)
    before = len(big.puts())
    cli.at(big)("run", form, "--yes", "--rate", "unlimited", "--concurrency", "32", "--progress", "none")
    check_whole(cli, big, rows, big.puts()[before:])


@pytest.mark.parametrize(("rate", "rows"), [(100, 250), (1000, 2500)])
def test_the_rate_is_never_passed_in_any_second(cli: Cli, dialect: str, rate: int, rows: int) -> None:
    """All requests count, polls too, by the server's kernel. `make battery` measures that the rate is reached."""
    with stamped_sandbox(images=rows, dialect=dialect) as server:
        cli.write("m.csv", as_csv(rows_for(server, f"r{rate}")))
        cli.at(server)("run", "m.csv", "--yes", "--rate", f"{rate}/s", "--concurrency", "64", "--progress", "none")
        times = sorted(request["at"] for request in server.requests())
    assert len(times) > rows
    assert most_within(1.0, times) <= rate


def test_requests_in_flight_never_pass_the_concurrency(cli: Cli, dialect: str) -> None:
    with sandbox_process("--images", "60", "--dialect", dialect, "--workers", "100", "--service-time", "100") as server:
        cli.write("m.csv", as_csv(rows_for(server, "c")))
        cli.at(server)("run", "m.csv", "--yes", "--rate", "unlimited", "--concurrency", "7")
        puts = [put["at"] for put in server.puts()]
        assert most_within(0.095, sorted(puts)) <= 7 + 7
        assert (max(puts) - min(puts)) >= 0.1 * (60 // 7 - 1)


def test_naughty_names_reach_the_server_byte_for_byte(cli: Cli, big: Server) -> None:
    naughty = [
        text
        for text in json.loads(corpus("blns/blns.json").read_text("utf-8"))
        if text.strip(" \ufeff") and "\0" not in text
    ]
    uuids = sorted(big.images())
    cli.write(
        "m.jsonl",
        "".join(json.dumps({"uuid": u, "description": text}) + "\n" for u, text in zip(uuids, naughty, strict=False)),
    )
    cli.at(big)("run", "m.jsonl", "--yes", "--skip-invalid", "--rate", "unlimited", code=None)
    blank = "".join(map(chr, range(0x21)))
    images = big.images()
    for result, text in zip(cli.results(), naughty, strict=True):
        if result["status"] == "updated":
            assert images[result["uuid"]]["description"] == text.strip(blank)
        else:
            assert result["status"] == ("unchanged" if "\u3000" in text else "invalid"), result  # all of it is blank
