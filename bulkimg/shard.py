"""Split the rows of a manifest between processes that know nothing of each other.

A row belongs to the shard that a hash of its image's uuid names. So all rows of one image are in one shard: two changes
of one image must not be sent at the same time (docs/dev/protocol.md §2.4).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from bulkimg.values import Limit

MOST = 10_000  # shards: array engines allow no more


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def suffix(self) -> str:
        """Return what makes the names of its run and its files differ from those of the other shards."""
        return f"-{self.index}-of-{self.count}"

    def holds(self, uuid: bytes | str) -> bool:
        """Return whether rows of this image belong to the shard. Text that is no uuid is hashed as it is written."""
        raw = uuid if isinstance(uuid, bytes) else uuid.encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(raw, digest_size=8).digest(), "big") % self.count == self.index - 1

    def part(self, limit: Limit) -> Limit:
        """Return the shard's part of a limit, so that the parts of all shards sum up to the whole. A share stays."""
        if limit.count is None:
            return limit
        return Limit(limit.count // self.count + (self.index <= limit.count % self.count))


class _Engine(NamedTuple):
    """The variables in which an array engine says which of its processes this one is."""

    name: str
    task: str  # the index
    first: str | int  # the first index
    tasks: str  # the number of tasks; "" where the engine does not say it
    last: str = ""  # the last index


# docs.aws.amazon.com/batch/latest/userguide/array_jobs.html, slurm.schedmd.com/job_array.html,
# cloud.google.com/run/docs/container-contract, kubernetes.io/docs/tasks/job/indexed-parallel-processing-static
_ENGINES = (
    _Engine("Kubernetes", "JOB_COMPLETION_INDEX", 0, ""),
    _Engine("Slurm", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MAX"),
    _Engine("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", 0, "AWS_BATCH_JOB_ARRAY_SIZE"),
    _Engine("Cloud Run", "CLOUD_RUN_TASK_INDEX", 0, "CLOUD_RUN_TASK_COUNT"),
)
_WRITE = "write I/N, such as 2/4, or auto"


def parse_shard(value: Any) -> Shard:
    """Parse `2/4`, `auto` or `auto/8`. The last two read the variables of the array engine."""
    if isinstance(value, Shard):
        return value
    text = str(value).strip().lower()
    if found := re.fullmatch(r"auto(?:/(\d{1,9}))?", text, re.ASCII):
        return array_shard(os.environ, int(found[1]) if found[1] else None)
    if not (found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)):
        raise ValueError(f"is not a shard; {_WRITE}")
    return _checked(int(found[1]), int(found[2]))


def _checked(index: int, count: int, where: str = "") -> Shard:
    if not 1 <= count <= MOST:
        raise ValueError(f"asks for {count} shards{where}; there may be 1 to {MOST:,}")
    if not 1 <= index <= count:
        raise ValueError(f"names shard {index} of {count}{where}; shards are counted from 1 to {count}")
    return Shard(index, count)


def array_shard(environ: Mapping[str, str], count: int | None) -> Shard:
    """Return the shard that an array engine's variables name. `count` is needed where the engine does not say it.

    Raises ValueError if there are no such variables, those of two engines, or if they contradict each other.
    """
    found = [engine for engine in _ENGINES if environ.get(engine.task)]
    if not found:
        names = ", ".join(f"{engine.task} ({engine.name})" for engine in _ENGINES)
        raise ValueError(f"needs the variable of an array engine, and none is set: {names}; or write I/N, such as 2/4")
    if len(found) > 1:
        names = " and ".join(f"{engine.task} ({engine.name})" for engine in found)
        raise ValueError(f"finds two array engines: {names} are both set; write I/N, such as 2/4")
    engine = found[0]
    first = _number(environ, engine.first) if isinstance(engine.first, str) else engine.first
    said = _said_count(environ, engine, first)
    if said is None and count is None:
        raise ValueError(f"needs the number of shards, which {engine.name} does not say; write auto/N, such as auto/8")
    if said is not None and count is not None and said != count:
        raise ValueError(f"asks for {count} shards, but {engine.tasks} is {said} ({engine.name}); write auto")
    whole = count if said is None else said
    assert whole is not None
    return _checked(_number(environ, engine.task) - first + 1, whole, f" ({engine.task} of {engine.name})")


def _said_count(environ: Mapping[str, str], engine: _Engine, first: int) -> int | None:
    if not engine.tasks or (not environ.get(engine.tasks) and not engine.last):
        return None
    said = _number(environ, engine.tasks)
    if engine.last and _number(environ, engine.last) - first + 1 != said:
        raise ValueError(
            f"needs an array without gaps, but {engine.tasks} is {said} for {first} to {environ[engine.last]} "
            f"({engine.name}); number the tasks one by one, such as --array=1-{said}"
        )
    return said


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "").strip()
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(f"needs a whole number in {name}, which is {text!r}; write I/N, such as 2/4")
    return int(text)
