"""Open a connection to a server, for runs, exports, verifications, `try` and `doctor`."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bulkimg.applier import Paced
from bulkimg.credentials import Credentials
from bulkimg.engine.carrying import Carriers, ThisProcess
from bulkimg.engine.control import Handler, listening
from bulkimg.ledger import OwnThread, WriterThread
from bulkimg.meter import Meter
from bulkimg.model import Held, Observer, Reopened, Unreadable
from bulkimg.pace import Pace
from bulkimg.pace.slots import Slots, shared_slots
from bulkimg.planner import Reader
from bulkimg.runtime import Runtime
from bulkimg.settings import Settings
from bulkimg.zstack import Auth, Client, HttpClient, ImageApi, Transport, make_auth, read_authority


def _http_client(settings: Settings, now: Callable[[], float]) -> Client:
    authority = read_authority(settings.ca_file)
    return HttpClient(settings.target, timeout=settings.timeout, authority=authority, now=now)


@dataclass(frozen=True, slots=True)
class Ports:
    """What a run uses of its machine.

    These are the clock and random generator, the network, the writer thread, the rate that processes share, who carries
    the rows, and the orders of `bulkimg ctl`. A simulation passes its own.
    """

    runtime: Runtime = field(default_factory=Runtime)
    connect: Callable[[Settings, Callable[[], float]], Client] = _http_client
    writer_thread: Callable[[], WriterThread] = OwnThread
    slots: Callable[[str], Slots] = shared_slots
    carriers: Callable[[], Carriers] = ThisProcess
    listen: Callable[[Path, Handler], AbstractAsyncContextManager[str]] = listening


@dataclass(frozen=True, slots=True)
class Server:
    """A server that can be asked. `auth.open` logs in."""

    transport: Transport
    auth: Auth
    api: ImageApi
    reader: Reader


def pace_of(settings: Settings, runtime: Runtime, concurrency: int, *, adapts: bool = False) -> Pace:
    """Return the pace that these settings ask for."""
    return Pace(
        settings.own_rate,
        concurrency,
        max_outage=settings.max_outage,
        adapts=adapts,
        clock=runtime.clock,
        sleep=runtime.sleep,
        rng=runtime.rng,
    )


@asynccontextmanager
async def connected(
    settings: Settings,
    credentials: Credentials,
    pace: Pace,
    observe: Observer,
    give_up: Callable[[str], None],
    ports: Ports,
    action_key: str = "",
    meter: Meter | None = None,
) -> AsyncIterator[Server]:
    """Give a connection that is paced, shares its rate, and reports outages. It is closed at the end of the block.

    `give_up` is called when the server is down for longer than the settings allow. `meter` counts its requests. Raises UsageError for a bad
    --ca-file.
    """
    runtime = ports.runtime
    client = ports.connect(settings, runtime.now)
    transport = Transport(client, settings.target, Paced(pace), meter, runtime.clock)
    try:
        auth = make_auth(credentials, transport, runtime.now, runtime.sleep)
        api = ImageApi(transport, auth, action_key or settings.action_key)
        breaker = pace.breaker
        breaker.probe = api.is_there
        breaker.on_opened = lambda seconds, why: observe(Held(seconds, why))
        breaker.on_closed = lambda seconds: observe(Reopened(seconds))
        breaker.on_give_up = give_up
        reader = Reader(api, breaker, runtime, settings.retries, lambda kind, why: observe(Unreadable(kind, why)))
        parts = settings.shard.count if settings.shard else 1
        with pace.rate.shared(ports.slots(settings.target), parts):
            yield Server(transport, auth, api, reader)
    finally:
        await transport.close()
