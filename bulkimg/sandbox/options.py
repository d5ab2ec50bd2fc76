"""The options of a sandbox."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Options:
    """Times are seconds, but `service_time_ms`; `session_timeout` slides with use, as the server's does."""

    port: int = 8080
    images: int = 100
    dialect: Literal["documented", "zstack"] = "zstack"
    workers: int = 50
    service_time_ms: float = 0.0
    faults: str = ""
    seed: int = 1
    session_timeout: float = 7200.0
    only_update: bool = False  # a server that has UpdateImage and nothing to read with
