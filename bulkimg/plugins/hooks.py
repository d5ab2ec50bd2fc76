"""Define the hooks that a plugin may have."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

from bulkimg.plugins.shapes import Problem, Row

if TYPE_CHECKING:
    from bulkimg.model import Event

PROJECT = "bulkimg"  # also the group of the entry points

hookimpl = pluggy.HookimplMarker(PROJECT)
hookspec = pluggy.HookspecMarker(PROJECT)


class Hooks:
    """The hooks. A plugin has one of them or both."""

    @staticmethod
    @hookspec(firstresult=True)
    def bulkimg_row(row: Row) -> Row | Problem | Sequence[Problem] | None:
        """Return a changed row, why the row is refused, or None for a row that stays as it is.

        Called once for each row of a manifest while it is checked, in the order of the manifest.
        """

    @staticmethod
    @hookspec
    def bulkimg_event(event: "Event") -> None:
        """Observe an event of a run. Called in a thread of the plugin's own, one event after the other."""


NAMES = ("bulkimg_row", "bulkimg_event")
