"""Tags are created under the conditions of a real server: known patterns, all parameters, a resource that exists."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Server, sandbox_process
from tests.sandbox.asking import ask, create_tag, done, found, refused
from tests.sandbox.test_golden import call, oauth, poll

KNOWN = [
    "bootMode::UEFI",
    "bootMode::legacy",
    "sourceType::iso",
    "applianceType::vrouter",
    "GuestTools::1.0",
    "buildapp::shop",
    "image::cert::abc",
    "imageName::a::primaryStorageUuid::b",
    "packer",
    "qemuga",
    "remote",
    "temporary",
    "CreatedBySystem",
    "marketplace::true",
]
UNKNOWN = [
    "env::prod",
    "bootMode",
    "bootMode::",
    "bootmode::UEFI",
    "packer::x",
    "sourceType::a::b",
    "marketplace::false",
    "",
]


@pytest.fixture(scope="module")
def fleet(dialect: str) -> Iterator[Server]:
    with sandbox_process("--images", "12", "--dialect", dialect) as started:
        yield started


@pytest.fixture
def image(fleet: Server) -> str:
    """An image without special properties."""
    return next(uuid for uuid, found in fleet.images().items() if "platform" in found and not found["system"])


def no_match(tag: str) -> tuple[str, str]:
    return "SYS.1007", f"no system tag matches[{tag}] for resourceType[ImageVO]"


@pytest.mark.parametrize("tag", KNOWN)
def test_a_system_tag_of_a_known_pattern_is_created(fleet: Server, image: str, tag: str) -> None:
    status, answer = create_tag(fleet, "system", resourceUuid=image, tag=tag)
    assert (status, answer["inventory"]["tag"]) == (200, tag)
    assert done(fleet, "DELETE", f"tags/{answer['inventory']['uuid']}")[0] == 200


@pytest.mark.parametrize("tag", UNKNOWN)
def test_a_system_tag_of_an_unknown_pattern_is_refused(fleet: Server, image: str, tag: str) -> None:
    assert refused(create_tag(fleet, "system", resourceUuid=image, tag=tag)) == no_match(tag)
    assert tag not in fleet.images()[image]["_tags"]


def test_a_boot_mode_that_there_is_not_is_refused(fleet: Server, image: str) -> None:
    code, details = refused(create_tag(fleet, "system", resourceUuid=image, tag="bootMode::BIOS"))
    assert (code, details) == ("SYS.1007", "[BIOS] specified in system tag [bootMode::BIOS] is not a valid boot mode")


def test_user_tags_have_any_text(fleet: Server, image: str) -> None:
    status, answer = create_tag(fleet, "user", resourceUuid=image, tag="env::prod")
    assert status == 200
    assert done(fleet, "DELETE", f"tags/{answer['inventory']['uuid']}")[0] == 200


def test_several_system_tags_are_all_made_or_none(fleet: Server, image: str) -> None:
    path, params = f"system-tags/{image}/tags", {"resourceType": "ImageVO"}
    before = fleet.images()[image]["_tags"]
    assert refused(done(fleet, "POST", path, {"params": {**params, "tags": ["remote", "env::prod"]}})) == no_match(
        "env::prod"
    )
    assert fleet.images()[image]["_tags"] == before
    status, answer = done(fleet, "POST", path, {"params": {**params, "tags": ["remote", "temporary"]}})
    assert (status, [tag["tag"] for tag in answer["inventories"]]) == (200, ["remote", "temporary"])
    assert refused(done(fleet, "POST", path, {"params": params}))[1].startswith("field[tags] of message")


def test_a_system_tag_is_changed_to_a_known_pattern_only(fleet: Server, image: str) -> None:
    tag = create_tag(fleet, "system", resourceUuid=image, tag="sourceType::iso")[1]["inventory"]["uuid"]
    path = f"system-tags/{tag}/actions"
    assert refused(done(fleet, "PUT", path, {"updateSystemTag": {"tag": "env::prod"}})) == no_match("env::prod")
    assert "sourceType::iso" in fleet.images()[image]["_tags"]
    status, answer = done(fleet, "PUT", path, {"updateSystemTag": {"tag": "sourceType::url"}})
    assert (status, answer["inventory"]["tag"]) == (200, "sourceType::url")
    assert refused(done(fleet, "PUT", path, {"updateSystemTag": {}}))[0] == "SYS.1007"


def test_a_user_tag_is_no_system_tag(fleet: Server, image: str) -> None:
    tag = create_tag(fleet, "user", resourceUuid=image, tag="mine")[1]["inventory"]["uuid"]
    answered = done(fleet, "PUT", f"system-tags/{tag}/actions", {"updateSystemTag": {"tag": "packer"}})
    assert refused(answered) == ("SYS.1003", f"invalid field[uuid], resource[uuid:{tag}, type:SystemTagVO] not found")


def test_unknown_system_tags_in_an_update_are_refused_where_they_are_read(
    fleet: Server, image: str, dialect: str
) -> None:
    """The documented server keeps the tags of the body; a real one ignores them."""
    key = "updateimage" if dialect == "documented" else "updateImage"
    body = {key: {"description": "tagged"}, "systemTags": ["env::prod"], "userTags": ["env::prod"]}
    answered = done(fleet, "PUT", f"images/{image}/actions", body)
    if dialect == "documented":
        assert refused(answered) == no_match("env::prod")
        assert fleet.images()[image].get("description") != "tagged"
    else:
        assert (answered[0], answered[1]["inventory"]["description"]) == (200, "tagged")
    assert "env::prod" not in fleet.images()[image]["_tags"]


def test_known_system_tags_in_an_update_are_kept_by_the_documented_server_only(
    fleet: Server, image: str, dialect: str
) -> None:
    key = "updateimage" if dialect == "documented" else "updateImage"
    body = {key: {"description": "built"}, "systemTags": ["buildapp::shop"]}
    assert done(fleet, "PUT", f"images/{image}/actions", body)[0] == 200
    assert ("buildapp::shop" in fleet.images()[image]["_tags"]) is (dialect == "documented")


def test_a_dry_run_is_no_unknown_tag(fleet: Server, image: str, dialect: str) -> None:
    key = "updateimage" if dialect == "documented" else "updateImage"
    body = {key: {"name": "only tried"}, "systemTags": ["ephemeral::validationOnly"]}
    assert done(fleet, "PUT", f"images/{image}/actions", body) == (200, {})
    assert fleet.images()[image]["name"] != "only tried"


@pytest.mark.parametrize("kind", ["user", "system"])
@pytest.mark.parametrize("missing", ["tag", "resourceUuid", "resourceType"])
def test_a_missing_parameter_is_named(fleet: Server, image: str, kind: str, missing: str) -> None:
    params = {"resourceUuid": image, "tag": "packer", missing: None}
    assert refused(create_tag(fleet, kind, **params)) == (
        "SYS.1007",
        f"field[{missing}] of message[org.zstack.header.message.ApiMessageParamValidator] is mandatory, can not be null",
    )


@pytest.mark.parametrize("kind", ["user", "system"])
def test_a_resource_type_that_there_is_not_is_refused(fleet: Server, image: str, kind: str) -> None:
    answered = create_tag(fleet, kind, resourceUuid=image, tag="packer", resourceType="PictureVO")
    assert refused(answered) == ("SYS.1007", "no resource type[PictureVO] found in tag system")


@pytest.mark.parametrize("kind", ["user", "system"])
def test_a_resource_that_there_is_not_is_refused(fleet: Server, kind: str) -> None:
    assert refused(create_tag(fleet, kind, resourceUuid="0" * 32, tag="packer")) == (
        "SYS.1003",
        f"invalid field[resourceUuid], resource[uuid:{'0' * 32}, type:ResourceVO] not found",
    )


def test_parameters_are_looked_at_before_the_session(fleet: Server) -> None:
    dead = oauth(fleet) | {"Authorization": f"OAuth {'0' * 32}"}
    status, text, _ = call(fleet, "POST", "/zstack/v1/user-tags", {"params": {"resourceType": "ImageVO"}}, **dead)
    answered = status, json.loads(text)
    if status == 202:
        answered = poll(fleet, answered[1]["location"].rsplit("/", 1)[1])
    assert refused(answered)[0] == "SYS.1007"


def test_a_uuid_in_upper_case_is_tagged_as_the_image_it_is(fleet: Server, image: str) -> None:
    status, answer = create_tag(fleet, "user", resourceUuid=image.upper(), tag="shouted")
    assert (status, answer["inventory"]["resourceUuid"]) == (200, image)
    assert found(fleet, f"resourceUuid={image.upper()}", "tag=SHOUTED", what="user-tags") == [
        answer["inventory"]["uuid"]
    ]


def test_dates_of_tags_are_timestamps(fleet: Server, image: str) -> None:
    create_tag(fleet, "user", resourceUuid=image, tag="dated")
    assert found(fleet, "createDate>2020-01-01", "tag=dated", what="user-tags")
    assert found(fleet, "createDate<2020-01-01", what="user-tags") == []
    assert refused(ask(fleet, "q=createDate>soon", "user-tags"))[0] == "SYS.1000"
