"""The images are like real ones: data volumes without a platform, system images, images on several storages."""

from collections.abc import Iterator

import pytest

from bulkimg.sandbox.generate import make_images
from tests.conftest import Server, sandbox_process
from tests.sandbox.asking import ask, done, found, refused

GONE = {"platform", "architecture", "guestOsType"}


@pytest.fixture(scope="module")
def fleet(dialect: str) -> Iterator[Server]:
    with sandbox_process("--images", "60", "--dialect", dialect) as started:
        yield started


def volumes(server: Server) -> list[str]:
    return sorted(uuid for uuid, image in server.images().items() if image["mediaType"] == "DataVolumeTemplate")


def test_data_volumes_have_no_platform_no_architecture_and_no_guest_os(fleet: Server) -> None:
    images = fleet.images()
    assert volumes(fleet)
    for uuid, image in images.items():
        assert GONE.isdisjoint(image) if uuid in volumes(fleet) else image.keys() >= GONE


def test_a_small_fleet_has_a_data_volume_and_its_first_four_images_are_ordinary() -> None:
    for seed in range(40):
        images = make_images(10, seed)
        assert any("platform" not in image for image in images)
        for image in images[:4]:
            assert image.keys() >= GONE
            assert (image["system"], len(image["backupStorageRefs"])) == (False, 1)


def test_special_images_are_few() -> None:
    images = make_images(2000, 7)
    share = {
        "volumes": sum("platform" not in image for image in images) / 2000,
        "system": sum(image["system"] for image in images) / 2000,
        "copies": sum(len(image["backupStorageRefs"]) > 1 for image in images) / 2000,
    }
    assert 0.05 <= share["volumes"] <= 0.08
    assert 0.03 <= share["system"] <= 0.05
    assert 0.08 <= share["copies"] <= 0.12
    assert max(len(image["backupStorageRefs"]) for image in images) == 3


def test_a_larger_fleet_begins_with_the_smaller_one() -> None:
    assert make_images(500, 3)[:37] == make_images(37, 3)


def test_fields_with_platform_fail_where_the_page_has_a_data_volume(fleet: Server) -> None:
    code, details = refused(ask(fleet, "fields=uuid,name,platform"))
    assert code == "SYS.1000"
    assert "java.lang.NullPointerException" in details
    assert refused(ask(fleet, f"q=uuid={volumes(fleet)[0]}&fields=platform"))[0] == "SYS.1000"


def test_fields_with_platform_work_on_a_page_without_a_data_volume(fleet: Server) -> None:
    status, answer = ask(fleet, "q=mediaType!=DataVolumeTemplate&fields=uuid,platform")
    assert (status, {tuple(row) for row in answer["inventories"]}) == (200, {("uuid", "platform")})
    at = sorted(fleet.images()).index(volumes(fleet)[0])
    assert ask(fleet, f"sort=uuid&fields=platform&limit={at}")[0] == 200
    assert ask(fleet, f"sort=uuid&fields=platform&limit={at + 1}")[0] == 503


def test_a_data_volume_is_answered_whole_without_fields(fleet: Server) -> None:
    status, answer = ask(fleet, f"q=uuid={volumes(fleet)[0]}")
    assert status == 200
    assert GONE.isdisjoint(answer["inventories"][0])


def test_other_fields_of_a_data_volume_are_answered_and_nulls_left_out(fleet: Server) -> None:
    status, answer = ask(fleet, f"q=uuid={volumes(fleet)[0]}&fields=uuid,architecture,guestOsType")
    assert (status, answer["inventories"]) == (200, [{"uuid": volumes(fleet)[0]}])


def test_a_count_does_not_look_at_platforms(fleet: Server) -> None:
    status, answer = ask(fleet, "fields=platform&count=true")
    assert (status, answer["total"]) == (200, 60)


def test_is_null_and_not_null_part_the_fleet(fleet: Server) -> None:
    assert found(fleet, "platform is null") == volumes(fleet)
    assert sorted(found(fleet, "platform is null") + found(fleet, "platform not null")) == sorted(fleet.images())


def test_a_null_platform_is_neither_equal_nor_unequal(fleet: Server) -> None:
    both = found(fleet, "platform=Linux") + found(fleet, "platform!=Linux")
    assert set(both).isdisjoint(volumes(fleet))
    assert len(both) == 60 - len(volumes(fleet))


def test_a_get_of_one_image_ignores_its_parameters(fleet: Server) -> None:
    uuid = volumes(fleet)[0]
    for query in ("fields=platform", "q=name=nobody", "limit=0&start=5", "count=true", "q=without an operator"):
        status, answer = ask(fleet, query, f"images/{uuid}")
        assert status == 200, query
        assert [row["name"] for row in answer["inventories"]] == [fleet.images()[uuid]["name"]]


def test_a_data_volume_takes_a_platform(fleet: Server, dialect: str) -> None:
    uuid, key = volumes(fleet)[-1], "updateimage" if dialect == "documented" else "updateImage"
    assert done(fleet, "PUT", f"images/{uuid}/actions", {key: {"platform": "Linux"}})[0] == 200
    assert ask(fleet, f"q=uuid={uuid}&fields=platform")[1]["inventories"] == [{"platform": "Linux"}]
