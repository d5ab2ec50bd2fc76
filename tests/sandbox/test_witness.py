"""The battery's witness has data volumes too. It fails at their null platform as a real server does."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.battery.api import Call
from tests.battery.witness_api import WitnessApi


@pytest.fixture
def api() -> WitnessApi:
    return WitnessApi("zstack", 30, 1, 1, 0.0, lambda *_, **__: None)


def ask(api: WitnessApi, path: str, query: str) -> tuple[int, Any]:
    headers = {"authorization": f"OAuth {api.session}"}
    reply = api.answer(Call("GET", f"/zstack/v1/{path}", quote(query, safe="=&,?"), headers, b""))
    return reply.status, reply.document


def volumes(api: WitnessApi) -> list[str]:
    return [uuid for uuid, image in api.table.items() if "platform" not in image]


def test_the_witness_has_a_few_images_without_a_platform(api: WitnessApi) -> None:
    assert len(volumes(api)) == 2


def test_fields_with_platform_fail_where_such_an_image_is_on_the_page(api: WitnessApi) -> None:
    status, answer = ask(api, "images", "fields=platform,uuid")
    assert (status, answer["error"]["code"]) == (503, "SYS.1000")


def test_other_questions_are_answered(api: WitnessApi) -> None:
    assert ask(api, "images", "fields=name,uuid")[0] == 200
    assert ask(api, "images", "")[0] == 200
    assert ask(api, "images", "fields=platform&limit=5")[0] == 200
    assert ask(api, f"images/{volumes(api)[0]}", "fields=platform")[0] == 200
