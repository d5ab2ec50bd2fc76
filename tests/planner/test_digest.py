"""The plan's digest for `apply --checksum` does not depend on how it is computed."""

import json
from hashlib import sha256
from pathlib import Path

from bulkimg.ledger import Ledger, plans
from bulkimg.ledger.intake import add_rows
from bulkimg.model import Action, Planned, Row


def test_the_hash_is_of_the_target_and_a_json_array_a_row(tmp_path: Path) -> None:
    texts = ["plain", "映像 😀", 'quotes " and \\', "\x00\x1f\x7f\u2028", "é"]
    rows = [
        Row(n + 2, f"{n:032x}", {"description": text}, {"name": text} if n % 2 else {}, ())
        for n, text in enumerate(texts)
    ]
    ledger = Ledger.create(tmp_path / "run.db")
    add_rows(ledger, 1, rows)
    actions = [Action.UPDATE, Action.UNCHANGED, Action.UPDATE, Action.CONFLICT]  # the last row has no plan
    asked = plans.to_plan(ledger, 0, len(actions))
    with ledger.transaction():
        plans.add(
            ledger,
            [
                (row, Planned(action, {"description": "was"}, row.fields))
                for row, action in zip(asked, actions, strict=True)
            ],
        )
        plans.make(ledger, "http://node:8080/zstack", surveyed=True)
    whole = sha256(b"http://node:8080/zstack")
    found = ledger.db.execute(
        "SELECT ordinal, uuid, fields, expects, action, before, send FROM row LEFT JOIN plan USING (ordinal) ORDER BY ordinal"
    ).fetchall()
    for ordinal, uuid, *others in found:
        whole.update(json.dumps([ordinal, uuid.hex(), *others]).encode())
    assert plans.counts(ledger).digest == whole.hexdigest()
    assert found[-1][4:] == (None, None, None)
    ledger.close()
