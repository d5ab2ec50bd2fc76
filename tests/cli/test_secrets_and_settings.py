"""Credentials as systemd, Kubernetes and Docker provide them; job files and profiles as editors save them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import manifest, some_images
from tests.conftest import UUID, Cli, Server

FAST = ("--yes", "--rate", "unlimited")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def here(cli: Cli, server: Server) -> Cli:
    cli.write("m.csv", manifest(some_images(server, 1)))
    return Cli(cli.place, {"BULKIMG_ENDPOINT": server.url})


def secret(cli: Cli, text: str, mode: int, name: str = "secret", owner: int = 0, group: int = 0) -> str:
    path = cli.place / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(mode)
    if owner or group:
        os.chown(path, owner, group)
        path.chmod(mode)
    return str(path)


@root_only
@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_file_that_root_owns_and_a_group_may_read_is_taken(here: Cli, server: Server, mode: int) -> None:
    path = secret(here, server.session, mode, group=54321)
    here("run", "m.csv", *FAST, BULKIMG_SESSION_FILE=path)


@root_only
@pytest.mark.parametrize("mode", [0o444, 0o644, 0o604, 0o666, 0o640])
def test_a_file_that_others_can_read_is_refused_with_advice_that_can_be_followed(
    here: Cli, server: Server, mode: int
) -> None:
    """Readable for all users, with any owner; or for a group, if root is not the owner."""
    path = secret(here, server.session, mode, owner=54321 if mode == 0o640 else 0)
    done = here("run", "m.csv", *FAST, code=2, BULKIMG_SESSION_FILE=path)
    assert f"mode {mode:04o}" in done.err
    assert ("read-only" in done.err) is (mode != 0o640)


@root_only
def test_credentials_directory_is_trusted_with_group_bits_and_searched_by_itself(here: Cli, server: Server) -> None:
    secret(here, server.session, 0o440, "creds/bulkimg.session", owner=54321, group=54321)
    place: dict[str, Any] = {"CREDENTIALS_DIRECTORY": str(here.place / "creds")}
    here("run", "m.csv", *FAST, **place)
    named = secret(here, server.session, 0o440, "creds/other", owner=54321, group=54321)
    here("run", "m.csv", *FAST, BULKIMG_SESSION_FILE=named, **place)
    here("run", "m.csv", *FAST, code=2, BULKIMG_SESSION_FILE=named)
    (here.place / "creds" / "bulkimg.session").chmod(0o444)
    assert "is readable by all users" in here("run", "m.csv", *FAST, code=2, **place).err


@root_only
def test_a_secret_that_kubernetes_mounts_is_taken(here: Cli, server: Server) -> None:
    """The kubelet writes into a directory with a time in its name, and links to it; fsGroup makes the mode 0440."""
    secret(here, server.session, 0o440, "..2026_11_27/bulkimg.session", group=54321)
    mount = here.place / "mount"
    mount.mkdir()
    (here.place / "..2026_11_27").rename(mount / "..2026_11_27")
    (mount / "..data").symlink_to("..2026_11_27")
    (mount / "bulkimg.session").symlink_to("..data/bulkimg.session")
    os.chown(mount / "..data" / "bulkimg.session", 54321, 54321)
    here("run", "m.csv", *FAST, CREDENTIALS_DIRECTORY=str(mount))


@root_only
def test_only_the_credentials_directory_itself_is_trusted(here: Cli, server: Server) -> None:
    """Neither a directory whose name begins like it, nor a file that it links to."""
    (here.place / "creds").mkdir()
    beside = secret(here, server.session, 0o440, "creds-of-others/bulkimg.session", owner=54321, group=54321)
    place: dict[str, Any] = {"CREDENTIALS_DIRECTORY": str(here.place / "creds")}
    assert "by its group" in here("run", "m.csv", *FAST, code=2, BULKIMG_SESSION_FILE=beside, **place).err
    (here.place / "creds" / "bulkimg.session").symlink_to(beside)
    assert "by its group" in here("run", "m.csv", *FAST, code=2, **place).err


def test_a_credentials_directory_that_cannot_be_looked_into_is_no_empty_one(here: Cli) -> None:
    (here.place / "loop").symlink_to("loop")
    done = here("run", "m.csv", *FAST, code=2, CREDENTIALS_DIRECTORY=str(here.place / "loop"))
    assert "cannot be looked at: Too many levels of symbolic links" in done.err


def test_credentials_directory_stands_between_environment_and_profile(here: Cli, server: Server) -> None:
    here.write("creds-are-here", "")
    secret(here, "admin", 0o600, "creds/bulkimg.account")
    secret(here, "password\n", 0o600, "creds/bulkimg.password")
    place: dict[str, Any] = {"CREDENTIALS_DIRECTORY": str(here.place / "creds")}
    (here.place / "config" / "bulkimg").mkdir(parents=True)
    here.write("config/bulkimg/config.toml", '[profile.p]\naccount = "x"\npassword_command = ["false"]\n')
    here("run", "m.csv", *FAST, "--profile", "p", **place)
    assert "expired" in here("run", "m.csv", *FAST, code=5, BULKIMG_SESSION="f" * 32, **place).err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\ufeff{session}", "byte order mark"),
        ('"{session}"', "quotation marks"),
        ("'{session}'", "quotation marks"),
        ("a\nb", "line break"),
    ],
)
def test_what_spoils_a_credential_is_named(here: Cli, server: Server, text: str, words: str) -> None:
    given = text.format(session=server.session)
    path = secret(here, given, 0o600)
    assert words in here("run", "m.csv", *FAST, code=2, BULKIMG_SESSION_FILE=path).err
    if "\n" not in given:
        assert words in here("run", "m.csv", *FAST, code=2, BULKIMG_SESSION=given).err


def test_a_quoted_password_is_tried_and_named_when_it_is_refused(here: Cli) -> None:
    given: dict[str, Any] = {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": '"password"'}
    assert "remove the quotation marks around the password" in here("run", "m.csv", *FAST, code=5, **given).err


def test_service_links_of_kubernetes_are_no_warning(here: Cli, server: Server) -> None:
    links: dict[str, Any] = {
        f"BULKIMG_{name}": "tcp://10.0.0.1:8080"
        for name in (
            "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR", "PORT_8080_TCP_PORT", "PORT_8080_TCP_PROTO", "SERVICE_HOST",
            "SERVICE_PORT", "SERVICE_PORT_HTTP", "SANDBOX_PORT", "SANDBOX_SERVICE_HOST", "SANDBOX_PORT_53_UDP_ADDR",
        )
    }  # fmt: skip
    done = here("run", "m.csv", *FAST, BULKIMG_SESSION=server.session, **links)
    assert "warning" not in done.err
    assert "warning" in here("check", "m.csv", BULKIMG_MAX_CHANGE="3").err


# -- job files and profiles ---------------------------------------------------------------------------------------------

JOB = '[job]\nmanifest = "m.csv"\n[target]\nendpoint = "{url}"\n[pace]\nrate = "unlimited"\n'


@pytest.mark.parametrize("name", ["job.toml", "JOB.TOML"])
def test_a_job_with_a_byte_order_mark_runs(here: Cli, server: Server, name: str) -> None:
    here.write(name, ("\ufeff" + JOB.format(url=server.url)).replace("\n", "\r\n"))
    here("run", name, "--yes", BULKIMG_SESSION=server.session)


def test_a_profile_with_a_byte_order_mark_is_read(here: Cli, server: Server) -> None:
    (here.place / "config" / "bulkimg").mkdir(parents=True)
    here.write("config/bulkimg/config.toml", f'\ufeff[profile.p]\nendpoint = "{server.url}"\n')
    here("run", "m.csv", *FAST, "--profile", "p", BULKIMG_SESSION=server.session)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("what", ["job", "profile"])
def test_another_encoding_is_named_in_plain_words(here: Cli, encoding: str, what: str) -> None:
    (here.place / "config" / "bulkimg").mkdir(parents=True)
    name = "job.toml" if what == "job" else "config/bulkimg/config.toml"
    here.write(name, '[job]\nmanifest = "m.csv"\nnote = "é"\n'.encode(encoding))
    words = ("job.toml",) if what == "job" else ("m.csv", "--profile", "p")
    err = here("run", *words, code=2).err
    assert "save it as UTF-8" in err
    assert "codec" not in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[pace]\nrate = "5x"\n', "job.toml:4: [pace] rate = '5x' is not a rate"),
        ("[pace]\nconcurrency = 0\n", "job.toml:4: [pace] concurrency = 0 is not valid"),
        ('[guard]\n# a\nmax_errors = "lots"\n', "job.toml:5: [guard] max_errors = 'lots' is not a limit"),
        ('[set]\nnam = "x"\n', "job.toml:3: [set] {'nam': 'x'} contains 'nam', which is not a field"),
        ('[map]\nx = "nam"\n', "job.toml:3: [map] {'x': 'nam'} contains 'nam', which is not a field"),
        ('[run]\nprogress = "loud"\n', "job.toml:4: [run] progress = 'loud' is not one of"),
        ('[results]\npath = "~nobody99/x"\n', "job.toml:4: [results] path = '~nobody99/x' starts with ~"),
        ('[guard]\nrate = "5/s"\n', "job.toml:4: 'rate' is in [guard] but belongs in [pace]"),
        ("[pace]\nyes = true\n", "job.toml:4: 'yes' is in [pace] but belongs in [run]"),
        ("[run]\nmax_changes = 3\n", "job.toml:4: 'max_changes' is in [run] but belongs in [guard]"),
        ('[job2]\nname = "x"\n', "job.toml:3: unknown table [job2]; did you mean 'job'?"),
        ("[pace]\nrat = 1\n", "job.toml:4: unknown option 'rat' in [pace]; did you mean 'rate'?"),
        ("[guard]\nconcurency = 1\n", "job.toml:4: unknown option 'concurency' in [guard]; did you mean 'concurrency' in [pace]?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_job_file_is_named_with_its_line(here: Cli, text: str, words: str) -> None:
    here.write("job.toml", '[job]\nmanifest = "m.csv"\n' + text)
    assert words in here("run", "job.toml", code=2).err


def test_a_key_outside_every_table_is_sent_home(here: Cli) -> None:
    here.write("job.toml", 'manifest = "m.csv"\n')
    assert "job.toml:1: 'manifest' is outside any table; move it to [job]" in here("run", "job.toml", code=2).err


@pytest.mark.parametrize("where", ["job", "profile"])
def test_a_mistake_in_a_file_that_asks_for_json_is_said_in_json(here: Cli, where: str) -> None:
    (here.place / "config" / "bulkimg").mkdir(parents=True)
    here.write("job.toml", '[job]\nmanifest = "m.csv"\nrat = 1\n[run]\nlog_format = "json"\n')
    here.write("config/bulkimg/config.toml", '[profile.p]\nlog_format = "json"\nrat = 1\n')
    words = ("job.toml",) if where == "job" else ("m.csv", "--profile", "p")
    (line,) = here("run", *words, code=2).err.splitlines()
    assert "did you mean 'rate'" in json.loads(line)["message"]


def test_a_wrong_value_in_a_profile_has_file_and_line(here: Cli) -> None:
    (here.place / "config" / "bulkimg").mkdir(parents=True)
    here.write("config/bulkimg/config.toml", '[profile.q]\nrate = "1/s"\n[profile.p]\nrate = "5x"\n')
    err = here("run", "m.csv", "--profile", "p", code=2).err
    assert "config.toml:4: [profile.p] rate = '5x' is not a rate" in err
    here.write("config/bulkimg/config.toml", '[profile.p]\nsesion_file = "x"\n')
    err = here("run", "m.csv", "--profile", "p", code=2).err
    assert "config.toml:2: unknown option 'sesion_file' in [profile.p]; did you mean 'session_file'?" in err


def test_run_takes_every_other_shared_option(here: Cli, server: Server) -> None:
    here.write(
        "job.toml", JOB.format(url=server.url) + '[run]\nyes = true\nprogress = "none"\njson = true\nruns_dir = "r"\n'
    )
    assert here("run", "job.toml", BULKIMG_SESSION=server.session).json()["schema"] == 1
    assert (here.place / "r").is_dir()


def test_a_line_end_in_a_variable_is_forgiven(here: Cli, server: Server) -> None:
    given: dict[str, Any] = {"BULKIMG_RUNS_DIR": "x\r", "BULKIMG_PROGRESS": "plain\r\n", "BULKIMG_RATE": "90/s\r"}
    here("run", "m.csv", "--yes", BULKIMG_SESSION=server.session, **given)
    assert [path.name for path in Path(here.place).iterdir() if path.name.startswith("x")] == ["x"]


# -- our own files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gbk", "cp1252"])
@pytest.mark.parametrize(
    ("how", "name"),
    [
        *(("variable", name) for name in ("生产镜像", "生产镜像-二", "café-Büro")),
        *((how, "café-Büro") for how in ("profile", "flag")),
    ],
)
def test_our_files_feed_back_as_they_are_whatever_encoding_is_configured(
    here: Cli, server: Server, encoding: str, how: str, name: str
) -> None:
    """failed.csv, unprocessed.csv, undo.csv and export -o."""
    images, name = some_images(server, 2), f"{name} {how} {encoding}"
    (here.place / "config" / "bulkimg").mkdir(parents=True)
    here.write("config/bulkimg/config.toml", f'[profile.p]\nencoding = "{encoding}"\n')
    given: dict[str, Any] = {"BULKIMG_SESSION": server.session}
    configured: dict[str, Any] = given | ({"BULKIMG_ENCODING": encoding} if how == "variable" else {})
    asked = {"profile": ("--profile", "p"), "flag": ("--encoding", encoding)}.get(how, ())
    here.write("u.csv", f"uuid,name\n{images[0]},{name} 0\n{UUID},{name}\n".encode())
    here("run", "u.csv", *FAST, code=1, **given)
    failed = here.run_dir() / "failed.csv"
    assert failed.read_bytes().startswith(b"\xef\xbb\xbf")
    failed.write_text(failed.read_text("utf-8").replace(UUID, images[1]), "utf-8")
    here("run", str(failed), *FAST, *asked, **configured)
    assert server.images()[images[1]]["name"] == name
    undo = here.run_dir() / "undo.csv"
    here("run", str(undo), *FAST, *asked, **configured)
    here("run", str(failed), *FAST, *asked, **configured)
    here("export", "-o", "e.csv", "--force", "--fields", "name", **given)
    here("run", "e.csv", *FAST, *asked, **configured)
    assert here.summary()["counts"]["updated"] == 0
    assert server.images()[images[1]]["name"] == name


def test_files_without_a_row_are_not_written(here: Cli, server: Server) -> None:
    given: dict[str, Any] = {"BULKIMG_SESSION": server.session}
    here("run", "m.csv", *FAST, **given)
    names = {path.name for path in here.run_dir().iterdir()}
    assert "undo.csv" in names
    assert not {"failed.csv", "unprocessed.csv"} & names
    assert not (here.run_dir() / "results.csv").read_bytes().startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize(
    ("words", "environment", "where"),
    [
        (["rows.csv", "--processes", "2"], {}, "--processes"),
        (["rows.csv"], {"BULKIMG_PROCESSES": "2"}, "BULKIMG_PROCESSES"),
        (["old.toml"], {}, "old.toml:4: [pace] processes"),
    ],
)
def test_a_removed_option_is_named_where_it_still_stands(
    cli: Cli, words: list[str], environment: dict[str, str], where: str
) -> None:
    (cli.place / "rows.csv").write_text(f"uuid,name\n{UUID},a\n")
    (cli.place / "old.toml").write_text('[job]\nmanifest = "rows.csv"\n[pace]\nprocesses = 2\n')
    done = cli("run", *words, code=2, **environment)
    assert f"{where} was removed, as one process is faster now; delete it" in done.err
