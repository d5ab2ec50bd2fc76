"""`name` in the results is the image's present name, as far as it is known."""

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import Cli, Server


@pytest.fixture
def done(cli: Cli, server: Server, tmp_path: Path) -> tuple[list[dict[str, str]], dict[str, str]]:
    """One row of each kind, and the names that the images had."""
    names = {image["uuid"]: image["name"] for image in server.images().values()}
    renamed, kept, conflicting, same = sorted(names)[:4]
    (tmp_path / "m.csv").write_text(
        "uuid,name,description,if_description\n"
        f"{renamed},=new name,,\n{kept},,other,\n{conflicting},,other,not this\n{same},{names[same]},,\n{'f' * 32},x,,\n"
    )
    cli(
        "run", "m.csv", "--yes", "--rate", "unlimited", "--endpoint", server.url, code=1, BULKIMG_SESSION=server.session
    )
    with (cli.run_dir() / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    exact = [json.loads(line) for line in (cli.run_dir() / "results.jsonl").read_text().splitlines()]
    assert [row["name"] for row in exact] == ["=new name", names[kept], names[conflicting], names[same], ""]
    return rows, names


def test_results_name_the_image_as_it_is_called_now(done: tuple[list[dict[str, str]], dict[str, str]]) -> None:
    rows, names = done
    _, kept, conflicting, same = sorted(names)[:4]
    assert [row["status"] for row in rows] == ["updated", "updated", "conflict", "unchanged", "failed"]
    assert [row["name"] for row in rows] == ["'=new name", names[kept], names[conflicting], names[same], ""]
    assert list(rows[0])[-1] == "name"
