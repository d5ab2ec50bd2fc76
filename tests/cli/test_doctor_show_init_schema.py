"""doctor, show, init and schema: their output and exit codes. None of them changes anything."""

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from jsonschema import Draft202012Validator

from bulkimg.report.schemas import NAMES
from tests.cli.test_commands import manifest, some_images
from tests.conftest import ROOT, UUID, Cli, Server, sandbox_process
from tests.zstack.test_tls import HOST, tls_server

DEAD = "http://127.0.0.1:9"
FAST = ("--rate", "unlimited")


# -- doctor -------------------------------------------------------------------------------------------------------------


def checks(cli: Cli, *words: str, code: int, **environment: str) -> dict[str, dict[str, str]]:
    """Return doctor's results by name."""
    document = cli("doctor", "--json", *words, code=code, **environment).json()
    assert document["exit_code"] == code
    return {check["name"]: check for check in document["checks"]}


def failed(found: dict[str, dict[str, str]]) -> list[str]:
    return [name for name, check in found.items() if check["result"] == "fail"]


def test_doctor_finds_everything_set_up(cli: Cli, server: Server) -> None:
    found = checks(cli.at(server), code=0)
    assert list(found) == [
        "runs directory", "endpoint", "credentials", "tls", "login", "images", "tags", "clock", "dialect",
    ]  # fmt: skip
    assert {check["result"] for check in found.values()} == {"ok"}
    assert found["images"]["message"] == "this account sees 300 images"
    lines = cli.at(server)("doctor").out.splitlines()
    assert len(lines) == len(found)
    assert all(line.startswith("ok    ") for line in lines)


def test_doctor_leaves_nothing_behind(cli: Cli, server: Server) -> None:
    before = sorted(cli.place.rglob("*"))
    cli.at(server)("doctor")
    assert sorted(cli.place.rglob("*")) == before


@pytest.mark.parametrize("kind", ["session", "account", "access key"])
def test_doctor_sends_no_put_but_a_login_and_shows_no_secret(cli: Cli, kind: str) -> None:
    with sandbox_process("--images", "3") as own:
        secret = re.search(r"BULKIMG_ACCESS_KEY_SECRET=(\w+)", own.greeting)
        key = re.search(r"BULKIMG_ACCESS_KEY_ID=(\w+)", own.greeting)
        assert secret
        assert key
        given: dict[str, Any] = {
            "session": {"BULKIMG_SESSION": own.session},
            "account": {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "password"},
            "access key": {"BULKIMG_ACCESS_KEY_ID": key[1], "BULKIMG_ACCESS_KEY_SECRET": secret[1]},
        }[kind]
        images = own.images()
        said = cli("doctor", BULKIMG_ENDPOINT=own.url, **given)
        said_json = cli("doctor", "--json", BULKIMG_ENDPOINT=own.url, **given)
        sent = [(request["method"], request["path"].rsplit("/", 1)[-1]) for request in own.requests()]
        assert own.images() == images
    assert {what for what in sent if what[0] == "PUT"} == ({("PUT", "login")} if kind == "account" else set())
    assert {method for method, _ in sent} <= {"GET", "PUT", "DELETE"}
    assert ("DELETE" in {method for method, _ in sent}) == (kind == "account"), "it logs out what it logged in"
    text = said.out + said.err + said_json.out + said_json.err
    for hidden in (own.session, secret[1]):
        assert hidden not in text
    assert "password" not in text.replace("and a password", "")


def test_doctor_without_an_endpoint_says_how_to_name_one(cli: Cli) -> None:
    found = checks(cli, code=2, BULKIMG_SESSION="x")
    assert failed(found) == ["endpoint"]
    assert "BULKIMG_ENDPOINT" in found["endpoint"]["hint"]


