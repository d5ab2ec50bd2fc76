"""One request under a fault: what a fault knows, the table of kinds, and how a fault is run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.battery.api import Call, Reply, accepted, as_applied, inventory
from tests.battery.witness_api import WitnessApi
from tests.battery.witness_script import Rule
from tests.battery.witness_wire import Connection, GoneError

HTML = b"<html><head><title>Sign in</title></head><body>Please sign in to the proxy.</body></html>"


@dataclass
class Exchange:
    """One request under a fault."""

    request: Call
    image: str  # of a PUT, a poll or a read
    connection: Connection
    api: WitnessApi
    rule: Rule

    @property
    def kind(self) -> str:
        return self.request.kind

    async def good(self) -> Reply:
        return await self.api.serve(self.request)

    async def say(self, reply: Reply) -> None:
        await self.connection.send(reply.wire())

    async def claimed(self, default: Any = "coin") -> Reply:
        """Return an answer that shows the change, whether or not it is made (`act`).

        Damaged answers are made from it.
        """
        act = default if self.rule.act is None else self.rule.act
        if act == "coin":
            act = self.rule.rng.random() < 0.5
        return await self.good() if act or self.kind != "put" else self.pretended()

    def pretended(self) -> Reply:
        """Return the answer to a change that is not made."""
        if self.api.dialect == "zstack":
            return accepted(self.request.job)
        return self.shown(self.image)

    def shown(self, uuid: str) -> Reply:
        """Return an inventory of this image with the requested values, which the table may not have."""
        fields = as_applied(self.api.wanted(self.request) or {})
        return inventory(uuid, {**self.api.table.get(self.image, {}), **fields})

    def inventory(self) -> dict[str, Any]:
        return self.shown(self.image).document["inventory"]  # type: ignore[no-any-return]

    def other_image(self) -> str:
        return next((uuid for uuid in self.api.table if uuid != self.image), "f" * 32)


Fault = Callable[[Exchange], Awaitable[None]]
FAULTS: dict[str, Fault] = {}


def fault(name: str) -> Callable[[Fault], Fault]:
    def keep(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return keep


async def run_fault(x: Exchange) -> str:
    """Apply the rule. Returns how the request ended, for the log."""
    if x.rule.do not in FAULTS:
        await x.say(Reply.text(599, f"the script names an unknown fault {x.rule.do!r}"))
        return "unknown fault"
    try:
        await FAULTS[x.rule.do](x)
    except GoneError:
        return "gone"
    return "answered" if x.connection.open else "broken"
