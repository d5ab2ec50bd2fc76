"""Read what a job asks of each of its targets."""

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bulkimg.campaign import Campaign, create
from bulkimg.cli import screen
from bulkimg.cli.options import CommandContext, Flags
from bulkimg.credentials import CREDENTIAL_VARIABLES, NAMES, Credentials, running_once
from bulkimg.engine.reopen import stored_settings
from bulkimg.engine.together import check_together
from bulkimg.errors import BulkimgError, RunRefused, StorageError, UsageError
from bulkimg.settings import Settings
from bulkimg.values import parse_endpoint


def read_targets(settings: Settings, flags: Flags, job: Path, *, offline: bool = False) -> dict[str, CommandContext]:
    """Return what is asked of each chosen target. Raises UsageError if they cannot be one campaign.

    `settings` are those of the job as a whole. `offline`: a target without an endpoint is no error yet.
    """
    contexts = {name: _context(flags, job, name, offline=offline) for name in create.chosen(settings)}
    found = {name: context.settings for name, context in contexts.items()}
    check_together({name: each for name, each in found.items() if each.endpoint})
    return contexts


def stored_options(
    known: Campaign, left_out: Collection[str] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, BulkimgError]]:
    """Return the options that each run began with, without `left_out`, and why a run cannot be read."""
    options: dict[str, dict[str, Any]] = {}
    errors: dict[str, BulkimgError] = {}
    for name, directory in known.runs().items():
        try:
            options[name] = {key: value for key, value in stored_settings(directory).items() if key not in left_out}
        except (RunRefused, StorageError) as error:  # its ledger is damaged; the others are not
            errors[name] = error
    return options, errors


def stored_targets(
    known: Campaign, flags: Flags, left_out: Collection[str] = ()
) -> tuple[dict[str, CommandContext], dict[str, BulkimgError]]:
    """Return what is asked of each run of a campaign now, and why a run cannot be read."""
    options, errors = stored_options(known, left_out)
    return {name: CommandContext(flags, stored=stored) for name, stored in options.items()}, errors


def credentials_of(contexts: Mapping[str, CommandContext]) -> dict[str, Credentials]:
    """Return the credentials of each target. A command that several have in common runs once."""
    run = running_once()
    return {name: context.credentials(run) for name, context in contexts.items()}


def _context(flags: Flags, job: Path, name: str, *, offline: bool) -> CommandContext:
    try:
        context = CommandContext(flags, job=job, target=name)
        if not offline:
            context.require_endpoint()
        _refuse_foreign(context)
    except UsageError as error:
        raise UsageError(f"target {name}: {error}") from None
    return context


def _refuse_foreign(context: CommandContext) -> None:
    """Raise UsageError if the profile is for another server: its credentials must not go there."""
    own, endpoint = context.profile_endpoint, context.settings.endpoint
    if own is None:
        return
    try:
        is_same = parse_endpoint(own) == endpoint
    except ValueError:
        is_same = False
    if not is_same:
        raise UsageError(
            f"profile {context.profile} is for {own}, and the target is {endpoint}; use a profile for that server, so that "
            "its credentials go nowhere else"
        )


def warn_of_shared(contexts: Mapping[str, CommandContext]) -> None:
    """Warn if several targets get the same credentials."""
    if len(contexts) < 2:
        return
    place = os.environ.get("CREDENTIALS_DIRECTORY")
    given = [name for variable in CREDENTIAL_VARIABLES for name in (variable, f"{variable}_FILE")]
    own = "give each target a profile to use its own"
    if any(map(os.environ.get, given)) or (place and any(Path(place, f"bulkimg.{name}").exists() for name in NAMES)):
        screen.warning(f"the credentials in the environment are used for all {len(contexts)} targets; {own}")
        return
    for profile, targets in Counter(context.profile for context in contexts.values()).items():
        if targets > 1:
            screen.warning(f"the credentials of profile {profile} are used for {targets} targets; {own}")
