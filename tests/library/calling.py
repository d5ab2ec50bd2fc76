"""How these tests call the library: each verb as a plain call and as its async form, at a server, in a folder."""

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
    """Calls verbs with the server, its session and a folder for runs; other keywords win."""

    server: Server
    runs_dir: Path
    how: str = "plain"

    @property
    def given(self) -> dict[str, Any]:
        return {"credentials": bulkimg.Session(self.server.session), "runs_dir": self.runs_dir, "rate": "unlimited"}

    def at(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """A verb that begins at the server."""
        return self.of(verb, *arguments, **{"endpoint": self.server.url, **options})

    def of(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """A verb that takes its server from an earlier run."""
        given = {**self.given, **options}
        if self.how == "plain":
            return getattr(bulkimg, verb)(*arguments, **given)
        return asyncio.run(getattr(bulkimg, f"a{verb}")(*arguments, **given))

    def changes(self, count: int, start: int = 0) -> list[dict[str, Any]]:
        """Another name for so many images, each time."""
        time = next(_times)
        uuids = sorted(self.server.images())[start : start + count]
        return [{"uuid": uuid, "name": f"lib {time} {number}"} for number, uuid in enumerate(uuids)]

    def names(self, changes: list[dict[str, Any]]) -> Iterator[str]:
        """The present names of the images of these changes."""
        images = self.server.images()
        return (images[change["uuid"]]["name"] for change in changes)
