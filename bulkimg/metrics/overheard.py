"""Keep what OpenTelemetry and its libraries log away from the terminal: bulkimg says it in its own words, once."""

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

_NAMES = ("opentelemetry", "urllib3", "requests")
_SHORTEST = 3  # characters of a value that is looked for in a text: shorter ones are in many


class _Block(NamedTuple):
    """What is overheard: by one thread, and by those that begin while it listens, if `others` are the earlier ones."""

    thread: int
    others: frozenset[int] | None
    said: list[str]

    def hears(self, thread: int) -> bool:
        return thread == self.thread or (self.others is not None and thread not in self.others)


class _Ear(logging.Handler):
    """Take what is logged below the loggers of _NAMES by a thread that listens; pass on all else."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []  # an inner one comes later
        self._before: list[tuple[logging.Logger, bool]] = []

    @contextmanager
    def listening(self, *, with_new_threads: bool = False) -> Iterator[list[str]]:
        """Return the texts of this thread's records within the block, as they come."""
        others = frozenset(found.ident or 0 for found in threading.enumerate()) if with_new_threads else None
        block = _Block(threading.get_ident(), others, [])
        with self._lock:
            if not self._blocks:
                self._put_on()
            self._blocks.append(block)
        try:
            yield block.said
        finally:
            with self._lock:
                self._blocks = [one for one in self._blocks if one is not block]
                if not self._blocks:
                    self._take_off()

    def _put_on(self) -> None:
        self._before = [(logger, logger.propagate) for logger in map(logging.getLogger, _NAMES)]
        for logger, _ in self._before:
            logger.addHandler(self)
            logger.propagate = False

    def _take_off(self) -> None:
        for logger, propagate in self._before:
            logger.removeHandler(self)
            logger.propagate = propagate

    def emit(self, record: logging.LogRecord) -> None:
        thread = threading.get_ident()
        block = next((one for one in reversed(self._blocks) if one.hears(thread)), None)
        if block is None:
            logging.getLogger().handle(record)
        elif record.levelno >= logging.WARNING:
            block.said.append(f"{record.getMessage()} {record.exc_info[1] if record.exc_info else ''}")


_EAR = _Ear()
overheard = _EAR.listening


def culprits(said: str, environ: Mapping[str, str]) -> str:
    """Return the OTEL_ variables that a text is about, by name or value, or "an OTEL_ variable". It shows no value."""
    found = [
        name
        for name, value in environ.items()
        if name.startswith("OTEL_")
        and (re.search(rf"\b{re.escape(name)}\b", said) or (len(value) >= _SHORTEST and value in said))
    ]
    return " and ".join(found) or "an OTEL_ variable"
