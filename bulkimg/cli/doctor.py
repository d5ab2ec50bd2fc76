"""`bulkimg doctor`: check whether everything is set up. It changes nothing and never prints a secret."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import typer

from bulkimg.cli import screen
from bulkimg.cli.options import SPEECH, TARGET, CommandContext, Flags, with_options
from bulkimg.credentials import AccessKey, Account, Credentials
from bulkimg.engine.doctor import Check, examine
from bulkimg.errors import BulkimgError, Exit
from bulkimg.process import event_loop, leave_no_core
from bulkimg.report.documents import DoctorCheck, DoctorDocument
from bulkimg.settings import Settings

_SET_UP = frozenset({"runs directory", "endpoint", "credentials"})  # exit code 2 if one of these fails, 5 for others


@with_options(*TARGET, "rate", "timeout", "runs_dir", *SPEECH)
def command(flags: Flags) -> None:
    """Set-up first, then the server: one line a check, and what to do."""
    asked = CommandContext(flags)
    # A person waits: a server that is down is a result, not an outage to wait for.
    settings = asked.settings.model_copy(update={"max_outage": 0.0, "retries": 0})
    checks = [_runs_dir(settings.runs_dir)]
    credentials: Credentials | None = None
    checks.append(_endpoint(settings))
    try:
        credentials = asked.credentials()
        checks.append(Check("credentials", "ok", _kind(credentials)))
    except BulkimgError as error:
        what, _, to_do = str(error).partition("; ")
        checks.append(Check("credentials", "fail", what, to_do or "bulkimg help credentials"))
    if credentials and settings.endpoint:
        leave_no_core()
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            checks += runner.run(_examined(settings, credentials))
    exit_code = _exit_code(checks)
    if settings.json_summary:
        listed = [DoctorCheck.model_validate(check._asdict()) for check in checks]
        screen.out_json(DoctorDocument(exit_code=int(exit_code), checks=listed).as_json())
    else:
        for line in _lines(checks):
            screen.out(screen.one_line(line))
    raise typer.Exit(exit_code)


async def _examined(settings: Settings, credentials: Credentials) -> list[Check]:
    return [check async for check in examine(settings, credentials)]


def _exit_code(checks: list[Check]) -> Exit:
    failed = {check.name for check in checks if check.result == "fail"}
    if failed & _SET_UP:
        return Exit.USAGE
    return Exit.TARGET if failed else Exit.OK


def _lines(checks: list[Check]) -> Iterator[str]:
    width = max(len(check.name) for check in checks)
    for check in checks:
        yield f"{check.result:<4}  {check.name:<{width}}  {check.message}"
        if check.hint and check.result != "ok":
            yield f"{'':<{width + 8}}{check.hint}"


def _runs_dir(path: Path) -> Check:
    """Check whether runs can be kept in the directory. It is not created."""
    place = path.absolute()
    nearest = next(parent for parent in (place, *place.parents) if parent.exists())
    if not nearest.is_dir():
        return Check("runs directory", "fail", f"{nearest} is not a directory", "choose another with --runs-dir")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Check("runs directory", "fail", f"{nearest} is not writable", "choose another with --runs-dir")
    return Check("runs directory", "ok", f"{place}{'' if nearest == place else ' (the first run creates it)'}")


def _endpoint(settings: Settings) -> Check:
    if settings.endpoint is None:
        return Check(
            "endpoint",
            "fail",
            "no server is configured",
            "give --endpoint URL, set BULKIMG_ENDPOINT, or name a --profile",
        )
    return Check("endpoint", "ok", settings.target)


def _kind(credentials: Credentials) -> str:
    if isinstance(credentials, Account):
        return f"account {credentials.name} and a password"
    if isinstance(credentials, AccessKey):
        return f"access key {credentials.key_id} and its secret"
    return "a session"
