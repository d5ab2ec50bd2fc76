"""A hostile manifest: its ids reach no other API, it adds no field, and a long line takes no memory."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cli, Server, corpus
from tests.security.figures import measured
from tests.security.servers import OURS
from tests.security.watching import watch

MB = 1 << 20
MOST_GROWTH = 64 * MB


def test_hostile_ids_reach_no_url(cli: Cli, server: Server) -> None:
    """Every id of the corpus in one manifest: refused as a whole; with --skip-invalid only the good row is sent."""
    hostile = json.loads(corpus("bulkimg-hostile/ids.json").read_text("utf-8"))["must_reject"]
    good = sorted(server.images())[0]
    lines = [json.dumps({"uuid": text, "name": "x"}) for text in [*hostile, None, 5, [], {"uuid": good}, good]]
    cli.write("m.jsonl", "\n".join(lines) + "\n")
    before = len(server.requests())
    cli.at(server)("run", "m.jsonl", "--yes", code=3)
    assert len(server.requests()) == before
    cli.at(server)("run", "m.jsonl", "--yes", "--skip-invalid", "--action-key", "updateImage", code=1)
    sent = server.requests()[before:]
    assert [request["path"] for request in sent if not OURS.fullmatch(request["path"])] == []
    assert [request["path"] for request in sent if request["path"].endswith("/actions")] == [
        f"/zstack/v1/images/{good}/actions"
    ]
    assert [row["status"] for row in cli.results()] == ["invalid"] * (len(lines) - 1) + ["updated"]


@pytest.mark.parametrize(
    "extra",
    [
        {"session": {"uuid": "0" * 32}}, {"updateImage": {"name": "x", "session": {}}}, {"params": {"name": "x"}},
        {"system": "rm -rf"}, {"headers": {"Authorization": "OAuth x"}}, {"constructor": {"name": "y"}}, {"url": "file:///x"},
        {"updateimage": {"name": "x"}, "deleteImage": {}}, {"resourceUuid": "0" * 32}, {"Name": "x"},
    ],
)  # fmt: skip
def test_fields_that_are_not_of_the_list_never_reach_a_body(cli: Cli, server: Server, extra: dict[str, object]) -> None:
    """The row is refused before anything is sent, and the message names the field."""
    before = len(server.requests())
    cli.write("m.jsonl", json.dumps({"uuid": sorted(server.images())[0], **extra}) + "\n")
    done = cli.at(server)("run", "m.jsonl", "--yes", code=3)
    assert len(server.requests()) == before
    assert next(reversed(extra)) in done.err or "session" in done.err


def one_long_line(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"uuid,name\n" + b"7" * 32 + b",")
        for _ in range(50):
            file.write(b"x" * MB)


def one_long_quote(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"uuid,name\n" + b"7" * 32 + b',"')
        for _ in range(800):
            file.write(b"x" * 60_000 + b"\n")


def many_long_rows(path: Path) -> None:
    """Make rows that are short enough to be read, but too large to hold a fixed number of them at a time."""
    with path.open("wb") as file:
        file.write(b"uuid,name\n")
        for number in range(800):
            file.write(f"{number:032x},".encode() + b"x" * 60_000 + b"\n")


def one_long_json(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b'{"uuid": "' + b"7" * 32 + b'", "name": "')
        for _ in range(50):
            file.write(b"\\u0041" * (MB // 6))
        file.write(b'"}\n')


def deep_json(path: Path) -> None:
    path.write_bytes(b'{"uuid": "' + b"7" * 32 + b'", "userTags": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")


def gzip_of_zeros(path: Path) -> None:
    path.write_bytes(gzip.compress(b"uuid,name\n" + b"\0" * (200 * MB), compresslevel=1))


BIG: dict[str, Callable[[Path], None]] = {
    "line.csv": one_long_line,
    "quote.csv": one_long_quote,
    "rows.csv": many_long_rows,
    "line.jsonl": one_long_json,
    "deep.jsonl": deep_json,
    "zeros.csv.gz": gzip_of_zeros,
}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The peak memory of checking one good row."""
    cli = Cli(tmp_path_factory.mktemp("usual"))
    cli.write("m.csv", f"uuid,name\n{7:032x},x\n")
    return watch(cli, "check", "m.csv", cold=True).peak


@pytest.mark.parametrize("name", BIG)
def test_a_bomb_of_a_manifest_is_a_problem_and_not_memory(cli: Cli, name: str, usual: int) -> None:
    BIG[name](cli.place / name)
    seen = watch(cli, "check", name, cold=True)
    growth = seen.peak - usual
    measured(f"T51 {name}", f"peak {seen.peak / MB:.0f} MB ({growth / MB:+.0f} MB), {seen.seconds:.1f} s")
    assert seen.code == 3, seen.err
    assert growth <= MOST_GROWTH
    assert len(seen.out) < MB
