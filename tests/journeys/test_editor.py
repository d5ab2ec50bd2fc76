"""T35: plans, applies and undos in any order while a second editor works: no later edit is ever overwritten.

The model below computes the table after each step by the documented rules. It shares no code with bulkimg.
"""

import asyncio
import json
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import bulkimg
from bulkimg.engine.anew import NothingToDo, create_undo
from bulkimg.engine.create import create_run
from bulkimg.engine.execute import Engine
from bulkimg.engine.reopen import resume_run
from bulkimg.layers import flags_layer, merge
from bulkimg.ledger import RunDirectory
from tests.battery.stateful import explore
from tests.conftest import Server, sandbox_process

IMAGES = 4
FIELDS = ("name", "platform", "description")
VALUES = {"name": ("a", "b", "c"), "platform": ("Linux", "Windows", "Other"), "description": ("", "x", "y")}
CHANGES = st.lists(
    st.tuples(
        st.integers(0, IMAGES - 1),
        st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}),
    ).filter(lambda change: change[1]),
    min_size=1,
    max_size=IMAGES,
    unique_by=lambda change: change[0],
)
Table = dict[str, dict[str, str]]


@dataclass
class Planned:
    """A run, what its manifest asks for, and the table in its plan. `wrote`: (old, new) by image, once applied."""

    directory: Path
    wanted: Table
    seen: Table
    wrote: dict[str, tuple[dict[str, str], dict[str, str]]] | None = None


steps: Counter[str] = Counter()  # of all examples so far


class Editors(RuleBasedStateMachine):
    """Two editors who change the same four images."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="bulkimg-"))
        self.uuids = sorted(self.server.images())
        for n, uuid in enumerate(self.uuids):
            self.server.edit(uuid, name="abc"[n % 3], platform="Other", description="x")
        self.table: Table = self.read()
        self.plans: list[Planned] = []

    def read(self) -> Table:
        images = self.server.images()
        return {uuid: {name: images[uuid].get(name, "") for name in FIELDS} for uuid in self.uuids}

    def teardown(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    # -- what the tool does ---------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Any:
        return merge(flags_layer({"endpoint": self.server.url, "runs_dir": str(self.place), "rate": "unlimited"}))

    def carry(self, opened: Any, **how: Any) -> Any:
        async def work() -> Any:
            return await Engine(opened, bulkimg.Session(self.server.session), lambda event: None, **how).execute()

        try:
            return asyncio.run(work())
        finally:
            opened.close()

    # -- rules ----------------------------------------------------------------------------------------------------------

    @rule(at=st.integers(0, IMAGES - 1), name=st.sampled_from(FIELDS), which=st.integers(0, 2))
    def edit(self, at: int, name: str, which: int) -> None:
        """Edit as the second editor."""
        steps["edits"] += 1
        uuid, value = self.uuids[at], VALUES[name][which]
        self.server.edit(uuid, **{name: value})
        self.table[uuid][name] = value

    @rule(changes=CHANGES)
    def plan(self, changes: list[tuple[int, dict[str, str]]]) -> None:
        steps["plans"] += 1
        wanted = {self.uuids[at]: fields for at, fields in changes}
        opened = create_run("(changes)", self.settings, [{"uuid": u, **_cells(f)} for u, f in wanted.items()])
        directory = opened.directory.path
        summary = self.carry(opened, plan_only=True)
        seen = {uuid: dict(fields) for uuid, fields in self.table.items()}
        same = sum(all(seen[u][n] == v for n, v in fields.items()) for u, fields in wanted.items())
        assert summary.counts["unchanged"] == same
        if same < len(wanted):
            self.plans.append(Planned(directory, wanted, seen))

    @precondition(lambda self: any(p.wrote is None for p in self.plans))
    @rule(which=st.integers(0, 9))
    def apply(self, which: int) -> None:
        waiting = [p for p in self.plans if p.wrote is None]
        planned = waiting[which % len(waiting)]
        expected: dict[str, str] = {}
        planned.wrote = {}
        for uuid, fields in planned.wanted.items():
            seen, now = planned.seen[uuid], self.table[uuid]
            differing = {name: value for name, value in fields.items() if seen[name] != value}
            if not differing:
                expected[uuid] = "unchanged"
            elif any(
                now[name] not in (seen[name], value) or (name not in differing and now[name] != value)
                for name, value in fields.items()
            ):
                expected[uuid] = "conflict"
            elif all(now[name] == value for name, value in fields.items()):
                expected[uuid] = "unchanged"
            else:
                expected[uuid] = "updated"  # an equal change by somebody else is not the run's
                sent = {name: value for name, value in differing.items() if now[name] != value}
                planned.wrote[uuid] = ({name: seen[name] for name in sent}, sent)
                now.update(sent)
        steps["applies"] += 1
        steps["conflicts"] += list(expected.values()).count("conflict")
        self.carry(resume_run(RunDirectory(planned.directory), self.settings, planned=True))
        assert _statuses(planned.directory) == expected

    @precondition(lambda self: any(p.wrote for p in self.plans))
    @rule(which=st.integers(0, 9))
    def undo(self, which: int) -> None:
        done = [p for p in self.plans if p.wrote]
        planned = done[which % len(done)]
        assert planned.wrote
        expected = {}
        for uuid, (old, new) in planned.wrote.items():
            now = self.table[uuid]
            if any(now[name] not in (old[name], new[name]) for name in new):
                expected[uuid] = "conflict"
            elif all(now[name] == old[name] for name in new):
                expected[uuid] = "unchanged"
            else:
                expected[uuid] = "updated"
                now.update(old)
        try:
            opened = create_undo(RunDirectory(planned.directory), self.settings)
        except NothingToDo:
            assert not planned.wrote
            return
        steps["undos"] += 1
        steps["conflicts"] += list(expected.values()).count("conflict")
        directory = opened.directory.path
        self.carry(opened)
        assert _statuses(directory) == expected

    @invariant()
    def the_table_is_as_the_rules_say(self) -> None:
        assert self.read() == self.table


def _cells(fields: dict[str, str]) -> dict[str, str]:
    return {name: value or "<empty>" for name, value in fields.items()}


def _statuses(directory: Path) -> dict[str, str]:
    lines = (directory / "results.jsonl").read_text("utf-8").split("\n")[:-1]
    return {result["uuid"]: result["status"] for result in map(json.loads, lines)}


def with_server(server: Server) -> type[Editors]:
    return type("Editors", (Editors,), {"server": server})


@pytest.mark.parametrize("dialect", ["documented", "zstack"])
def test_two_editors(dialect: str) -> None:
    with sandbox_process("--images", str(IMAGES), "--dialect", dialect) as server:
        explore(with_server(server), examples=10, steps=14)
