"""The sandbox answers exactly as samples/wire says. The same files bind the client."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.conftest import Server, sandbox_process
from tests.zstack.test_wire import golden

JOB = "1" * 32


def call(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Send one request as any client would. Returns (status, text, headers)."""
    data = None if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(f"{server.url}{path}", data, names, method=method)
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)


def poll(server: Server, job: str, **headers: str) -> tuple[int, Any]:
    """Return the job's result, which is there after a moment."""
    for _ in range(200):
        status, text, _ = call(server, "GET", f"/zstack/v1/api-jobs/{job}", **headers)
        if status != 202:
            return status, json.loads(text) if text.startswith("{") else text
    raise AssertionError("the job never ended")


def oauth(server: Server) -> dict[str, str]:
    return {"Authorization": f"OAuth {server.session}", "Content_Type": "application/json;charset=UTF-8"}


def first_image(server: Server) -> str:
    return next(iter(server.images()))


@pytest.fixture(scope="module")
def documented() -> Iterator[Server]:
    with sandbox_process("--dialect", "documented", "--images", "5") as found:
        yield found


def shape(value: Any) -> Any:
    """Return keys and types, without the values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__


def test_the_documented_dialect_answers_as_the_page_shows(documented: Server) -> None:
    g = golden("update-documented")
    image = first_image(documented)
    status, text, _ = call(
        documented, "PUT", f"/zstack/v1/images/{image}/actions", g["request"]["body"], **oauth(documented)
    )
    assert status == g["answer"]["status"]
    assert shape(json.loads(text)) == shape(g["answer"]["body"])
    assert json.loads(text)["inventory"]["name"] == "TinyLinux"
    assert documented.images()[image]["virtio"] is True


def test_the_zstack_dialect_accepts_and_points_elsewhere(server: Server) -> None:
    """202, and a location on an address that the client cannot reach."""
    g = golden("update-zstack")
    job = "2" * 32
    status, text, headers = call(
        server,
        "PUT",
        f"/zstack/v1/images/{first_image(server)}/actions",
        g["request"]["body"],
        X_Job_UUID=job,
        **oauth(server),
    )
    assert (status, shape(json.loads(text))) == (g["answer"]["status"], shape(g["answer"]["body"]))
    assert json.loads(text)["location"] == g["answer"]["body"]["location"].replace(
        g["request"]["headers"]["X-Job-UUID"], job
    )
    assert "Content-Type" not in headers
    status, answer = poll(server, job)
    assert (status, answer["inventory"]["name"]) == (200, "TinyLinux")


def test_a_missing_image_fails_in_the_job(server: Server) -> None:
    call(
        server,
        "PUT",
        f"/zstack/v1/images/{'0' * 32}/actions",
        {"updateImage": {}},
        X_Job_UUID="3" * 32,
        **oauth(server),
    )
    status, answer = poll(server, "3" * 32)
    expected = golden("job-failed")["answer"]
    assert status == expected["status"]
    assert {key: answer["error"][key] for key in expected["body"]["error"]} == expected["body"]["error"]


def test_login_query_and_logout(server: Server) -> None:
    g = golden("login")
    status, text, _ = call(server, "PUT", "/zstack/v1/accounts/login", g["request"]["body"])
    assert status == 200
    session = json.loads(text)["inventory"]
    assert set(g["answer"]["keys"]) <= session.keys()
    valid = f"/zstack/v1/accounts/sessions/{session['uuid']}/valid"
    assert json.loads(call(server, "GET", valid)[1]) == {"valid": True}
    assert call(server, "DELETE", f"/zstack/v1/accounts/sessions/{session['uuid']}")[:2] == (200, "{}")
    assert json.loads(call(server, "GET", valid)[1]) == {"valid": False}
    wrong = {"logInByAccount": {"accountName": "admin", "password": "x"}}
    status, text, _ = call(server, "PUT", "/zstack/v1/accounts/login", wrong)
    assert (status, json.loads(text)["error"]["code"]) == (503, "ID.1000")
    status, text, _ = call(server, "PUT", "/zstack/v1/accounts/login", {"logIn": {}})
    assert (status, json.loads(text)["error"]["code"]) == (503, "SYS.1007")


def test_the_rest_layers_own_texts(server: Server) -> None:
    texts = {item["what"]: (item["status"], item["text"]) for item in golden("texts")["texts"]}
    image = "fadea0efc22e3e6fa43f537f1af6ee6b"
    path, ok = f"/zstack/v1/images/{image}/actions", {"updateImage": {"name": "x"}}
    asked = {
        "another action key": call(server, "PUT", path, {"updateimage": {}}, **oauth(server)),
        "no Authorization": call(server, "PUT", path, ok),
        "Authorization: Bearer x": call(server, "PUT", path, ok, Authorization="Bearer x"),
        "X-Job-UUID: short": call(server, "PUT", path, ok, X_Job_UUID="short", **oauth(server)),
        "system: yes": call(server, "PUT", path, {"updateImage": {"system": "yes"}}, **oauth(server)),
        "unknown job": call(server, "GET", f"/zstack/v1/api-jobs/{'9' * 32}"),
        "POST to a job": call(server, "POST", f"/zstack/v1/api-jobs/{'9' * 32}", {}),
        "unknown path": call(server, "GET", "/zstack/v1/nothing"),
    }
    assert {what: answer[:2] for what, answer in asked.items()} == texts


def test_a_job_uuid_is_taken_once(server: Server) -> None:
    path = f"/zstack/v1/images/{first_image(server)}/actions"
    assert call(server, "PUT", path, {"updateImage": {}}, X_Job_UUID=JOB, **oauth(server))[0] == 202
    assert call(server, "PUT", path, {"updateImage": {}}, X_Job_UUID=JOB, **oauth(server))[:2] == (
        400,
        f"Duplicate job uuid[{JOB}]",
    )


def test_a_dead_session_shows_at_the_poll_and_after_validation(server: Server) -> None:
    path = f"/zstack/v1/images/{first_image(server)}/actions"
    dead = {"Authorization": f"OAuth {'0' * 32}"}
    call(server, "PUT", path, {"updateImage": {"name": "x"}}, X_Job_UUID="4" * 32, **dead)
    assert poll(server, "4" * 32)[1]["error"]["code"] == "ID.1001"
    call(server, "PUT", path, {"updateImage": {"format": "vmdk"}}, X_Job_UUID="5" * 32, **dead)
    assert poll(server, "5" * 32)[1]["error"]["code"] == "SYS.1007"


@pytest.mark.parametrize(
    ("inner", "stored"),
    [
        ({"name": "  trimmed\t"}, {"name": "trimmed"}),
        ({"name": "\u00a0kept"}, {"name": "\u00a0kept"}),
        ({"description": ""}, {"description": ""}),
        ({"nmae": "ignored", "guestOsType": None}, {}),
        ({"system": "TRUE"}, {"system": True}),
    ],
)
def test_what_the_server_stores(server: Server, inner: dict[str, Any], stored: dict[str, Any]) -> None:
    image = first_image(server)
    before = server.images()[image]
    body = {"updateImage": inner, "userTags": ["ignored"]}
    job = json.loads(call(server, "PUT", f"/zstack/v1/images/{image}/actions", body, **oauth(server))[1])
    assert poll(server, job["location"].rsplit("/", 1)[1])[0] == 200
    after = server.images()[image]
    assert {**before, **stored, "lastOpDate": after["lastOpDate"]} == after
    assert "ignored" not in after["_tags"]


def test_utf_16_lengths_and_enumerations(server: Server) -> None:
    image = first_image(server)

    def error(inner: dict[str, Any]) -> str:
        job = json.loads(
            call(server, "PUT", f"/zstack/v1/images/{image}/actions", {"updateImage": inner}, **oauth(server))[1]
        )
        return str(poll(server, job["location"].rsplit("/", 1)[1])[1]["error"]["details"])

    assert "expected was <= 255, actual was 256" in error({"name": "😀" * 128})
    assert "are [RootVolumeTemplate, DataVolumeTemplate, ISO], but Foo found" in error({"mediaType": "Foo"})


def test_architecture_rewrites_the_boot_mode_tag(server: Server) -> None:
    image = first_image(server)

    def update(**fields: Any) -> list[str]:
        job = json.loads(
            call(server, "PUT", f"/zstack/v1/images/{image}/actions", {"updateImage": fields}, **oauth(server))[1]
        )
        poll(server, job["location"].rsplit("/", 1)[1])
        return list(server.images()[image]["_tags"])

    assert update(architecture="aarch64") == ["bootMode::UEFI"]
    assert update(architecture="x86_64", system=False) == ["bootMode::UEFI"]
    assert update(architecture="x86_64", system=True) == ["bootMode::Legacy"]


def test_queries(server: Server) -> None:
    def query(text: str) -> dict[str, Any]:
        status, body, _ = call(server, "GET", f"/zstack/v1/images{text}", **oauth(server))
        assert status == 200, body
        return json.loads(body)  # type: ignore[no-any-return]

    uuids = sorted(server.images())
    found = query(f"?q=uuid?={uuids[0]},{uuids[1]}&fields=uuid,name&replyWithCount=true")
    assert (len(found["inventories"]), found["total"]) == (2, 2)
    assert set(found["inventories"][0]) == {"uuid", "name"}
    pages = [
        row["uuid"]
        for start in (0, 100, 200, 300)
        for row in query(f"?limit=100&start={start}&sort=uuid")["inventories"]
    ]
    assert pages == uuids
    assert query("?q=platform!=Linux&count=true")["total"] < 300
    assert len(query("?condition=uuid=x&limit=3")["inventories"]) == 3  # unknown parameters are ignored
    assert query(f"/{uuids[0]}")["inventories"][0]["uuid"] == uuids[0]
    assert query(f"/{'0' * 32}")["inventories"] == []
    assert query("?limit=1")["schema"]["inventories[0]"] == "org.zstack.header.image.ImageInventory"


def test_tags(server: Server) -> None:
    image = sorted(server.images())[5]
    create = {"params": {"resourceType": "ImageVO", "resourceUuid": image, "tag": "team::web"}}

    def done(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        text = call(server, method, f"/zstack/v1/{path}", body, **oauth(server))[1]
        return poll(server, json.loads(text)["location"].rsplit("/", 1)[1], X_JSON_Schema="true")

    status, answer = done("POST", "user-tags", create)
    assert (status, answer["schema"]) == (200, {"inventory": "org.zstack.header.tag.UserTagInventory"})
    assert "Duplicated Tag" in done("POST", "user-tags", create)[1]["error"]["details"]
    _, text, _ = call(server, "GET", f"/zstack/v1/user-tags?q=resourceUuid={image}", **oauth(server))
    (tag,) = json.loads(text)["inventories"]
    assert done("DELETE", f"tags/{tag['uuid']}?deleteMode=Permissive") == (200, {})
    assert done("DELETE", f"tags/{tag['uuid']}") == (200, {})
    assert server.images()[image]["_tags"] == []
