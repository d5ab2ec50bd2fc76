"""The bodies of samples/wire bind the client to the documents.

tests/sandbox/test_golden.py binds the sandbox to the same files.
"""

import json
from typing import Any

import pytest

from bulkimg.zstack import wire
from bulkimg.zstack.wire import Answer
from tests.conftest import ROOT, UUID


def golden(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "samples" / "wire" / f"{name}.json").read_text("utf-8"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["update-documented", "update-zstack"])
def test_the_update_body_is_the_documents(name: str) -> None:
    body = golden(name)["request"]["body"]
    key = next(iter(body))
    fields = {**body[key], **{tags: body[tags] for tags in ("systemTags", "userTags") if tags in body}}
    assert json.loads(wire.update_body(key, fields)) == body


def test_the_login_body_carries_the_sha512_of_the_password() -> None:
    assert json.loads(wire.login_body("admin", "password")) == golden("login")["request"]["body"]


def test_the_signature_is_what_openssl_computes() -> None:
    g = golden("access-key")
    assert wire.sign(g["secret"], g["method"], g["date"], g["path"]) == g["signature"]


def test_the_documents_answers_are_understood() -> None:
    answer = golden("update-documented")["answer"]["body"]
    assert wire.inventory_of(answer) == answer["inventory"]
    accepted = golden("update-zstack")
    assert wire.job_of(accepted["answer"]["body"]) == accepted["request"]["headers"]["X-Job-UUID"]
    error = wire.error_of(golden("job-failed")["answer"]["body"])
    assert error is not None
    assert (error.code, "not found" in error.text) == ("SYS.1003", True)


def test_bodies_are_ascii_whatever_the_name() -> None:
    """So a server that reads ISO-8859-1 reads them correctly (docs/dev/protocol.md §1)."""
    raw = wire.update_body("updateImage", {"name": "镜像 😀"})
    assert raw.isascii()
    assert json.loads(raw)["updateImage"]["name"] == "镜像 😀"


@pytest.mark.parametrize(
    "location",
    [
        "http://evil.example/x",
        f"http://h/v1/api-jobs/{UUID}/../../accounts",
        f"http://h/v1/api-jobs/{UUID}?x",
        f"http://h/v1/accounts/{UUID}",
        f"http://h/v1/api-jobs/{UUID.upper()}",
        "",
        None,
        5,
        [],
    ],
)
def test_a_location_without_a_job_is_none(location: Any) -> None:
    assert wire.job_of({"location": location}) is None


@pytest.mark.parametrize("raw", [b"", b"[" * 100_000, b"1" * 6000, b'{"a":NaN}', b"\xff{}", b"{}x", b'{"a":"\\ud800"}'])
def test_what_is_not_exactly_json_is_none(raw: bytes) -> None:
    assert Answer(200, raw).json() is None


def test_an_error_that_names_other_images_only_is_known() -> None:
    other = "f" * 32
    assert wire.names_another(f"resource[uuid:{other}, type:ImageVO] not found", UUID)
    assert not wire.names_another(f"resource[uuid:{UUID}, type:ImageVO] not found", UUID)
    assert not wire.names_another(f"account[uuid:{other}] is not the owner", UUID)
