"""Send a drawing to everybody who watches it: it is drawn once, however many streams there are, and not without one."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Protocol

from markupsafe import Markup

EVERY = 2.0  # seconds between two looks
ALIVE = 15.0  # seconds without news after which a stream gets a comment: a dead connection is noticed by it
MOST_STREAMS = 8
RETRY = b"retry: 2000\n\n"  # milliseconds after which a browser connects again
END = b"event: end\ndata: 1\n\n"


class Draws(Protocol):
    """What can be drawn again and again."""

    @property
    def is_final(self) -> bool: ...
    def draw(self) -> Markup: ...


class Channel:
    """One drawing and its streams. It is drawn in `executor`, a thread, so that the event loop answers."""

    def __init__(self, drawing: Draws, executor: Executor, clock: Callable[[], float]) -> None:
        self._drawing = drawing
        self._executor = executor
        self._clock = clock
        self._lock = asyncio.Lock()
        self._drawn_at = -EVERY
        self._html = Markup()
        self._event = b""

    @property
    def is_final(self) -> bool:
        return self._drawing.is_final

    async def now(self) -> Markup:
        """Return the drawing, not older than `EVERY`."""
        async with self._lock:
            if self._clock() - self._drawn_at >= EVERY:
                html = await asyncio.get_running_loop().run_in_executor(self._executor, self._drawing.draw)
                self._drawn_at = self._clock()
                if html != self._html:
                    self._html, self._event = html, b"event: body\ndata: " + json.dumps(html).encode() + b"\n\n"
        return self._html

    async def follow(self) -> AsyncIterator[bytes]:
        """Yield the drawing as events: now, and whenever it has changed, until nothing changes any more."""
        sent, quiet = b"", 0.0
        yield RETRY
        while True:
            await self.now()
            if self._event is not sent:
                sent, quiet = self._event, 0.0
                yield sent
            elif quiet >= ALIVE:
                quiet = 0.0
                yield b": nothing new\n\n"
            if self.is_final:
                yield END
                return
            await asyncio.sleep(EVERY)
            quiet += EVERY
