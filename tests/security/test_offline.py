"""T66: commands that need no server open no socket."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import UUID, Cli, Server
from tests.security.figures import measured

OFFLINE = {
    "import": ("-c", "import bulkimg"),
    "--help": ("-m", "bulkimg", "--help"),
    "run --help": ("-m", "bulkimg", "run", "--help"),
    "check": ("-m", "bulkimg", "check", "m.csv"),
    "run --dry-run": ("-m", "bulkimg", "run", "m.csv", "--dry-run"),
    "status": ("-m", "bulkimg", "status"),
    "runs": ("-m", "bulkimg", "runs"),
    "watch": ("-m", "bulkimg", "watch"),
    "try": ("-m", "bulkimg", "try", UUID, "--set", "name=x"),
    "a refused manifest": ("-m", "bulkimg", "run", "bad.csv", "--yes"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Cli:
    """A folder with a good manifest, a bad one and a finished run."""
    cli = Cli(tmp_path_factory.mktemp("offline")).at(server)
    image = sorted(server.images())[0]
    cli.write("m.csv", f"uuid,name\n{image},x\n")
    cli.write("bad.csv", "uuid,name\nnonsense,x\n")
    cli("run", "m.csv", "--yes")
    return cli


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_commands_open_no_socket(place: Cli, strace: str, name: str) -> None:
    """There is no network system call in any process. Credentials and an endpoint are set, and not used."""
    trace = place.place / "trace"
    command = [strace, "-f", "-qq", "-e", "trace=network", "-o", str(trace), sys.executable, *OFFLINE[name]]
    done = subprocess.run(command, cwd=place.place, env=place.env(), capture_output=True, timeout=60, check=False)
    assert done.returncode == (3 if "refused" in name else 0), done.stderr
    assert calls(trace) == []
    measured("T66", f"{len(OFFLINE)} offline commands, 0 sockets")


def test_the_trace_sees_a_socket(strace: str, tmp_path: Path) -> None:
    """The tracer works: a socket that is opened is in its list."""
    code = "import socket; socket.socket().close()"
    command = [strace, "-f", "-qq", "-e", "trace=network", "-o", str(tmp_path / "t"), sys.executable, "-c", code]
    subprocess.run(command, check=True, timeout=60)
    assert calls(tmp_path / "t") != []


def calls(trace: Path) -> list[str]:
    """Return the network calls, without the signals and exits that strace reports too."""
    return [line for line in trace.read_text().splitlines() if "---" not in line and "+++" not in line]
