"""Queries name columns of the inventory, tags, and linked rows. All other names are refused."""

from collections.abc import Iterator

import pytest

from bulkimg.sandbox.inventory import IMAGE
from tests.conftest import Server, sandbox_process
from tests.sandbox.asking import NO_COLUMN, ask, found, refused


@pytest.fixture(scope="module")
def fleet() -> Iterator[Server]:
    with sandbox_process("--images", "60") as started:
        yield started


@pytest.mark.parametrize("query", ["q=platfrom=Linux", "q=platfrom is null", "sort=platfrom", "fields=uuid,platfrom"])
def test_an_unknown_name_is_an_internal_error(fleet: Server, query: str) -> None:
    code, details = refused(ask(fleet, query))
    assert code == "SYS.1000"
    assert NO_COLUMN.format("platfrom") in details


def test_names_have_their_case(fleet: Server) -> None:
    assert NO_COLUMN.format("Name") in refused(ask(fleet, "q=Name=x"))[1]


@pytest.mark.parametrize("kind", ["User", "System"])
@pytest.mark.parametrize("query", ["q=name=x", "sort=name", "fields=uuid,name"])
def test_an_unknown_name_of_a_tag_is_an_internal_error(fleet: Server, kind: str, query: str) -> None:
    code, details = refused(ask(fleet, query, f"{kind.lower()}-tags"))
    assert code == "SYS.1000"
    assert f"org.zstack.header.tag.{kind}TagInventory] not having field[name]" in details


@pytest.mark.parametrize("name", sorted(IMAGE.fields))
def test_every_column_can_be_asked_about(fleet: Server, name: str) -> None:
    for query in (f"q={name} is null", f"sort={name}", f"q=mediaType!=DataVolumeTemplate&fields={name}"):
        assert ask(fleet, query)[0] == 200, query


@pytest.mark.parametrize("name", ["backupStorageRefs", "systemTags"])
def test_a_list_is_no_column(fleet: Server, name: str) -> None:
    for query in (f"fields=uuid,{name}", f"sort={name}", f"q={name}=x"):
        assert refused(ask(fleet, query))[0] == "SYS.1000", query


def test_unknown_parameters_are_ignored(fleet: Server) -> None:
    status, answer = ask(fleet, "condition=nobody=x&quantity=3&limit=4")
    assert (status, len(answer["inventories"])) == (200, 4)


def test_storages_find_the_images_that_lie_on_them(fleet: Server) -> None:
    uuid, image = next((u, i) for u, i in sorted(fleet.images().items()) if len(i["backupStorageRefs"]) > 1)
    ref = image["backupStorageRefs"][-1]
    storage = ref["backupStorageUuid"]
    on_it = sorted(
        other
        for other, found_image in fleet.images().items()
        if storage in {one["backupStorageUuid"] for one in found_image["backupStorageRefs"]}
    )
    assert uuid in on_it
    assert found(fleet, f"backupStorageRef.installPath={ref['installPath']}") == [uuid]
    for condition in (
        f"backupStorageRef.backupStorageUuid={storage}",
        f"backupStorageRefs.backupStorageUuid?={storage},x",
        f"backupStorage.uuid={storage.upper()}",
        f"backupStorage.name=ceph-bs-{storage[:4]}",
        f"backupStorageRef.backupStorage.name~=%-{storage[:4]}",
    ):
        assert found(fleet, condition) == on_it, condition


def test_the_status_of_a_ref_finds_images(fleet: Server) -> None:
    assert found(fleet, "backupStorageRef.status=ready") == sorted(fleet.images())
    assert found(fleet, "backupStorageRef.status=Deleted") == []
    assert found(fleet, "backupStorageRef.exportUrl is null") == sorted(fleet.images())


def test_no_volume_was_made_of_an_image(fleet: Server) -> None:
    assert found(fleet, "volume.name=x") == []


def test_unknown_names_at_the_end_of_a_path_are_refused(fleet: Server) -> None:
    for condition in ("backupStorage.platform=x", "backupStorageRef.id=1", "nothing.name=x", "backupStorage.x.y=1"):
        assert refused(ask(fleet, f"q={condition}"))[0] == "SYS.1000", condition


def test_user_tags_find_their_images(fleet: Server) -> None:
    a, b, c, *_ = everything = sorted(fleet.images())
    fleet.tag(a, "team::web", "env::prod")
    fleet.tag(b, "team::db")
    assert found(fleet, "__userTag__=TEAM::web") == [a]
    assert found(fleet, "__userTag__~=team::%") == [a, b]
    assert found(fleet, "__userTag__?=team::db,env::prod") == [a, b]
    assert found(fleet, "__userTag__ not null") == [a, b]
    assert found(fleet, "__userTag__ is null") == []
    assert found(fleet, "__userTag__!=team::db") == [a, *everything[2:]], "also who has no tag"
    assert found(fleet, "__userTag__!~=team::%") == everything[2:]
    assert found(fleet, "__userTag__!?=team::db,team::web") == everything[2:]
    assert found(fleet, "__systemTag__~=team::%") == []
    assert c not in found(fleet, "__userTag__~=%")


def test_system_tags_find_their_images(fleet: Server) -> None:
    uuid = sorted(fleet.images())[7]
    fleet.tag(uuid, "sourceType::qcow2", kind="system")
    assert found(fleet, "__systemTag__=sourceType::qcow2") == [uuid]
    assert found(fleet, "__systemTag__~=sourceType::%", f"uuid={uuid}") == [uuid]
    assert found(fleet, "__userTag__=sourceType::qcow2") == []
