"""Send one change for `bulkimg try`: every answer is shown, nothing is retried."""

import asyncio
import uuid
from collections.abc import AsyncIterator

from bulkimg.model import Fields
from bulkimg.zstack import Answer, ImageApi
from bulkimg.zstack.rules import TEXTS, Move

POLL_EVERY = 0.5  # seconds


async def send_once(api: ImageApi, image: str, fields: Fields, timeout: float) -> AsyncIterator[tuple[str, Answer]]:  # noqa: ASYNC109 - bounds the polls
    """(what was asked, the answer): the PUT, again with the other spelling where the server asks for it, then polls."""
    job = uuid.uuid4().hex
    answer = await _update(api, image, fields, job)
    yield f"PUT {api.action_key}", answer
    if answer.status == 400 and _unknown_action(answer) and api.switch_key():
        answer = await _update(api, image, fields, job)
        yield f"PUT {api.action_key}", answer
    if answer.status != 202:
        return
    deadline = asyncio.get_running_loop().time() + timeout
    while answer.status == 202 and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(POLL_EVERY)
        answer = await api.poll(job)
    yield f"GET api-jobs/{job}", answer


async def _update(api: ImageApi, image: str, fields: Fields, job: str) -> Answer:
    return await api.update(await api.admit(), image, fields, job)


def _unknown_action(answer: Answer) -> bool:
    return any(rule.move is Move.OTHER_KEY and pattern.search(answer.text) for pattern, _, rule in TEXTS)
