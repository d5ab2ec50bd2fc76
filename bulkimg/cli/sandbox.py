"""`bulkimg sandbox`: start the practice server and say how to use it."""

import asyncio
from typing import Annotated

import typer

from bulkimg.cli import screen
from bulkimg.errors import UsageError
from bulkimg.process import event_loop
from bulkimg.sandbox import Options, serve
from bulkimg.sandbox.faults import KINDS, parse_faults
from bulkimg.sandbox.server import Sandbox


def command(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8080,
    images: Annotated[int, typer.Option(min=0, metavar="N", help="How many images there are.")] = 100,
    dialect: Annotated[str, typer.Option(help="documented or zstack.")] = "zstack",
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Requests worked on at a time; the others queue.")
    ] = 50,
    service_time: Annotated[float, typer.Option(min=0, metavar="MS", help="Milliseconds a worker needs for one.")] = 0,
    faults: Annotated[
        str,
        typer.Option(metavar="SPEC", help=f"Such as reset-after=1%,429=2%:1,poll/502=5%. Kinds: {', '.join(KINDS)}."),
    ] = "",
    seed: Annotated[
        int, typer.Option(metavar="N", help="The same seed makes the same images and the same faults.")
    ] = 1,
    session_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="A session expires after this long without use.")
    ] = 7200,
    only_update: Annotated[
        bool, typer.Option("--only-update", help="Offer UpdateImage and login only; images cannot be read.")
    ] = False,
) -> None:
    """Binds 127.0.0.1 only. GET /_sandbox/requests and /_sandbox/images show what it received and what it holds."""
    if dialect not in ("documented", "zstack"):
        raise UsageError(f"--dialect {dialect!r} is not one of documented, zstack")
    try:
        parse_faults(faults)
    except ValueError as error:
        raise UsageError(f"--faults: {error}") from None
    options = Options(port, images, dialect, workers, service_time, faults, seed, session_timeout, only_update)  # type: ignore[arg-type] # checked above
    try:
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            runner.run(serve(options, _greet))
    except OSError as error:
        raise UsageError(f"port {port} on 127.0.0.1: {error.strerror}; choose another with --port") from None


def _greet(sandbox: Sandbox, url: str) -> None:
    identity = sandbox.identity
    screen.out(
        f"sandbox: {url} ({sandbox.options.dialect} dialect, {len(sandbox.table.rows):,} images); Ctrl-C ends it"
    )
    screen.out(f"session: {identity.first_session}")
    screen.out("")
    screen.out(f"  export BULKIMG_ENDPOINT={url}")
    screen.out(f"  export BULKIMG_SESSION={identity.first_session}")
    screen.out("")
    screen.out(f"or BULKIMG_ACCOUNT=admin with BULKIMG_PASSWORD={identity.password},")
    screen.out(f"or BULKIMG_ACCESS_KEY_ID={identity.key_id} with BULKIMG_ACCESS_KEY_SECRET={identity.key_secret}")
    screen.out(f"requests received: {url}/_sandbox/requests   images now: {url}/_sandbox/images")
