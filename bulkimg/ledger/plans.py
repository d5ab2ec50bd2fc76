"""Keep a run's plan: the values that the survey read, the values that are sent because of them, and the counts."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from bulkimg.ledger import checksums, claims
from bulkimg.ledger.store import Ledger
from bulkimg.model import Action, Fields, Outcome, PlanCounts, Planned, Seen, Status

TRANSITIONS = 12  # as many as a person reads
CHUNK = 500  # rows held in memory at a time

# The outcome of a row that the plan does not send.
_ENDS = {
    Action.UNCHANGED: (Status.UNCHANGED, "ALREADY_SO", ""),
    Action.CONFLICT: (Status.CONFLICT, "PRECONDITION", "check the image: another client may have changed it"),
    Action.MISSING: (
        Status.FAILED,
        "NO_SUCH_IMAGE",
        "check the uuid: the image does not exist on this server, or was deleted",
    ),
}


class Asked(NamedTuple):
    """A row to be compared with its image."""

    ordinal: int
    line: int
    uuid: str
    fields: Fields
    expects: Fields


def to_plan(ledger: Ledger, after: int, limit: int) -> list[Asked]:
    """Return the next rows after the ordinal `after` that have their own PUT and set or expect a field."""
    found = ledger.db.execute(
        """SELECT row.ordinal, row.line, lower(hex(row.uuid)), row.fields, coalesce(row.expects, '{}')
        FROM row LEFT JOIN outcome ON outcome.ordinal = row.ordinal
        WHERE row.ordinal > ? AND row.leader IS NULL AND row.problems = 0 AND outcome.ordinal IS NULL
        ORDER BY row.ordinal LIMIT ?""",
        (after, limit),
    )
    return [Asked(ordinal, line, uuid, from_json(f), from_json(e)) for ordinal, line, uuid, f, e in found]


def add(ledger: Ledger, planned: Sequence[tuple[Asked, Planned]]) -> None:
    """Write plans. Rows that send nothing are settled with them. Needs a transaction."""
    ledger.db.executemany(
        "INSERT INTO plan VALUES (?, ?, ?, ?, ?)",
        [(row.ordinal, p.action.value, _json(p.before), _json(p.send), _json(p.aside)) for row, p in planned],
    )
    claims.settle(ledger, [_end(row, p) for row, p in planned if p.action is not Action.UPDATE])


def _end(row: Asked, planned: Planned) -> Outcome:
    status, code, hint = _ENDS[planned.action]
    return Outcome(row.ordinal, row.line, row.uuid, status, code, planned.message, hint)


def _json(value: Any) -> str | None:
    return to_json(value).decode() if value else None


def is_made(ledger: Ledger) -> bool:
    """Return whether the images of this run were read."""
    return bool(ledger.meta("surveyed"))


def make(ledger: Ledger, target: str, *, surveyed: bool) -> None:
    """Finish the plan: it does not change from now on. Call it in the transaction that wrote it."""
    checksums.write(ledger.db, plan=checksums.in_order(ledger.db, "plan"))
    ledger.set_meta(state="planned", surveyed=surveyed, plan_digest=_digest(ledger, target))


def _digest(ledger: Ledger, target: str) -> str:
    """Return the digest for `apply --checksum`, of the target and every row's old and sent values."""
    total = sha256(target.encode())
    found = ledger.db.execute(
        """SELECT row.ordinal, row.uuid, row.fields, row.expects, plan.action, plan.before, plan.send
        FROM row LEFT JOIN plan USING (ordinal) WHERE row.problems = 0 ORDER BY row.ordinal"""
    )
    for ordinal, uuid, *texts in found:  # equal to json.dumps, which makes an encoder for each call
        said = ", ".join([encode_basestring_ascii(text) if text is not None else "null" for text in texts])
        total.update(f'[{ordinal}, "{uuid.hex()}", {said}]'.encode())
    return total.hexdigest()


def counts(ledger: Ledger) -> PlanCounts:
    """Return the plan's counts. Without a survey, every row without an outcome is an update of all its fields."""
    surveyed = is_made(ledger)
    table = (
        "plan"
        if surveyed
        else "(SELECT row.ordinal, 'update' AS action, fields AS send, NULL AS before FROM row LEFT JOIN outcome USING (ordinal) WHERE leader IS NULL AND problems = 0 AND outcome.ordinal IS NULL)"
    )
    actions = dict(ledger.db.execute(f"SELECT action, count(*) FROM {table} AS plan GROUP BY action"))  # noqa: S608 - constant texts
    fields = dict(
        ledger.db.execute(
            f"SELECT asked.key, count(*) AS images FROM {table} AS plan, json_each(plan.send) AS asked "  # noqa: S608 - constant texts
            "WHERE plan.action = 'update' GROUP BY asked.key ORDER BY images DESC, asked.key"
        )
    )
    return PlanCounts(
        images=sum(actions.values()),
        actions={action.value: actions.get(action.value, 0) for action in Action},
        fields=fields,
        transitions=_transitions(ledger) if surveyed else (),
        digest=ledger.meta("plan_digest", ""),
        surveyed=surveyed,
    )


