"""`bulkimg show`: print one image as it is now, and what the runs here did to it."""

import asyncio
from typing import Annotated, Any

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import SPEECH, TARGET, CommandContext, Flags, with_options
from bulkimg.cli.progress import Watcher
from bulkimg.credentials import Credentials
from bulkimg.engine.look import reading
from bulkimg.engine.past import past_of, present_image
from bulkimg.errors import Exit, TargetError, UsageError
from bulkimg.model import normal_uuid
from bulkimg.planner.diff import show as value_text
from bulkimg.process import event_loop, leave_no_core
from bulkimg.report.documents import History, ImageDocument
from bulkimg.settings import Settings


@with_options(*TARGET, "rate", "timeout", "runs_dir", *SPEECH)
def command(
    flags: Flags,
    uuid: Annotated[str, typer.Argument(metavar="UUID", help="The image.")],
) -> None:
    """Reads only. The history is shown even where the server cannot be asked."""
    image = normal_uuid(uuid)
    if image is None:
        raise UsageError(f"{uuid!r} is not an image uuid; give 32 hexadecimal digits, with or without dashes")
    asked = CommandContext(flags)
    settings = asked.settings.model_copy(update={"max_outage": 0.0, "retries": 0})
    asked.require_endpoint()
    credentials = asked.credentials()
    leave_no_core()
    found, error = None, ""
    try:
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            found = runner.run(_read(settings, credentials, image))
    except TargetError as unreadable:
        error = str(unreadable)
    past, unread = past_of(settings.runs_dir, image)
    for problem in unread:
        screen.warning(problem)
    code = Exit.TARGET if error else Exit.OK if found else Exit.SOME_ROWS_NOT
    document = ImageDocument(exit_code=int(code), uuid=image, image=found, error=error, history=past)
    if settings.json_summary:
        screen.out_json(document.as_json())
    else:
        _show(document, settings)
    raise typer.Exit(code)


async def _read(settings: Settings, credentials: Credentials, uuid: str) -> dict[str, Any] | None:
    async with reading(settings, credentials, Watcher(settings.model_copy(update={"progress": "none"}))) as reader:
        return await present_image(reader, uuid)


def _show(document: ImageDocument, settings: Settings) -> None:
    screen.out(f"image {document.uuid} on {settings.target}")
    if document.error:
        screen.error(document.error)
    elif document.image is None:
        screen.out("  the server has no such image")
    else:
        rows: list[tuple[str, ...]] = [(f"  {name}", _text(value)) for name, value in document.image.items()]
        screen.out(screen.table(rows))
    if not document.history:
        screen.out(f"no run in {settings.runs_dir} has a row for it")
        return
    screen.out("history, newest first:")
    for past in document.history:
        screen.out(
            screen.one_line(
                f"  {past.started_at[:16].replace('T', ' ')}  {past.kind} {past.run_id}, line {past.line}: {past.status}{_elsewhere(past, settings)}"
            )
        )
        for line in _changes(past):
            screen.out(screen.one_line(line))


def _elsewhere(past: History, settings: Settings) -> str:
    return "" if past.target == settings.target else f" (on {past.target})"


def _changes(past: History) -> list[str]:
    """Return what one run changed, or why it did not."""
    if not past.changed:
        return [f"    {past.message}"] if past.message else []
    before, after = past.before or {}, past.after or {}
    return [f"    {name}: {_text(before.get(name))} → {_text(after.get(name))}" for name in past.changed]


def _text(value: Any) -> str:
    return screen.one_line(value_text(value))
