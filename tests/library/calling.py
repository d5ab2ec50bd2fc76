"""Call the library in tests: each verb as a plain call and as its async form, with a server and a folder."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bulkimg
from tests.conftest import Server

HOWS = ("plain", "async")
_times = itertools.count()


@dataclass
class Caller:
    """Call verbs with the server, its session and a folder for runs. Other keywords take precedence."""

    server: Server
    runs_dir: Path
    how: str = "plain"

    @property
    def given(self) -> dict[str, Any]:
        return {"credentials": bulkimg.Session(self.server.session), "runs_dir": self.runs_dir, "rate": "unlimited"}

    def at(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """Return a verb that needs the server."""
        return self.of(verb, *arguments, **{"endpoint": self.server.url, **options})

    def of(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """Return a verb that takes its server from an earlier run."""
        given = {**self.given, **options}
        if self.how == "plain":
            return getattr(bulkimg, verb)(*arguments, **given)
        return asyncio.run(getattr(bulkimg, f"a{verb}")(*arguments, **given))

    def changes(self, count: int, start: int = 0) -> list[dict[str, Any]]:
        """Return a new name for so many images, each time another one."""
        time = next(_times)
        uuids = sorted(self.server.images())[start : start + count]
        return [{"uuid": uuid, "name": f"lib {time} {number}"} for number, uuid in enumerate(uuids)]

    def names(self, changes: list[dict[str, Any]]) -> Iterator[str]:
        """Return the present names of the images of these changes."""
        images = self.server.images()
        return (images[change["uuid"]]["name"] for change in changes)
