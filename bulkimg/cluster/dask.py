"""The workers of a Dask cluster: how they are found and put to work, and how messages get to the desk and back.

Dask starts one long task on each worker and carries our messages; nothing else of it is used. A task that Dask started
again by itself would do no harm: it joins the desk as one more worker.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, LocalCluster, get_worker
from distributed.comm import CommClosedError, connect, listen
from distributed.security import Security
from distributed.utils import get_ip

from bulkimg import __version__
from bulkimg.applier import Policy
from bulkimg.cluster.access import own_access, sent_options
from bulkimg.cluster.desk import Desk, Hall
from bulkimg.cluster.messages import LinkLost, Message, packed, unpacked
from bulkimg.cluster.worker import DeskGone, Worker
from bulkimg.credentials import Credentials, identity_of
from bulkimg.engine.carrying import Carrier, Equipment
from bulkimg.engine.connect import Ports
from bulkimg.errors import BulkimgError, TargetError, UsageError
from bulkimg.ledger import Writer
from bulkimg.place import Place, checked_address
from bulkimg.planner import Reader
from bulkimg.process import event_loop, leave_no_core
from bulkimg.zstack import ImageApi

CONNECT = 10.0  # seconds to reach the scheduler
START = 120.0  # seconds until local workers run; a busy machine starts one in 2 to 10 s
ANSWER = 5.0  # seconds to an answer of the desk; then the worker asks again
HIRE = 0.5  # seconds between two looks for new workers
OVER, DESERTED = "the run is over", "the desk is gone"  # how the task of a worker ended
_TALKERS = ("distributed", "distributed.client", "tornado.application")  # loggers with a level of their own
_LOOK_AWAY = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # Ctrl-C is for the desk, which lets them drain
)


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
        for name in _TALKERS:  # what matters of it is said in our words
            logging.getLogger(name).setLevel(logging.CRITICAL)
        async with AsyncExitStack() as self._stack:
            yield

    async def ready(self) -> None:
        """Start or find the cluster, and wait for its first worker. Raises TargetError and UsageError."""
        client = await self._client()
        address = await self._listen(client)
        hiring = asyncio.create_task(self._keep_hiring(client, address))
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
        address = self._place.address or _address_in(self._place.file, insecure=self._place.insecure)
        security = Security() if address.startswith("tls://") else None  # from Dask's configuration
        try:
            client = await Client(
                address, asynchronous=True, security=security, timeout=CONNECT, set_as_default=False, name="bulkimg"
            )
        except (OSError, TimeoutError, TypeError, RuntimeError, ValueError) as error:
            raise TargetError(
                f"the scheduler at {address} cannot be reached: {_first_line(error)}; nothing was sent. Start it, or check "
                "address and certificates (Dask's distributed.comm.tls)"
            ) from None
        self._stack.push_async_callback(_closed, client)
        return client

    async def _of_local_cluster(self) -> Client:
        try:
            security = Security.temporary()  # other users of this machine must not reach it
            async with asyncio.timeout(START):
                cluster = await LocalCluster(
                    n_workers=self._place.local,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    protocol="tls",
                    security=security,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                    asynchronous=True,
                    memory_limit=0,
                    preload=[_LOOK_AWAY],
                )
        except ImportError as error:
            raise UsageError(f"--cluster needs the extra dask: {error}") from None
        except (OSError, RuntimeError) as error:
            raise TargetError(f"the local workers cannot be started: {_first_line(error)}; nothing was sent") from None
        self._stack.push_async_callback(_closed, cluster)
        client = await Client(cluster, asynchronous=True, set_as_default=False)
        self._stack.push_async_callback(_closed, client)
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
            raise UsageError(f"--desk: {at} cannot be opened: {_first_line(error)}; give --desk HOST:PORT") from None
        self._stack.callback(listener.stop)
        return str(listener.contact_address)

    async def _serve(self, comm: Any) -> None:
        """Answer the messages of one connection of a worker."""
        with suppress(CommClosedError, OSError, asyncio.CancelledError):
            while True:
                asked = await comm.read()
                answer = await self._hall.handle(asked["op"], unpacked(asked["data"]))
                await comm.write({"data": packed(answer)})

    async def _keep_hiring(self, client: Client, address: str) -> None:
        """Put every worker of the cluster to work that is not yet, until the run is over."""
        hired: dict[str, Any] = {}
        options = sent_options(self._own.run.settings)
        while True:
            with suppress(Exception):  # without a scheduler nobody is hired; the workers that are here go on
                async with asyncio.timeout(CONNECT):
                    here = set((await client.scheduler.identity(n_workers=-1))["workers"])
                    for gone in set(hired) - here:
                        await _forgotten(hired.pop(gone))
                    for one in here - set(hired):
                        hired[one] = client.submit(
                            work,
                            address,
                            options,
                            __version__,
                            workers=[one],
                            allow_other_workers=False,
                            pure=False,
                            retries=0,
                        )
                    for one in [one for one, future in hired.items() if future is not None]:
                        await self._look_at(one, hired)
            await asyncio.sleep(HIRE)

    async def _look_at(self, one: str, hired: dict[str, Any]) -> None:
        """Say why a worker cannot work. One that was cut off from this process for long is hired again."""
        future = hired[one]
        if future.status == "error":
            hired[one] = None
            self._hall.refuse(one, _first_line(await future.exception()))
        elif future.status == "cancelled" or (future.status == "finished" and await future.result() == DESERTED):
            del hired[one]


def _address_in(file: str, *, insecure: bool) -> str:
    """Return the address in a scheduler file. Raises UsageError."""
    try:
        address = unpacked(Path(file).expanduser().read_bytes())["address"]
        return checked_address(str(address), insecure=insecure)
    except OSError as error:
        raise UsageError(
            f"--cluster {file}: cannot be read: {error.strerror}; write local:N, tls://HOST:8786, or a scheduler file"
        ) from None
    except (ValueError, KeyError) as error:
        why = error if isinstance(error, ValueError) and str(error).startswith("sends") else "is no scheduler file"
        raise UsageError(f"--cluster {file}: {why}") from None


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _forgotten(future: Any) -> None:
    if future is not None:
        with suppress(Exception):  # its worker is gone, and perhaps the scheduler too
            await future.cancel()


async def _closed(what: Any) -> None:
    with suppress(OSError, TimeoutError, CommClosedError):
        async with asyncio.timeout(CONNECT):
            await what.close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


# -- on the worker ------------------------------------------------------------------------------------------------------


def work(desk: str, options: Mapping[str, Any], version: str) -> str:
    """The task of one worker of the cluster. Returns when the run is over; raises UsageError where it cannot work."""
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
            if version == __version__:  # another version may not know the options; the desk says so
                access = own_access(options, os.environ)
                introduction |= {"origin": access.origin, "account": access.account}
                worker = Worker(link, access.settings, access.credentials, introduction, Ports(), boottime)
                await worker.work()
            else:
                await link.call("join", introduction)
            return OVER
        except DeskGone as gone:
            if not gone.may_rejoin:
                return DESERTED
        except LinkLost:
            raise UsageError(f"{host} cannot reach this process at {desk}; give --desk HOST:PORT") from None
        except BulkimgError as error:
            raise UsageError(f"{host}: {error}") from None
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
        return unpacked(answer["data"])

    async def close(self) -> None:
        for comm in self._comms.values():
            comm.abort()
        self._comms.clear()
