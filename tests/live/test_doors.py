"""The page of `bulkimg ui` answers only the browser of the person who started it: one test for each way in."""

import hmac
import http.client
import os
import shlex
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkimg.live import doors
from tests.conftest import Cli, Server
from tests.live.asking import Ui, ui, wait_for

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Cli:
    """A folder with one finished run, whose image, note and manifest have hostile names."""
    cli = Cli(tmp_path_factory.mktemp("doors")).at(server)
    image = sorted(server.images())[0]
    cli.write("</script>.csv".replace("/", "\u2215"), f"uuid,name,description\n{image},{HOSTILE},{HOSTILE}\n")
    manifest = next(path.name for path in cli.place.iterdir() if path.suffix == ".csv")
    cli("run", manifest, "--yes", "--run-id", "done-1", "--note", HOSTILE)
    return cli


@pytest.fixture(scope="module")
def page(place: Cli) -> Iterator[Ui]:
    with ui(place) as found:
        yield found


PATHS = ("/", "/run/done-1", "/stream", "/run/done-1/stream", "/nothing")


def test_the_token_is_exchanged_for_a_cookie(page: Ui) -> None:
    assert len(page.token) >= 43, "32 bytes"
    answer = page.ask(f"/?token={page.token}")
    assert (answer.status, answer.headers["Location"], answer.text) == (303, "/", "")
    cookie, *attributes = str(answer.headers["Set-Cookie"]).split("; ")
    assert cookie.startswith(f"bulkimg-{page.port}=")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert page.token not in cookie
    assert page.ask(f"/?token={page.token}&run=done-1").headers["Location"] == "/run/done-1"
    assert page.ask(f"/?token={page.token}&run=//evil.example").headers["Location"] == "/"
    assert page.ask("/", cookie=cookie).status == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "given", ["", "bulkimg-{port}=", "bulkimg-{port}=wrong", "bulkimg={value}", "bulkimg-1={value}"]
)
def test_without_the_cookie_nothing_is_shown(page: Ui, path: str, given: str) -> None:
    cookie = given.format(port=page.port, value=page.cookie.partition("=")[2])
    answer = page.ask(path, cookie=cookie)
    assert answer.status == 403
    assert "done-1" not in answer.text
    assert "Open the address that bulkimg ui printed" in answer.text


@pytest.mark.parametrize("token", ["", "wrong", "\u00e4", "{token}x"])
def test_a_wrong_token_gets_no_cookie(page: Ui, token: str) -> None:
    answer = page.ask("/?token=" + token.format(token=page.token).replace("\u00e4", "%C3%A4"))
    assert (answer.status, answer.headers["Set-Cookie"]) == (403, None)


def test_a_token_opens_only_the_first_page(page: Ui) -> None:
    assert page.ask(f"/run/done-1?token={page.token}").status == 403


def test_secrets_are_compared_in_a_time_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = hmac.compare_digest

    def noting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    assert doors._equal("a", "a")
    assert not doors._equal("\udce4", "a")
    assert len(compared) == 2


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost", "127.0.0.1.evil.example:{port}"]
)
def test_a_foreign_host_is_refused_before_anything_is_looked_up(page: Ui, path: str, host: str) -> None:
    """A name that was rebound to 127.0.0.1 is a foreign host, also with the right cookie."""
    answer = page.ask(path, host=host.format(port=page.port), cookie=page.cookie)
    assert answer.status == 421
    assert "done-1" not in answer.text


