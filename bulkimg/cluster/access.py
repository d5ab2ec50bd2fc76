"""Find out what a worker may use: its own credentials, and the server that its machine is set up for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from bulkimg.credentials import PROFILE_KEYS, Credentials, find_credentials, identity_of
from bulkimg.engine.create import kept_options
from bulkimg.layers import environment_layer, read_profile
from bulkimg.settings import PLAN_SHAPE, Settings
from bulkimg.values import parse_base_path, parse_endpoint, parse_path

# The options that a worker needs. None of them is a secret.
_SENT = frozenset(
    {
        "endpoint",
        "base_path",
        "ca_file",
        "require_tls",
        "action_key",
        "concurrency",
        "adaptive",
        "timeout",
        "job_timeout",
        "retries",
        "tags_mode",
        "profile",
        *PLAN_SHAPE,
    }
)


class Access(NamedTuple):
    """What a worker sends with: `origin` is the server and context path of its own set-up, or of the run."""

    settings: Settings
    credentials: Credentials
    origin: str

    @property
    def account(self) -> str:
        return identity_of(self.credentials)


def sent_options(settings: Settings) -> dict[str, Any]:
    """Return the options that go to the workers, as Settings accepts them."""
    return {name: value for name, value in kept_options(settings).items() if name in _SENT}


def own_access(options: Mapping[str, Any], environ: Mapping[str, str]) -> Access:
    """Return what this machine gives a worker for a run with these options. Raises UsageError.

    Environment and profile are those of the worker. They may name the server, and have to name the same one.
    """
    settings = Settings.model_validate(options)
    given = environment_layer(environ).options
    table = read_profile(given.get("profile") or settings.profile, environ)
    secrets = {key: table.pop(key) for key in PROFILE_KEYS if key in table}
    own = {**table, **given}
    endpoint = parse_endpoint(own["endpoint"]) if "endpoint" in own else settings.endpoint
    base_path = parse_base_path(own["base_path"]) if "base_path" in own else settings.base_path
    if "ca_file" in own:
        settings = settings.model_copy(update={"ca_file": parse_path(own["ca_file"])})
    return Access(settings, find_credentials(environ, secrets), f"{endpoint}{base_path}")
