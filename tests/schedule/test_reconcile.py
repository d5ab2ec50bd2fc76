"""A night on which nothing has to change: what it asks the server, and that it says nothing."""

from collections.abc import Iterator

import pytest

from tests.conftest import Cli, Server, sandbox_process

IMAGES = 1000
A_QUESTION = 200  # images


@pytest.fixture(scope="module")
def many() -> Iterator[Server]:
    with sandbox_process("--images", str(IMAGES)) as found:
        yield found


@pytest.mark.parametrize(("fields", "more"), [("name", 0), ("name,description,platform", 1)])
def test_a_night_without_a_change_asks_once_for_200_images(cli: Cli, many: Server, fields: str, more: int) -> None:
    """One more where the server fails at `fields`: some images have no platform, and the first question finds that out."""
    here = cli.at(many)
    here("export", "--fields", fields, "-o", "m.csv")
    cli.write("job.toml", '[job]\nname = "nightly"\nmanifest = "m.csv"\n[run]\nyes = true\nquiet = true\n')
    before = len(many.requests())
    done = here("run", "job.toml")
    asked = many.requests()[before:]
    assert (done.code, done.out, done.err) == (0, "", "")
    assert len(asked) <= IMAGES / A_QUESTION + more
    assert {request["method"] for request in asked} == {"GET"}
    assert cli.summary()["counts"]["unchanged"] == IMAGES


def test_a_login_costs_two_requests_and_tags_one_more_question(cli: Cli, many: Server) -> None:
    images = sorted(many.images())[:400]
    cli.write("m.csv", "uuid,userTags\n" + "".join(f"{uuid},nightly\n" for uuid in images[:3]))
    here = cli.at(many)
    here("run", "m.csv", "--yes", "-q", "--rate", "unlimited")
    before = len(many.requests())
    account = Cli(cli.place, {"BULKIMG_ENDPOINT": many.url, "BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "password"})
    done = account("run", "m.csv", "--yes", "-q")
    assert (done.out, done.err) == ("", "")
    assert len(many.requests()) - before <= 4, "login, images, tags, logout"
