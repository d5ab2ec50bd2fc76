"""Say who carries the rows of a run: the send loop of this process, or something that puts others to work."""

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import NamedTuple, Protocol

from bulkimg.applier import Ending, Loop, Policy
from bulkimg.engine.run import OpenRun
from bulkimg.errors import Exit, UsageError, not_installed
from bulkimg.ledger import Writer
from bulkimg.meter import Meter
from bulkimg.model import Event
from bulkimg.pace import Pace
from bulkimg.place import scheduler_address
from bulkimg.planner import Reader
from bulkimg.runtime import Runtime
from bulkimg.settings import Settings
from bulkimg.zstack import ImageApi

LEASES_OVER = 3.0  # seconds after the death of a desk in which its workers may still begin a request


class Equipment(NamedTuple):
    """What the rows of a run are carried with. `observe` gets the events, `meter` counts the requests."""

    run: OpenRun
    pace: Pace
    meter: Meter
    observe: Callable[[Event], None]
    runtime: Runtime
    action_key: str


class Carrier(Protocol):
    """Carries rows until all have their outcome, or until it is stopped. Its methods are those of `Loop`."""

    async def run(self) -> Ending | None: ...
    def stop(self, exit_code: Exit, why: str) -> None: ...
    def stop_now(self) -> None: ...
    def fail(self, error: BaseException) -> None: ...
    @property
    def is_stopping(self) -> bool: ...


class Carriers(Protocol):
    """Makes carriers for one run. `opened` is entered before the server is asked anything."""

    def opened(self, equipment: Equipment) -> AbstractAsyncContextManager[None]: ...
    async def ready(self) -> None:
        """Return when rows can be carried. Raises TargetError or UsageError if they cannot."""

    def carrier(
        self, store: Writer, api: ImageApi, reader: Reader, policy: Policy, only: Sequence[int] | None
    ) -> Carrier: ...


class ThisProcess:
    """Carries all rows in this process."""

    def opened(self, equipment: Equipment) -> AbstractAsyncContextManager[None]:
        self._with = equipment
        return nullcontext()

    async def ready(self) -> None:
        pass

    def carrier(
        self, store: Writer, api: ImageApi, reader: Reader, policy: Policy, only: Sequence[int] | None
    ) -> Carrier:
        own = self._with
        return Loop(store, api, reader, own.pace, policy, own.observe, own.runtime, only=only)


def check_cluster(settings: Settings) -> None:
    """Raise UsageError if a cluster is asked for and its library is not installed, or its file is none."""
    if settings.cluster is not None:
        if not _is_there("distributed"):
            raise not_installed("--cluster", "distributed", "dask")
        scheduler_address(settings.cluster)
    if settings.desk is not None and settings.cluster is None:
        raise UsageError("--desk is for --cluster; give both, or leave it out")


def _is_there(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except ImportError:  # raised by another import system
        return False


def policy_of(settings: Settings, errors_before: int) -> Policy:
    """Return the policy that these settings ask for."""
    return Policy(
        settings.retries,
        settings.own_max_errors,
        settings.job_timeout,
        settings.timeout,
        settings.tags,
        replace_tags=settings.tags_mode == "replace",
        errors_before=errors_before,
    )
