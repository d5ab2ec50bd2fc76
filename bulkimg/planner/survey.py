"""Read every image of a run before anything is sent, and write each row's plan into the ledger."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from bulkimg.ledger import Ledger, plans
from bulkimg.model import Planned
from bulkimg.planner.diff import names_to_read, plan
from bulkimg.planner.reading import BATCH, Reader

AT_ONCE = 4  # questions under way; the pace holds them like all others
Compared = list[tuple[plans.Asked, Planned]]


async def survey(
    ledger: Ledger, reader: Reader, target: str, *, replace_tags: bool, looked: Callable[[int], None]
) -> None:
    """Plan every row that asks for something, in one transaction: a run has its whole plan, or none. `looked` gets the
    number of images read since the last call.

    CannotRead where the server does not show images, TargetError where it cannot be reached any more; StorageError.
    """
    with ledger.transaction():
        last = 0
        while True:
            batches: list[list[plans.Asked]] = []
            while len(batches) < AT_ONCE and (batch := plans.to_plan(ledger, last, BATCH)):
                last = batch[-1].ordinal
                batches.append(batch)
            if not batches:
                break
            for compared in await _all(_compared(batch, reader, replace_tags) for batch in batches):
                plans.add(ledger, compared)
                looked(len(compared))
        plans.make(ledger, target, surveyed=True)


async def _compared(rows: list[plans.Asked], reader: Reader, replace_tags: bool) -> Compared:
    names = {name for row in rows for name in names_to_read(row.fields, row.expects)}
    images = await reader.images([row.uuid for row in rows], names)
    return [(row, plan(row.fields, row.expects, images.get(row.uuid), replace_tags=replace_tags)) for row in rows]


async def _all(questions: Iterable[Awaitable[Compared]]) -> list[Compared]:
    """Concurrently; the first that fails cancels the others and is then raised."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
