"""Three servers, an account of each, and a job that has rows for all of them."""

from collections.abc import Iterator

import pytest

from tests.campaign.jobs import ROWS, job, manifest
from tests.conftest import Cli, Server, sandbox_process


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    """Three servers with the same images. An account logs in on each."""
    with (
        sandbox_process("--images", str(ROWS)) as eu,
        sandbox_process("--images", str(ROWS)) as us,
        sandbox_process("--images", str(ROWS)) as asia,
    ):
        yield {"eu": eu, "us": us, "asia": asia}


@pytest.fixture
def here(cli: Cli, servers: dict[str, Server]) -> Cli:
    """A command line with an account of every server."""
    return Cli(cli.place, {"BULKIMG_ACCOUNT": "admin", "BULKIMG_PASSWORD": "password"})


@pytest.fixture
def ready(here: Cli, servers: dict[str, Server], request: pytest.FixtureRequest) -> Cli:
    here.write("m.csv", manifest(servers, request.node.name))
    here.write("job.toml", job({name: server.url for name, server in servers.items()}))
    return here
