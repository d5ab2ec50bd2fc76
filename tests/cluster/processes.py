"""A Dask cluster of real processes: a scheduler and workers, with certificates of an authority of their own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import trustme

from tests.conftest import ROOT

ROLES = ("SCHEDULER", "WORKER", "CLIENT")


def certificates(place: Path, name: str = "ours") -> dict[str, str]:
    """Make an authority with one certificate. Returns the variables with which Dask uses it."""
    authority, paths = trustme.CA(), (place / f"{name}-ca.pem", place / f"{name}.pem")
    authority.cert_pem.write_to_path(str(paths[0]))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(paths[1]))
    of_roles = {
        f"DASK_DISTRIBUTED__COMM__TLS__{role}__{what}": str(paths[1]) for role in ROLES for what in ("CERT", "KEY")
    }
    return {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(paths[0]), **of_roles}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Site:
    """Processes that were started, and what they have written. `environment` is that of all of them."""

    def __init__(self, place: Path, environment: Mapping[str, str]) -> None:
        self.place = place
        self._environment = {"PATH": os.defpath, "HOME": str(place), "PYTHONPATH": str(ROOT), **environment}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str, **more: str) -> "subprocess.Popen[bytes]":
        """Start a program of Python's."""
        with (self.place / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=self.place, env={**self._environment, **more}, stdout=log, stderr=log
            )
        self._processes.append(process)
        return process

    def dask(self, *words: str, **more: str) -> None:
        """Start a command of Dask's, such as `dask worker`."""
        nothing_else = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
        self.start("-m", "dask", *words, *nothing_else, **more)

    @property
    def log(self) -> str:
        return (self.place / "log").read_text()

    def wait_for(self, said: str, times: int = 1) -> None:
        """Wait until the processes have written this so often."""
        deadline = time.monotonic() + 60
        while self.log.count(said) < times:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(30)
