"""`bulkimg try`: send one change as the API page's "Try It Out" shows it."""

import asyncio
import json
import shlex
from typing import Annotated

import typer

from bulkimg.applier.trial import send_once
from bulkimg.cli import screen
from bulkimg.cli.options import TARGET, CommandContext, Flags, with_options
from bulkimg.credentials import Credentials
from bulkimg.engine.connect import Ports, connected, pace_of
from bulkimg.errors import Exit, TargetError, UsageError
from bulkimg.manifest.check import Checker
from bulkimg.manifest.columns import Columns
from bulkimg.model import Fields, normal_uuid
from bulkimg.settings import Settings
from bulkimg.zstack import Answer, log_out
from bulkimg.zstack.wire import DOCUMENTED_KEY, SERVER_KEY, update_body


@with_options(*TARGET, "timeout", "set", "empty_token", "allow_value")
def command(
    uuid: Annotated[str, typer.Argument(metavar="UUID", help="The image.")],
    flags: Flags,
    send: Annotated[bool, typer.Option("--send", help="Send it, and show the answer.")] = False,
) -> None:
    """Without --send, only shows."""
    asked = CommandContext(flags)
    image, fields = _change(uuid, asked.settings)
    if not send:
        screen.out(_curl(image, fields, asked.settings))
        if asked.settings.action_key == "auto":
            screen.note(f"some servers spell the key {SERVER_KEY} (--action-key {SERVER_KEY}); --send detects it")
        return
    asked.refuse_dry_run("try --send")
    asked.require_endpoint()
    answer = asyncio.run(_send(image, fields, asked.settings, asked.credentials()))
    if answer.status is None:
        raise TargetError(f"{asked.settings.target}: {answer.detail}")
    raise typer.Exit(Exit.OK if answer.status == 200 else Exit.SOME_ROWS_NOT)


def _change(uuid: str, settings: Settings) -> tuple[str, Fields]:
    image = normal_uuid(uuid)
    if image is None:
        raise UsageError(f"{uuid!r} is not an image uuid: 32 hexadecimal digits, with or without dashes")
    if not settings.set:
        raise UsageError("nothing to change: give --set FIELD=VALUE")
    checker = Checker(settings.empty_token, settings.allow_value)
    columns = Columns(settings, checker)  # refuses what `run` would refuse
    if columns.mentioned:
        raise UsageError(
            f"--set uses {{{min(columns.mentioned)}}}, but try has no row to take a value from; write the value itself"
        )
    fields, _ = checker.fields(1, {template.field: template.fill({}) for template in columns.templates}, cells=True)
    return image, fields


def _curl(image: str, fields: Fields, settings: Settings) -> str:
    """Return the request as a command to copy. The credential stays in the environment."""
    key = settings.action_key if settings.action_key != "auto" else DOCUMENTED_KEY
    body = update_body(key, fields).decode()
    url = f"{settings.endpoint or 'http://HOST:8080'}{settings.base_path}/v1/images/{image}/actions"
    return (
        f"curl -X PUT {shlex.quote(url)} \\\n"
        '  -H "Authorization: OAuth $BULKIMG_SESSION" \\\n'
        "  -H 'Content-Type: application/json;charset=UTF-8' \\\n"
        f"  -d {shlex.quote(body)}"
    )


async def _send(image: str, fields: Fields, settings: Settings, credentials: Credentials) -> Answer:
    ports = Ports()
    pace = pace_of(settings, ports.runtime, 1)
    async with connected(settings, credentials, pace, lambda event: None, lambda why: None, ports) as server:
        await server.auth.open()
        try:
            async for what, answer in send_once(server.api, image, fields, settings.timeout):
                screen.note(f"{what}: {f'HTTP {answer.status}' if answer.status else answer.detail}")
        finally:
            await log_out(server.auth)
        shown = server.transport.redactor.answer(answer)
    said = shown.json()
    screen.out(json.dumps(said, indent=2) if said is not None else shown.text)
    return answer
