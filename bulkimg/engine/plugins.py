"""Load the plugins that a run names, and say in its ledger which they were."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulkimg.credentials import CREDENTIAL_VARIABLES
from bulkimg.errors import UsageError
from bulkimg.zstack.redaction import Redactor

if TYPE_CHECKING:
    from bulkimg.plugins.loading import Plugin
    from bulkimg.plugins.rows import Altered

_NAMES = ("BULKIMG_ACCOUNT", "BULKIMG_ACCESS_KEY_ID")  # variables that hold no secret
Record = dict[str, Any]  # a plugin in the ledger: name, package, version, hooks


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plugins of one run. `remarks` say how they differ from those that it began with."""

    loaded: "Sequence[Plugin]" = ()
    remarks: Sequence[tuple[str, str]] = ()  # the plugin, and what differs

    @property
    def alter(self) -> "Callable[..., Altered | None] | None":
        """Return what passes a row through the row hooks, or None if there are none."""
        if not self.loaded:
            return None
        from bulkimg.plugins.rows import RowHooks

        return hooks.alter if (hooks := RowHooks(self.loaded)) else None

    @property
    def records(self) -> list[Record]:
        """Return the plugins as the ledger keeps them."""
        return [
            {"name": plugin.name, "package": plugin.package, "version": plugin.version, "hooks": list(plugin.hooks)}
            for plugin in self.loaded
        ]


NO_PLUGINS = Plugins()


def load_plugins(names: Sequence[str]) -> Plugins:
    """Load the named plugins. Raises UsageError for one that is missing or wrong."""
    if not names:
        return NO_PLUGINS
    from bulkimg.plugins.loading import load  # imported only now: most runs have no plugin

    return Plugins(load(names, environment_redactor().text))


def load_observers(names: Sequence[str], records: Sequence[Record]) -> Plugins:
    """Load the plugins that observe events, for rows that were checked before. `records` are those of the ledger."""
    known = {record["name"]: record for record in records}
    wanted = [name for name in names if name not in known or "bulkimg_event" in known[name]["hooks"]]
    if not wanted:
        return NO_PLUGINS
    try:
        loaded = load_plugins(wanted).loaded
    except UsageError as error:
        raise UsageError(f"{error}; to continue without plugins, add --plugin none") from None
    remarks = [
        (f"plugin {plugin.name}", f"is {plugin.package} {plugin.version} now; the run began with {before}")
        for plugin in loaded
        if (before := _version(known.get(plugin.name))) not in ("", f"{plugin.package} {plugin.version}")
    ]
    return Plugins(loaded, remarks)


def _version(record: Mapping[str, Any] | None) -> str:
    return f"{record['package']} {record['version']}" if record else ""


def with_new(records: Sequence[Record], plugins: Plugins) -> list[Record]:
    """Return the records of a run's first plugins, followed by those of plugins that came later."""
    known = {record["name"] for record in records}
    return [*records, *(record for record in plugins.records if record["name"] not in known)]


def with_earlier(records: Sequence[Record], plugins: Plugins) -> list[Record]:
    """Return the records of the plugins, and of those that only checked the rows in an earlier run."""
    known = {plugin.name for plugin in plugins.loaded}
    return [*(record for record in records if record["name"] not in known), *plugins.records]


def environment_redactor() -> Redactor:
    """Return what hides the credentials of our environment, which a plugin can read and quote."""
    redactor = Redactor()
    redactor.add_secret(*(os.environ.get(name, "") for name in CREDENTIAL_VARIABLES if name not in _NAMES))
    return redactor
