"""Conditions compare as the server's MySQL does: texts without case, dates as timestamps, numbers as numbers."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import pytest

from bulkimg.sandbox.dates import java_date, read_java_date, read_sql_date
from bulkimg.sandbox.generate import make_images
from bulkimg.sandbox.images import ImageTable
from bulkimg.sandbox.query import run_query
from tests.conftest import Server, sandbox_process
from tests.sandbox.asking import ask, done, found, refused

START = datetime.fromisoformat("2024-01-01 08:00:00")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Server]:
    with sandbox_process("--images", "80") as started:
        yield started


def where(server: Server, fits: Callable[[dict[str, Any]], bool]) -> list[str]:
    return sorted(uuid for uuid, image in server.images().items() if fits(image))


def created(image: dict[str, Any]) -> datetime:
    return read_java_date(image["createDate"])


def test_java_dates_are_read_as_they_were_written() -> None:
    for hour in (0, 1, 11, 12, 13, 23):
        moment = datetime.fromisoformat(f"2026-04-07 {hour:02}:10:09")
        assert read_java_date(java_date(moment)) == moment


@pytest.mark.parametrize("text", ["2024-01-20 00:00:00", "2024-01-20", "2024-1-20 0:00", "2024-01-20T00:00:00.0"])
def test_sql_timestamps_are_read(text: str) -> None:
    assert read_sql_date(text) == datetime.fromisoformat("2024-01-20")


def test_dates_are_compared_as_timestamps(fleet: Server) -> None:
    line = datetime.fromisoformat("2024-01-20")
    assert found(fleet, "createDate>2024-01-20 00:00:00") == where(fleet, lambda i: created(i) > line)
    assert found(fleet, "createDate<=2024-01-20") == where(fleet, lambda i: created(i) <= line)
    assert 0 < len(found(fleet, "createDate>2024-01-20 00:00:00")) < 80


def test_a_date_is_equal_to_its_timestamp(fleet: Server) -> None:
    assert found(fleet, "createDate=2024-01-01 08:00:00") == where(fleet, lambda i: created(i) == START)
    assert len(found(fleet, "createDate?=2024-01-01 08:00:00,2024-01-01 15:00:00")) == 2
    assert len(found(fleet, "createDate!=2024-01-01 08:00:00")) == 79


def test_like_sees_a_date_as_a_timestamp(fleet: Server) -> None:
    assert found(fleet, "createDate~=2024-01-02%") == where(
        fleet, lambda i: created(i).day == 2 and created(i).month == 1
    )


def test_a_sort_by_date_is_a_sort_by_time(fleet: Server) -> None:
    dates = [created(row) for row in ask(fleet, "sort=createDate")[1]["inventories"]]
    assert dates == sorted(dates)
    down = [created(row) for row in ask(fleet, "sort=-createDate")[1]["inventories"]]
    assert down == sorted(dates, reverse=True)


@pytest.mark.parametrize("value", ["yesterday", "2024-13-01", "Jan 20, 2024 8:00:00 AM", "2024-01-20 25:00:00"])
def test_a_value_that_is_no_date_is_an_internal_error(fleet: Server, value: str) -> None:
    assert refused(ask(fleet, f"q=createDate>{value}"))[0] == "SYS.1000"


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("platform=linux", lambda i: i.get("platform") == "Linux"),
        ("platform!=LINUX", lambda i: i.get("platform") not in (None, "Linux")),
        ("platform?=WINDOWS,other", lambda i: i.get("platform") in ("Windows", "Other")),
        ("platform!?=windows,OTHER", lambda i: i.get("platform") == "Linux"),
        ("name~=%UBUNTU%", lambda i: "ubuntu" in i["name"]),
        ("name!~=%UBUNTU%", lambda i: "ubuntu" not in i["name"]),
        ("name<M", lambda i: i["name"].upper() < "M"),
        ("name>=m", lambda i: i["name"].upper() >= "M"),
    ],
)
def test_texts_are_compared_without_case(fleet: Server, condition: str, fits: Callable[[dict[str, Any]], bool]) -> None:
    assert found(fleet, condition) == where(fleet, fits)
    assert 0 < len(found(fleet, condition)) < 80


def test_blanks_at_the_end_do_not_count(fleet: Server) -> None:
    assert found(fleet, "platform=linux  ") == found(fleet, "platform=Linux")
    assert found(fleet, "platform= Linux") == []
    assert found(fleet, "platform~=Linux ") == [], "LIKE counts them"


def test_a_sort_ignores_case(fleet: Server) -> None:
    a, b, c, *_ = sorted(fleet.images())
    for uuid, name in ((a, "zz Beta"), (b, "ZZ alpha"), (c, "zz GAMMA")):
        assert done(fleet, "PUT", f"images/{uuid}/actions", {"updateImage": {"name": name}})[0] == 200
    names = [row["name"] for row in ask(fleet, "sort=name&q=name~=zz%")[1]["inventories"]]
    assert names == ["ZZ alpha", "zz Beta", "zz GAMMA"]


def test_numbers_are_compared_as_numbers(fleet: Server) -> None:
    assert found(fleet, "size>9000000000") == where(fleet, lambda i: i["size"] > 9000000000)
    size = next(iter(fleet.images().values()))["size"]
    assert found(fleet, f"size={size}.0") == where(fleet, lambda i: i["size"] == size)


def test_flags_are_true_or_false_and_nothing_else(fleet: Server) -> None:
    assert found(fleet, "system=true") == where(fleet, lambda i: i["system"])
    assert found(fleet, "system!=TRUE") == where(fleet, lambda i: not i["system"])
    assert refused(ask(fleet, "q=system=yes"))[0] == "SYS.1000"


def test_a_uuid_in_upper_case_finds_its_image(fleet: Server) -> None:
    uuid = sorted(fleet.images())[10]
    for condition in (f"uuid={uuid.upper()}", f"uuid?={uuid.upper()},{'F' * 32}", f"uuid~={uuid.upper()}"):
        assert found(fleet, condition) == [uuid]
    assert found(fleet, f"uuid>{uuid.upper()}") == sorted(fleet.images())[11:]
    assert found(fleet, f"uuid!={uuid.upper()}") == [other for other in sorted(fleet.images()) if other != uuid]


def test_a_path_with_a_uuid_in_upper_case_is_the_images(fleet: Server) -> None:
    uuid = sorted(fleet.images())[11]
    assert ask(fleet, "", f"images/{uuid.upper()}")[1]["inventories"][0]["uuid"] == uuid
    status, answer = done(fleet, "PUT", f"images/{uuid.upper()}/actions", {"updateImage": {"name": "seen"}})
    assert (status, answer["inventory"]["uuid"]) == (200, uuid)
    assert fleet.images()[uuid]["name"] == "seen"


class OnlyByIndex(ImageTable):
    """A table that must not be read row by row."""

    def all(self, beyond: str = "") -> Iterable[dict[str, Any]]:
        raise AssertionError(beyond)


def test_two_hundred_uuids_are_found_by_the_index() -> None:
    table = OnlyByIndex(make_images(1000, 1), datetime.now)
    uuids = sorted(table.rows)[::5]
    answer = run_query(table, {"q": [f"uuid?={','.join(uuids).upper()}"]})
    assert [row["uuid"] for row in answer["inventories"]] == uuids


def test_an_apostrophe_breaks_a_question(fleet: Server) -> None:
    for condition in ("name=it's", "name?=a,it's", "name~=%'%", "__userTag__=it's"):
        assert refused(ask(fleet, f"q={condition}"))[0] == "SYS.1000", condition
