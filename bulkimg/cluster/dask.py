"""The workers of a Dask cluster: how they are found and put to work, and how messages get to the desk and back.

Dask starts one long task on each worker and carries our messages; nothing else of it is used. A task that Dask started
again by itself would do no harm: it joins the desk as one more worker.
"""

import asyncio
import importlib
import operator
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, get_worker
from distributed.comm import CommClosedError, connect, listen
from distributed.utils import get_ip

from bulkimg import __version__
from bulkimg.applier import Policy
from bulkimg.cluster.access import own_access, sent_options
from bulkimg.cluster.desk import Desk
from bulkimg.cluster.hall import Hall
from bulkimg.cluster.hiring import DESK_GONE, RUN_OVER, Hiring
from bulkimg.cluster.local import local_cluster
from bulkimg.cluster.messages import LinkLost, Message, packed, unpacked
from bulkimg.cluster.reach import closed, first_line, reached, security_for
from bulkimg.cluster.worker import DeskGone, Worker
from bulkimg.credentials import Credentials, identity_of
from bulkimg.engine.carrying import Carrier, Equipment
from bulkimg.engine.connect import Ports
from bulkimg.errors import BulkimgError, TargetError, UsageError
from bulkimg.ledger import Writer
from bulkimg.place import Place, scheduler_address
from bulkimg.planner import Reader
from bulkimg.process import event_loop, leave_no_core, open_files
from bulkimg.zstack import ImageApi

START = 120.0  # seconds until local workers run; a busy machine starts one in 2 to 10 s
ANSWER = 5.0  # seconds to an answer of the desk; then the worker asks again
MOST_FILES = 8192  # open files: a local worker takes 14 of this process


class DaskCarriers:
    """Carries the rows of one run with the workers of a cluster. `desk` is where they reach this process."""

    def __init__(self, place: Place, credentials: Credentials, desk: tuple[str, int] | None) -> None:
        self._place = place
        self._account = identity_of(credentials)
        self._desk_at = desk

    @asynccontextmanager
    async def opened(self, equipment: Equipment) -> AsyncIterator[None]:
        self._own = equipment
        self._hall = Hall(equipment, origin=equipment.run.settings.target, account=self._account)
        _pass_over_failures_of_dask()
        async with AsyncExitStack() as self._stack:
            yield

    async def ready(self) -> None:
        """Start or find the cluster, and wait for its first worker. Raises TargetError and UsageError."""
        if (allowed := open_files(MOST_FILES)) < MOST_FILES:
            open_files(int(allowed))
        client = await self._client()
        address = await self._listen(client)
        hire = partial(_hire, address=address, options=sent_options(self._own.run.settings))
        reach = None if self._place.local else self._reached
        hiring = asyncio.create_task(Hiring(client, self._hall, hire, reach).keep())
        hiring.add_done_callback(self._hiring_has_ended)
        self._stack.push_async_callback(_ended, hiring)
        self._stack.push_async_callback(self._hall.close)
        await self._hall.first_worker()

    def carrier(
        self, store: Writer, api: ImageApi, reader: Reader, policy: Policy, only: Sequence[int] | None
    ) -> Carrier:
        return Desk(self._hall, self._own, store, policy, only)

    # -- the cluster ----------------------------------------------------------------------------------------------------

    async def _client(self) -> Client:
        if self._place.local:
            return await self._of_local_cluster()
        client = await self._reached()
        self._stack.push_async_callback(closed, client)
        return client

    async def _reached(self) -> Client:
        address = scheduler_address(self._place)
        return await reached(address, security_for(address))

    async def _of_local_cluster(self) -> Client:
        try:
            async with asyncio.timeout(START):
                cluster = await self._stack.enter_async_context(local_cluster(self._place.local))
            self._stack.push_async_callback(closed, cluster)
            client = await Client(cluster, asynchronous=True, set_as_default=False)
        except ImportError as error:
            raise UsageError(f"--cluster needs the extra dask: {error}") from None
        except (OSError, RuntimeError) as error:
            raise TargetError(f"the local workers cannot be started: {first_line(error)}; nothing was sent") from None
        self._stack.push_async_callback(closed, client)
        return client

    async def _listen(self, client: Client) -> str:
        """Open the desk's port. Returns its address as workers reach it."""
        scheduler = urlsplit(client.scheduler.address)
        host, port = self._desk_at or ("127.0.0.1" if self._place.local else get_ip(scheduler.hostname), 0)
        options = client.security.get_listen_args("scheduler" if self._place.local else "client")
        at = f"{scheduler.scheme}://{host}:{port}"
        try:
            listener = await listen(at, self._serve, deserialize=False, **options)
        except (OSError, TypeError, ValueError) as error:
            raise UsageError(
                f"--desk: {at} cannot be opened: {first_line(error)}; nothing was sent; give another --desk HOST:PORT"
            ) from None
        self._stack.callback(listener.stop)
        return str(listener.contact_address)

    async def _serve(self, comm: Any) -> None:
        """Answer the messages of one connection of a worker."""
        with suppress(CommClosedError, OSError, asyncio.CancelledError):
            while True:
                asked = await comm.read()
                answer = await self._hall.handle(asked["op"], unpacked(asked["data"]))
                await comm.write({"data": packed(answer)})

    def _hiring_has_ended(self, task: "asyncio.Task[None]") -> None:
        """End the run if looking for workers has ended by a bug."""
        if not task.cancelled() and (error := task.exception()):
            self._hall.fail(error)


