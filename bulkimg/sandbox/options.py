"""The options of a sandbox."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a sandbox.

    Times are seconds, except `service_time_ms`. Use extends `session_timeout`, as on the server.
    """

    port: int = 8080
    images: int = 100
    dialect: Literal["documented", "zstack"] = "zstack"
    workers: int = 50
    service_time_ms: float = 0.0
    faults: str = ""
    seed: int = 1
    session_timeout: float = 7200.0
    only_update: bool = False  # a server that has UpdateImage and no queries