def _transitions(ledger: Ledger) -> list[tuple[str, Any, Any, int]]:
    found = ledger.db.execute(
        """SELECT asked.key, coalesce(plan.before -> ('$."' || asked.key || '"'), 'null') AS was,
          plan.send -> ('$."' || asked.key || '"') AS becomes, count(*) AS images
        FROM plan, json_each(plan.send) AS asked WHERE plan.action = 'update'
        GROUP BY asked.key, was, becomes HAVING images > 1 ORDER BY images DESC, asked.key, was, becomes LIMIT ?""",
        (TRANSITIONS,),
    )
    return [(name, json.loads(was), json.loads(becomes), images) for name, was, becomes, images in found]


def canary(ledger: Ledger, count: int) -> list[int]:
    """Return the ordinals of so many rows, spread evenly over the plan. A resumed run gets the same ones."""
    kept: list[int] = ledger.meta("canary") or _spread(ledger, count)
    ledger.set_meta(canary=kept)
    return kept


def _spread(ledger: Ledger, count: int) -> list[int]:
    found = ledger.db.execute(
        """WITH todo AS (
          SELECT row.ordinal, row_number() OVER (ORDER BY row.ordinal) AS n, count(*) OVER () AS total
          FROM row LEFT JOIN outcome USING (ordinal)
          WHERE row.leader IS NULL AND row.problems = 0 AND outcome.ordinal IS NULL)
        SELECT ordinal FROM todo WHERE n * ?1 / total > (n - 1) * ?1 / total ORDER BY ordinal""",
        (count,),
    )
    return [ordinal for (ordinal,) in found]


def not_updated(ledger: Ledger, ordinals: Sequence[int]) -> list[tuple[int, str, str]]:
    """Return the (line, status, message) of the rows among these that are neither `updated` nor `unchanged`."""
    return ledger.db.execute(
        """SELECT line, status, message FROM row_text WHERE ordinal IN (SELECT value FROM json_each(?))
        AND status NOT IN ('updated', 'unchanged') ORDER BY ordinal""",
        (to_json(ordinals).decode(),),
    ).fetchall()


class PlannedRow(NamedTuple):
    """One row of the plan for people to read."""

    line: int
    uuid: str
    action: str
    before: Seen
    send: Fields
    message: str


def rows(ledger: Ledger, *, updates_only: bool = False, limit: int = -1) -> Iterator[PlannedRow]:
    """Yield the plan's rows in manifest order. Without a survey they have no old values."""
    where = "AND outcome.ordinal IS NULL" if updates_only else ""
    cursor = ledger.db.execute(
        f"""SELECT row.line, lower(hex(row.uuid)), coalesce(plan.action, 'update'), coalesce(plan.before, '{{}}'),
          coalesce(plan.send, iif(plan.action IS NULL, row.fields, '{{}}')), coalesce(outcome.message, '')
        FROM row LEFT JOIN plan USING (ordinal) LEFT JOIN outcome USING (ordinal)
        WHERE row.leader IS NULL AND row.problems = 0 AND (plan.ordinal IS NOT NULL OR outcome.ordinal IS NULL) {where}
        ORDER BY row.ordinal LIMIT ?""",  # noqa: S608 - constant texts
        (limit,),
    )
    while chunk := cursor.fetchmany(CHUNK):
        for line, uuid, action, before, send, message in chunk:
            yield PlannedRow(line, uuid, action, from_json(before), from_json(send), message)


@dataclass(frozen=True, slots=True)
class Written:
    """A row that the run changed or may have changed, with what an undo needs."""

    line: int
    uuid: str
    status: Status
    before: Seen
    send: Fields
    aside: Seen
    after: Seen
    fields: Fields
    cells: list[str] | None


def written(ledger: Ledger) -> Iterator[Written]:
    """Yield the rows that were sent and not refused, in manifest order, with those of unknown outcome."""
    cursor = ledger.db.execute(
        """SELECT line, uuid, status, coalesce(plan.before, '{}'), coalesce(plan.send, '{}'), coalesce(plan.aside, '{}'),
          coalesce(row_state.after, '{}'), row_state.fields, row_state.cells, row_state.changed
        FROM plan JOIN row_state USING (ordinal)
        WHERE plan.action = 'update' AND row_state.status IN ('updated', 'drifted', 'unknown') ORDER BY plan.ordinal"""
    )
    while chunk := cursor.fetchmany(CHUNK):
        for line, uuid, status, before, send, aside, after, fields, cells, changed in chunk:
            yield Written(
                line,
                uuid,
                Status(status),
                from_json(before),
                _only(from_json(send), changed),
                from_json(aside),
                from_json(after),
                from_json(fields),
                from_json(cells) if cells else None,
            )


def _only(send: Fields, changed: str) -> Fields:
    """Return the fields that the outcome names, or all of the plan if the row has no outcome."""
    return {name: value for name, value in send.items() if name in changed.split(",")} if changed else send


def wanted(ledger: Ledger) -> Iterator[Asked]:
    """Yield what the run wanted for every image that is updated, unchanged, drifted or unknown."""
    cursor = ledger.db.execute(
        """SELECT row.ordinal, row.line, lower(hex(row.uuid)), row.fields FROM row JOIN row_state USING (ordinal)
        WHERE row.leader IS NULL AND row.problems = 0 AND row.fields <> '{}'
        AND row_state.status IN ('updated', 'unchanged', 'drifted', 'unknown') ORDER BY row.ordinal"""
    )
    while chunk := cursor.fetchmany(CHUNK):
        for ordinal, line, uuid, fields in chunk:
            yield Asked(ordinal, line, uuid, from_json(fields), {})