def _hire(client: Client, worker: str, *, address: str, options: Mapping[str, Any]) -> Any:
    """Start the long task on a worker. Returns its future.

    Only names of the standard library are in the messages: a scheduler does not need bulkimg, and a worker without it
    reports an error. If the messages named a function of bulkimg, that worker would end.
    """
    there: dict[str, Any] = {"workers": [worker], "allow_other_workers": False, "pure": False, "retries": 0}
    module = client.submit(importlib.import_module, __name__, **there)
    task = client.submit(operator.attrgetter("work"), module, **there)
    return client.submit(operator.call, task, address, options, __version__, **there)


def _pass_over_failures_of_dask() -> None:
    """Report no task of Dask's that failed without anybody waiting for it, as when a cluster is closed while it starts."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not _is_of_dask(context.get("exception")):
            (before or asyncio.AbstractEventLoop.default_exception_handler)(loop, context)

    loop.set_exception_handler(handle)


def _is_of_dask(error: BaseException | None) -> bool:
    """Return whether an exception was raised in Dask's code or in tornado's, on which it runs."""
    raised_in = ""
    found = error.__traceback__ if error else None
    while found:
        raised_in, found = found.tb_frame.f_globals.get("__name__", ""), found.tb_next
    return raised_in.partition(".")[0] in {"distributed", "tornado"}


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# -- on the worker ------------------------------------------------------------------------------------------------------


def work(desk: str, options: Mapping[str, Any], version: str) -> str:
    """The task of one worker of the cluster. Returns how it ended: RUN_OVER, DESK_GONE, or why it cannot work.

    It raises nothing: Dask would write the traceback to the worker's log.
    """
    leave_no_core()
    security = get_worker().security.get_connection_args("worker")
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(_work(desk, security, options, version))


async def _work(desk: str, security: Mapping[str, Any], options: Mapping[str, Any], version: str) -> str:
    host, pid = socket.gethostname(), os.getpid()
    introduction = {"host": host, "pid": pid, "version": __version__, "origin": "", "account": ""}
    while True:
        link = DaskLink(desk, security)
        try:
            if version != __version__:  # it may not know the options; the desk says so
                await link.call("join", introduction)
                return RUN_OVER
            try:
                access = own_access(options, os.environ)
            except BulkimgError as error:
                return f"{host}: {error}"
            introduction |= {"origin": access.origin, "account": access.account}
            worker = Worker(link, access.settings, access.credentials, introduction, Ports(), boottime)
            await worker.work()
            return RUN_OVER
        except (DeskGone, LinkLost) as gone:
            if not link.has_worked:
                return f"{host} cannot reach this process at {desk}; give --desk HOST:PORT"
            if not isinstance(gone, DeskGone) or not gone.may_rejoin:
                return DESK_GONE
        except BulkimgError:
            return RUN_OVER  # the desk has refused it, and has said why
        finally:
            await link.close()


def boottime() -> float:
    """Return the seconds of a clock that runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class DaskLink:
    """A worker's way to the desk: one connection for each kind of message, so that none waits for another."""

    def __init__(self, address: str, security: Mapping[str, Any]) -> None:
        self._address = address
        self._security = security
        self._comms: dict[str, Any] = {}
        self.has_worked = False

    async def call(self, op: str, message: Message) -> dict[str, Any]:
        comm = self._comms.pop(op, None)
        try:
            async with asyncio.timeout(ANSWER):
                if comm is None:
                    comm = await connect(self._address, timeout=ANSWER, deserialize=False, **self._security)
                await comm.write({"op": op, "data": packed(message)})
                answer = await comm.read()
        except BaseException as error:
            if comm is not None:
                comm.abort()
            if isinstance(error, CommClosedError | OSError):  # a TimeoutError is an OSError
                raise LinkLost from None
            raise
        self._comms[op] = comm
        self.has_worked = True
        return unpacked(answer["data"])

    async def close(self) -> None:
        for comm in self._comms.values():
            comm.abort()
        self._comms.clear()
