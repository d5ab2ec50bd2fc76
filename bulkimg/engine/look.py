"""Read a server's images without changing any: to compare them with what a run wanted, or all of them for an export."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import NamedTuple

from bulkimg.credentials import Credentials
from bulkimg.engine.connect import Ports, connected, pace_of
from bulkimg.errors import TargetError
from bulkimg.ledger import Ledger, plans
from bulkimg.model import TAGS, Observer, Value
from bulkimg.planner import CannotRead, Reader
from bulkimg.planner.diff import fulfilled, present, redacted
from bulkimg.planner.reading import BATCH, Image
from bulkimg.settings import Settings
from bulkimg.zstack import log_out


class Drift(NamedTuple):
    """A field that no longer has the value that a run wanted. `field` is "" if the image itself is gone."""

    line: int
    uuid: str
    field: str
    wanted: Value | None
    now: Value | None


@asynccontextmanager
async def reading(
    settings: Settings,
    credentials: Credentials,
    observe: Observer,
    ports: Ports | None = None,
) -> AsyncIterator[Reader]:
    """Give a paced reader that is logged in, and log out at the end of the block.

    Raises TargetError if the server cannot be reached, refuses the login, or cannot be read.
    """
    ports = ports or Ports()
    work = asyncio.current_task()
    given_up: list[str] = []

    def give_up(why: str) -> None:
        given_up.append(why)
        if work:
            work.cancel()

    try:
        pace = pace_of(settings, ports.runtime, 1)
        async with connected(settings, credentials, pace, observe, give_up, ports) as server:
            await server.auth.open()
            try:
                yield server.reader
            finally:
                await log_out(server.auth)
    except asyncio.CancelledError:
        if given_up and work:
            work.uncancel()
            raise TargetError(given_up[0]) from None
        raise
    except CannotRead as why:
        raise TargetError(str(why)) from None


async def drift(ledger: Ledger, reader: Reader, *, replace_tags: bool) -> AsyncIterator[Drift]:
    """Yield every difference from what the run wanted, field by field, in manifest order.

    Only rows whose outcome was as wanted, or is unknown, are compared.
    """
    wanted = plans.wanted(ledger)
    while batch := list(islice(wanted, BATCH)):
        names = {name for row in batch for name in row.fields}
        images = await reader.images([row.uuid for row in batch], names)
        for row in batch:
            for found in _drift_of(row, images.get(row.uuid), replace_tags=replace_tags):
                yield found


def _drift_of(row: plans.Asked, image: Image | None, *, replace_tags: bool) -> Iterator[Drift]:
    if image is None:
        yield Drift(row.line, row.uuid, "", None, None)
        return
    for name, value in row.fields.items():
        if name in TAGS and name not in image:
            continue  # the server does not show these tags; a message said so
        if not fulfilled(name, value, present(image, name), replace_tags=replace_tags):
            yield Drift(row.line, row.uuid, name, value, redacted(image, name))


async def all_images(reader: Reader, conditions: Sequence[str], fields: Collection[str]) -> AsyncIterator[Image]:
    """Yield every image that meets the conditions, by uuid, with the named fields. Tags are sorted texts."""
    kinds = [kind for kind in TAGS if kind in fields]
    async for page in reader.pages(conditions, [name for name in fields if name not in TAGS]):
        for kind in kinds:
            tags = await reader.tags(kind, [image["uuid"] for image in page])
            for image in page:
                image.add_tags(kind, tags.get(image["uuid"], {}))
        for image in page:
            yield image