def test_doctor_without_credentials_says_how_to_set_them(cli: Cli, server: Server) -> None:
    found = checks(cli, "--endpoint", server.url, code=2)
    assert failed(found) == ["credentials"]
    assert "BULKIMG_SESSION" in found["credentials"]["hint"]
    assert "login" not in found


def test_doctor_at_a_dead_port_says_so_at_once(cli: Cli) -> None:
    found = checks(cli, "--endpoint", DEAD, code=5, BULKIMG_SESSION="x")
    assert failed(found) == ["server"]
    assert "refused" in found["server"]["message"]
    assert "check that the server is running" in found["server"]["hint"]


@pytest.mark.parametrize(
    "given",
    [
        {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "canary-of-a-secret"},
        {"BULKIMG_SESSION": "canary-of-a-secret"},
        {"BULKIMG_ACCESS_KEY_ID": "sandboxno", "BULKIMG_ACCESS_KEY_SECRET": "canary-of-a-secret"},
    ],
    ids=["account", "session", "access key"],
)
def test_doctor_with_wrong_credentials_is_a_failed_login_without_the_secret(
    cli: Cli, server: Server, given: dict[str, str]
) -> None:
    found = checks(cli, "--endpoint", server.url, code=5, **given)
    assert failed(found) == ["login"]
    done = cli("doctor", "--endpoint", server.url, code=5, **given)
    assert "canary" not in done.out + done.err + json.dumps(found)


def test_doctor_says_what_to_do_below_what_failed(cli: Cli) -> None:
    lines = cli("doctor", "--endpoint", DEAD, code=5, BULKIMG_SESSION="x").out.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("fail"))
    assert lines[at + 1].startswith("      ")
    assert "check that" in lines[at + 1]


async def test_doctor_does_not_accept_a_certificate_of_an_unknown_authority(cli: Cli, tmp_path: Path) -> None:
    authority = trustme.CA()
    async with tls_server(authority.issue_cert(HOST)) as tls:
        found = await asyncio.to_thread(
            checks, cli, "--endpoint", f"https://{HOST}:{tls.port}", code=5, BULKIMG_SESSION="canary-of-a-session"
        )
        assert found["tls"]["result"] == "fail"
        assert "certificate is not accepted" in found["tls"]["message"]
        assert "--ca-file" in found["tls"]["hint"]
        assert tls.bodies == []
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        found = await asyncio.to_thread(
            checks, cli, "--endpoint", f"https://{HOST}:{tls.port}", "--ca-file", str(tmp_path / "ca.pem"), code=5,
            BULKIMG_SESSION="canary-of-a-session",
        )  # fmt: skip
        assert found["tls"]["result"] == "ok"
        assert "certificate is valid for" in found["tls"]["message"]