def test_two_hosts_and_a_whole_address_are_refused(page: Ui) -> None:
    cookie = page.cookie
    assert page.ask("/", [("Host", "evil.example")], cookie=cookie).status in (400, 421)
    assert page.ask(f"http://evil.example:{page.port}/", cookie=cookie).status == 421


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", b"400"), ("GET / HTTP/1.0", b"421"), ("FROB / HTTP/1.1", b"400"), ("nonsense", b"400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nBroken header", b"400"), ("GET /" + "a" * 9000 + " HTTP/1.1", b"400"),
        ("GET / HTTP/9.9", b"400"), ("\x16\x03\x01 hello of TLS", b"400"),
    ],
)  # fmt: skip
def test_what_is_no_request_gets_nothing_and_is_not_reported(page: Ui, request_line: str, status: bytes) -> None:
    """Without a Host, or no HTTP. The fixture sees that nothing was written on standard error."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=30) as connection:
        connection.sendall(f"{request_line}\r\nCookie: {page.cookie}\r\n\r\n".encode())
        answer = connection.recv(65536)
    assert answer.split()[1] == status
    assert b"done-1" not in answer
    assert b"\r\nServer: bulkimg\r\n" in answer
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer
    assert b"Python" not in answer
    assert b"aiohttp" not in answer
    if status == b"400":
        assert answer.endswith(b"\r\n400 Bad Request\n")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_the_names_of_this_machine_are_answered(page: Ui, host: str) -> None:
    assert page.ask("/", host=f"{host}:{page.port}", cookie=page.cookie).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/run/done-1", "/?token={token}"])
def test_only_get_and_head_are_answered(page: Ui, method: str, path: str) -> None:
    answer = page.ask(path.format(token=page.token), method=method, cookie=page.cookie)
    assert (answer.status, answer.headers["Allow"], answer.headers["Set-Cookie"]) == (405, "GET, HEAD", None)


@pytest.mark.parametrize("path", PATHS[:4])
def test_head_has_the_headers_and_no_body(page: Ui, path: str) -> None:
    answer = page.ask(path, method="HEAD", cookie=page.cookie)
    assert (answer.status, answer.text) == (200, "")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
def test_a_page_of_another_site_or_port_gets_nothing(page: Ui, path: str, site: str) -> None:
    headers = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "script")]
    answer = page.ask(path, headers, cookie=page.cookie)
    assert answer.status == 403
    assert "done-1" not in answer.text
    assert "refresh" not in answer.text


def test_a_link_of_another_page_is_followed_by_our_own_page_only(page: Ui) -> None:
    headers = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
    answer = page.ask("/", headers, cookie=page.cookie)
    assert answer.status == 403
    assert '<meta http-equiv="refresh" content="0;url=/">' in answer.text
    assert page.ask("/", [("Sec-Fetch-Site", "same-origin")], cookie=page.cookie).status == 200
    assert page.ask("/", [("Sec-Fetch-Site", "none")], cookie=page.cookie).status == 200


@pytest.mark.parametrize("path", [*PATHS, "/?token={token}"])
@pytest.mark.parametrize("with_cookie", [True, False])
def test_every_answer_has_the_policy(page: Ui, path: str, with_cookie: bool) -> None:
    """Nothing is kept, nobody is told where a link was, no page frames it, and only our own script and style run."""
    cookie = page.cookie if with_cookie else ""
    headers = page.ask(path.format(token=page.token), method="HEAD", cookie=cookie).headers
    assert headers["Server"] == "bulkimg"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "deny"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy.get("connect-src", "'self'") == "'self'"
    for kind in ("script-src", "style-src"):
        assert policy.get(kind, "'sha256-").startswith("'sha256-")
        assert "unsafe" not in policy.get(kind, "")


@pytest.mark.parametrize(
    "path",
    [
        "/run/", "/run/done-1/", "/run/done", "/run/done-1/x", "/run/done-1/stream/", "/run//done-1", "/run/..", "/run/../run/done-1",
        "/run/%2e%2e", "/run/%2e%2e%2fdone-1", "/run/done-1%00", "/run/done-1%2fstream", "/run/./done-1", "/run/last", "/run/done-1;x",
        "/run/51431193e6c3f3391a2b8f1ff1fd42a2", "/run/" + "a" * 200, "/runs", "/index.html", "/run/done-1/results.csv", "/etc/passwd",
        "//run/done-1", "/run/done-1\\..\\x",
    ],
)  # fmt: skip
def test_a_path_that_is_no_run_is_no_page(page: Ui, path: str) -> None:
    answer = page.ask(path, cookie=page.cookie)
    assert answer.status == 404
    assert "There is no such page." in answer.text


def test_names_are_text(page: Ui) -> None:
    """The script of a page is ours alone, and whatever an image is called is shown and not obeyed."""
    cookie = page.cookie
    for path in ("/", "/run/done-1"):
        text = page.ask(path, cookie=cookie).text
        assert "&lt;/script&gt;&lt;script&gt;window.pwned=1" in text
        assert "<img" not in text
        assert text.count("<script") == (1 if path == "/" else 0)


def test_it_listens_on_127_0_0_1_only(page: Ui) -> None:
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    found = {words[1] for words in listening if words[3] == "0A" and words[1].endswith(f":{page.port:04X}")}
    assert found == {f"0100007F:{page.port:04X}"}


def test_eight_streams_and_no_more(page: Ui) -> None:
    cookie = page.cookie
    opened = []
    try:
        for _ in range(8):
            connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
            connection.request("GET", "/stream", headers={"Cookie": cookie})
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.readline().startswith(b"retry:")
            opened.append((connection, answer))
        assert page.ask("/stream", method="HEAD", cookie=cookie).status == 503
        ninth = page.ask("/stream", cookie=cookie)
        assert ninth.status == 503
        assert "8 pages are open already" in ninth.text
        assert ninth.headers["X-Why"].startswith("8 pages are open already")
        assert page.ask("/run/done-1", cookie=cookie).status == 200, "a page is still shown"
    finally:
        for connection, answer in opened:
            answer.close()
            connection.close()
    wait_for(lambda: page.ask("/stream", method="HEAD", cookie=cookie).status == 200, 10)


def test_the_cookie_of_one_page_does_not_open_another(page: Ui, place: Cli) -> None:
    with ui(place) as other:
        assert other.cookie.partition("=")[0] != page.cookie.partition("=")[0]
        both = f"{page.cookie}; {other.cookie}"
        assert page.ask("/", cookie=both).status == other.ask("/", cookie=both).status == 200
        assert other.ask("/", cookie=page.cookie).status == 403
        assert other.ask("/", cookie=f"bulkimg-{other.port}={page.cookie.partition('=')[2]}").status == 403
        assert other.ask(f"/?token={page.token}").status == 403


def test_a_page_that_stays_open_knows_the_next_ui_of_its_port(place: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ui(place, "--port", str(port)) as first:
        cookie, token = first.cookie, first.token
    kept = Path(f"/dev/shm/bulkimg-ui-{os.getuid()}/{port}")
    try:
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
        with ui(place, "--port", str(port)) as second:
            assert second.ask("/", cookie=cookie).status == 200
            assert second.token != token
            assert second.ask(f"/?token={token}").status == 403
    finally:
        kept.unlink()


def test_the_token_is_no_argument_of_the_browser(place: Cli) -> None:
    """Arguments are visible to every user: the browser gets a file that only this user can read."""
    place.write("browser.py", "import os, sys, pathlib\npath = sys.argv[1].removeprefix('file://')\n"
        "pathlib.Path('asked').write_text(f'{os.stat(path).st_mode & 0o777:o} {path} {open(path).read()}')\n")  # fmt: skip
    browser = f"{shlex.quote(sys.executable)} {shlex.quote(str(place.place / 'browser.py'))} %s"
    asked = place.place / "asked"
    with ui(place, "--open", browser=browser) as page:
        wait_for(lambda: asked.exists() and "</title>" in asked.read_text())
        mode, path, text = asked.read_text().split(" ", 2)
        assert mode == "600"
        assert page.token not in path
        assert f"url={page.url}" in text.replace("&amp;", "&")
        assert page.token not in Path(f"/proc/{page.process.pid}/cmdline").read_text()
    assert not Path(path).exists()


def test_a_port_that_is_taken_is_said(page: Ui, place: Cli) -> None:
    assert f"port {page.port} on 127.0.0.1: Address already in use" in place("ui", "--port", str(page.port), code=2).err


def test_it_says_how_to_come_from_another_machine(page: Ui) -> None:
    assert f"ssh -L {page.port}:127.0.0.1:{page.port} {socket.gethostname()}" in page.said