async def test_doctor_warns_of_a_certificate_that_ends_soon(cli: Cli, tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    soon = datetime.now(UTC) + timedelta(days=3, hours=1)
    async with tls_server(authority.issue_cert(HOST, not_after=soon)) as tls:
        found = await asyncio.to_thread(
            checks, cli, "--endpoint", f"https://{HOST}:{tls.port}", "--ca-file", str(tmp_path / "ca.pem"), code=5,
            BULKIMG_SESSION="x",
        )  # fmt: skip
    assert (found["tls"]["result"], found["tls"]["message"]) == ("warn", "the certificate ends in 3 days")


def test_doctor_refuses_a_runs_directory_that_is_a_file(cli: Cli, server: Server) -> None:
    cli.write("taken", "")
    found = checks(cli.at(server), "--runs-dir", "taken", code=2)
    assert failed(found) == ["runs directory"]
    assert "is not a directory" in found["runs directory"]["message"]
    assert "--runs-dir" in found["runs directory"]["hint"]


def test_doctor_refuses_a_runs_directory_that_is_not_writable(cli: Cli, server: Server) -> None:
    """As a user without privileges: root may write everywhere."""
    (cli.place / "closed").mkdir(mode=0o500)
    for name in ("closed", "closed/runs"):
        words = ["doctor", "--json", "--runs-dir", name]
        done = subprocess.run(
            ["unshare", "--user", "--map-user=54321", sys.executable, "-m", "bulkimg", *words],
            cwd=cli.place,
            env=cli.at(server).env(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        (found,) = (check for check in json.loads(done.stdout)["checks"] if check["result"] == "fail")
        assert found["name"] == "runs directory"
        assert found["message"].endswith("closed is not writable")
        assert "--runs-dir" in found["hint"]


def test_doctor_counts_set_up_before_server(cli: Cli) -> None:
    cli.write("taken", "")
    found = checks(cli, "--runs-dir", "taken", "--endpoint", DEAD, code=2, BULKIMG_SESSION="x")
    assert failed(found) == ["runs directory", "server"]


# -- show ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def past(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, str, str]:
    """A folder with a run of one image and its undo: (command line, uuid, the image's name)."""
    cli = Cli(tmp_path_factory.mktemp("past")).at(server)
    (uuid,) = some_images(server, 1, 200)
    name = server.images()[uuid]["name"]
    cli.write("m.csv", f"uuid,name\n{uuid},shown once\n")
    cli("run", "m.csv", "--yes", "--run-id", "forth", *FAST)
    cli("undo", "forth", "--yes", *FAST)
    return cli, uuid, name


def test_show_has_the_values_and_the_history_newest_first(past: tuple[Cli, str, str]) -> None:
    cli, uuid, name = past
    document = cli("show", uuid, "--json").json()
    assert (document["exit_code"], document["uuid"], document["error"]) == (0, uuid, "")
    assert document["image"]["name"] == name
    assert [(one["kind"], one["status"], one["changed"]) for one in document["history"]] == [
        ("undo", "updated", ["name"]),
        ("run", "updated", ["name"]),
    ]
    assert document["history"][1]["run_id"] == "forth"
    assert document["history"][1]["before"]["name"] == name
    assert document["history"][1]["after"]["name"] == "shown once"


def test_show_says_the_same_in_words(past: tuple[Cli, str, str]) -> None:
    cli, uuid, name = past
    said = cli("show", uuid).out
    assert said.startswith(f"image {uuid} on http://127.0.0.1:")
    assert re.search(rf"^  name +'{re.escape(name)}'$", said, re.MULTILINE)
    assert f"    name: 'shown once' → '{name}'" in said
    assert "run forth, line 2: updated" in said
    assert said.index(" undo ") < said.index(" run forth")


def test_show_takes_a_uuid_with_dashes_and_capitals(past: tuple[Cli, str, str]) -> None:
    cli, uuid, _ = past
    dashed = f"{uuid[:8]}-{uuid[8:12]}-{uuid[12:16]}-{uuid[16:20]}-{uuid[20:]}".upper()
    assert cli("show", dashed, "--json").json()["uuid"] == uuid


def test_show_reads_only(past: tuple[Cli, str, str], server: Server) -> None:
    cli, uuid, _ = past
    before = len(server.requests())
    cli("show", uuid)
    assert {request["method"] for request in server.requests()[before:]} == {"GET"}


def test_show_of_a_missing_image_is_exit_1(past: tuple[Cli, str, str]) -> None:
    cli, _, _ = past
    done = cli("show", UUID, code=1)
    assert "the server has no such image" in done.out
    assert "has a row for it" in done.out
    document = cli("show", UUID, "--json", code=1).json()
    assert (document["image"], document["history"], document["exit_code"]) == (None, [], 1)


def test_show_without_the_server_shows_the_history(past: tuple[Cli, str, str]) -> None:
    cli, uuid, _ = past
    done = cli("show", uuid, "--endpoint", DEAD, code=5)
    assert "run forth, line 2: updated" in done.out
    assert "refused" in done.err
    document = cli("show", uuid, "--endpoint", DEAD, "--json", code=5).json()
    assert (document["image"], len(document["history"]), document["exit_code"]) == (None, 2, 5)
    assert "refused" in document["error"]


def test_show_with_a_ledger_that_is_broken_shows_the_others(past: tuple[Cli, str, str]) -> None:
    cli, uuid, _ = past
    broken = cli.place / "runs" / "20200101-000000.000-brkn"
    broken.mkdir()
    (broken / "run.db").write_bytes(b"is no database, only text" * 100)
    try:
        done = cli("show", uuid, "--json")
    finally:
        (broken / "run.db").unlink()
        broken.rmdir()
    assert len(done.json()["history"]) == 2
    assert "warning" in done.err


@pytest.mark.parametrize("uuid", ["x", "0" * 31, "0" * 33, "g" * 32, ""])
def test_show_of_what_is_no_uuid_is_exit_2(past: tuple[Cli, str, str], uuid: str) -> None:
    assert "is not an image uuid; give 32 hexadecimal digits" in past[0]("show", uuid, code=2).err


# -- init ---------------------------------------------------------------------------------------------------------------


def test_init_writes_a_job_file_that_can_be_tried_at_once(cli: Cli, server: Server) -> None:
    cli.write("job.toml", cli("init").out)
    cli.write("relabel.csv", manifest(some_images(server, 2)))
    before = len(server.requests())
    done = cli("run", "job.toml", "--dry-run")
    assert "2 rows would be sent; nothing was" in done.out
    assert len(server.requests()) == before


def test_init_writes_the_same_into_a_file(cli: Cli) -> None:
    done = cli("init", "nightly.toml")
    same = cli("init").out.replace('name = "relabel"', 'name = "nightly"').replace("job.toml", "nightly.toml")
    assert (done.out, (cli.place / "nightly.toml").read_text()) == ("", same)
    assert "bulkimg run nightly.toml --dry-run" in done.err


def test_init_never_overwrites(cli: Cli) -> None:
    cli.write("job.toml", "mine")
    assert "exists already and is left as it is" in cli("init", "job.toml", code=2).err
    assert (cli.place / "job.toml").read_text() == "mine"
    (cli.place / "link.toml").symlink_to("nowhere")
    cli("init", "link.toml", code=2)
    assert not (cli.place / "nowhere").exists()


@pytest.mark.parametrize("name", ["job", "job.csv", "none/job.toml"])
def test_init_refuses_a_name_that_cannot_be_a_job_file(cli: Cli, name: str) -> None:
    assert name in cli("init", name, code=2).err
    assert list(cli.place.rglob("job*")) == []


def uncommented(text: str) -> tuple[str, int]:
    """Return the text with every commented key and table activated, and how many there were."""
    return re.subn(r"^# (?=\w+ = |\[\[)", "", text, flags=re.MULTILINE)


def test_every_commented_key_of_init_is_right(cli: Cli, server: Server) -> None:
    text, keys = uncommented(cli("init").out)
    assert keys > 10
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    cli.write("config/bulkimg/config.toml", f'[profile.prod]\nendpoint = "{server.url}"\n')
    cli.write("job.toml", text)
    (image,) = some_images(server, 1)
    cli.write("relabel.csv", f"image_id,name,platform\n{image},x,Linux\n")
    assert "1 row would be sent" in cli("run", "job.toml", "--dry-run").out
    assert errors("job", tomllib.loads(text)) == []


def test_each_commented_key_of_init_is_right_by_itself(cli: Cli) -> None:
    lines = cli("init").out.splitlines()
    found: list[int] = []
    table = ""
    for at, line in enumerate(lines):
        table = line if re.match(r"(# )?\[", line) else table
        if re.match(r"# \w+ = ", line) and not table.startswith("#"):  # of a commented table all keys are one thing
            found.append(at)
    assert len(found) > 13
    for at in found:
        one = [*lines[:at], lines[at].removeprefix("# "), *lines[at + 1 :]]
        assert errors("job", tomllib.loads("\n".join(one))) == [], lines[at]


# -- schema -------------------------------------------------------------------------------------------------------------


def schema(name: str) -> dict[str, Any]:
    from bulkimg.report.schemas import schema as made

    return made(name)


def errors(name: str, document: Any) -> list[str]:
    """Return the errors of a document by its published schema."""
    found = Draft202012Validator(schema(name)).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in found]


def test_schema_lists_every_name(cli: Cli) -> None:
    assert [line.split()[0] for line in cli("schema").out.splitlines()] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_is_valid_json_schema(cli: Cli, name: str) -> None:
    document = cli("schema", name).json()
    Draft202012Validator.check_schema(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document == schema(name)
    assert errors(name, {"nonsense": 1})
    assert errors(name, [])


def test_an_unknown_schema_is_exit_2_with_the_nearest(cli: Cli) -> None:
    assert "there is no schema 'sumary'; did you mean 'summary'?" in cli("schema", "sumary", code=2).err


@pytest.fixture(scope="module")
def used(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A folder with a successful run, a failed one, an undo and a plan."""
    cli = Cli(tmp_path_factory.mktemp("used")).at(server)
    cli.write("m.csv", manifest(some_images(server, 3, 100)))
    cli.write("bad.csv", "uuid,name\nx,y\n")
    cli.write("failing.csv", f"uuid,name\n{UUID},x\n")
    cli("run", "m.csv", "--yes", "--run-id", "fine", *FAST)
    cli("run", "failing.csv", "--yes", "--run-id", "not-fine", *FAST, code=1)
    cli("undo", "fine", "--yes", *FAST)
    cli("plan", "m.csv", "--run-id", "planned", *FAST)
    return cli


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("summary", ("run", "m.csv", "--yes", "--json", *FAST), 0),
        ("summary", ("run", "failing.csv", "--yes", "--json", *FAST), 1),
        ("summary", ("run", "m.csv", "--yes", "--json", "--no-survey", "--rate", "20/s"), 0),
        ("summary", ("run", "m.csv", "--yes", "--json", "--endpoint", DEAD), 5),
        ("summary", ("retry", "not-fine", "--yes", "--json", *FAST), 1),
        ("plan", ("plan", "m.csv", "--json", *FAST), 0),
        ("plan", ("plan", "failing.csv", "--json", *FAST), 1),
        ("status", ("status", "fine", "--json"), 0),
        ("status", ("status", "not-fine", "--json"), 0),
        ("status", ("status", "planned", "--json"), 0),
        ("check", ("check", "m.csv", "--json"), 0),
        ("check", ("check", "bad.csv", "--json"), 3),
        ("results", ("results", "fine", "--as", "jsonl", "--out", "fine.jsonl", "--json"), 0),
        ("doctor", ("doctor", "--json"), 0),
        ("doctor", ("doctor", "--json", "--endpoint", DEAD), 5),
        ("show", ("show", UUID, "--json"), 1),
        ("show", ("show", UUID, "--json", "--endpoint", DEAD), 5),
        ("error", ("run", "none.csv", "--json"), 3),
        ("error", ("status", "nothing", "--json"), 2),
        ("error", ("show", "x", "--json"), 2),
        ("error", ("run", "m.csv", "--colour", "--json"), 2),
        ("error", ("runn", "--json"), 2),
        ("error", ("verify", "fine", "--json", "--timeout", "soon"), 2),
    ],
)
def test_a_real_document_fits_its_schema(used: Cli, name: str, words: tuple[str, ...], code: int) -> None:
    assert errors(name, used(*words, code=code).json()) == []


def test_every_element_of_runs_fits_the_schema_of_status(used: Cli) -> None:
    document = used("runs", "--json").json()
    listed = document["runs"] if isinstance(document, dict) else document
    assert {one["kind"] for one in listed} >= {"run", "undo"}
    assert [error for one in listed for error in errors("status", one)] == []


def test_every_summary_on_disk_fits_its_schema(used: Cli) -> None:
    found = list((used.place / "runs").glob("*/summary.json"))
    assert len(found) >= 3
    assert [error for path in found for error in errors("summary", json.loads(path.read_text()))] == []


def test_an_image_with_a_history_fits_its_schema(past: tuple[Cli, str, str]) -> None:
    assert errors("show", past[0]("show", past[1], "--json").json()) == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "m.csv", "--yes", *FAST), 0),
        (("run", "failing.csv", "--yes", "-v", *FAST), 1),
        (("run", "m.csv", "--yes", "--rate", "20/s", "--max-duration", "300ms", "--no-survey"), 6),
        (("run", "m.csv", "--yes", "--endpoint", DEAD), 5),
        (("run", "bad.csv", "--yes"), 3),
        (("run", "m.csv", "--colour"), 2),
        (("undo", "fine", "--yes", *FAST), 0),
        (("plan", "m.csv", *FAST), 0),
    ],
)
def test_every_line_of_standard_error_fits_the_schema_of_events(
    used: Cli, server: Server, words: tuple[str, ...], code: int
) -> None:
    if code in (0, 6):
        used.write("m.csv", manifest(some_images(server, 40, 100)))
    done = used(*words, "--log-format", "json", "--progress", "json", code=None, BULKIMG_NO_SUCH_THING="1")
    assert done.code == code or words[0] == "undo", done.err
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert lines
    assert [error for line in lines for error in errors("events", line)] == []
    if words[0] == "run" and code in (0, 1, 6):
        assert {"progress", "summary", "started"} <= {line["event"] for line in lines}


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.toml")), ids=lambda path: path.name)
def test_every_job_file_here_fits_the_schema_of_jobs(path: Path) -> None:
    assert errors("job", tomllib.loads(path.read_text("utf-8"))) == []


def test_the_schema_of_jobs_finds_mistakes() -> None:
    good: dict[str, Any] = {"schema": 1, "job": {"manifest": "m.csv"}}
    query: dict[str, Any] = {"source": {"sql_file": "q.sql", "url_file": "u", "allow_empty": True, "timeout": "5m"}}
    assert errors("job", good) == errors("job", query) == errors("job", query | {"job": {"name": "x"}}) == []
    mistakes: list[dict[str, Any]] = [
        {"job": {}}, {}, {"schema": 2, "job": {"manifest": "m.csv"}}, good | {"pase": {}}, good | {"pace": {"rat": 1}},
        good | {"pace": {"concurrency": "many", "adaptive": "x"}}, good | {"set": {"name": ["x"]}},
        good | query, {"source": {"sql_file": "q.sql"}}, {"source": {"url_file": "u"}}, {"source": query["source"] | {"url": "u"}},
        {"source": query["source"] | {"url_command": ["x"]}},
    ]  # fmt: skip
    for wrong in mistakes:
        assert errors("job", wrong), wrong


def rows() -> Iterator[Any]:
    for line in (ROOT / "samples" / "migration.jsonl").read_text("utf-8").splitlines():
        yield json.loads(line)


def test_every_row_of_the_sample_fits_the_schema_of_manifests() -> None:
    found = list(rows())
    assert found
    assert [error for row in found for error in errors("manifest", row)] == []


def test_what_export_writes_fits_the_schema_of_manifests(used: Cli) -> None:
    text = used("export", "--format", "jsonl", "--with-expectations").out
    assert [error for line in text.splitlines() for error in errors("manifest", json.loads(line))] == []


def test_the_schemas_need_no_validator_of_ours_to_be_written() -> None:
    """jsonschema is a dependency of the tests and not of the program."""
    assert "jsonschema" not in (ROOT / "pyproject.toml").read_text().split("[dependency-groups]")[0]
    assert sys.modules["jsonschema"]
