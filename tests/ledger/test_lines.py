"""Result lines: a cell that a spreadsheet would run has an apostrophe, whoever makes it, Python or the view."""

import csv
import io
import sqlite3
from pathlib import Path

import pytest

from bulkimg.ledger import Ledger, claims
from bulkimg.ledger.files import COLUMNS
from bulkimg.ledger.intake import add_rows
from bulkimg.ledger.lines import result_lines
from bulkimg.model import Outcome, Row, Status

FORMULAS = "=+-@＝＋－＠"


@pytest.mark.parametrize("before", ["", " ", "\t", "\n", "\r", "'", '"', " \"'\t"])
@pytest.mark.parametrize("sign", FORMULAS)
def test_no_cell_begins_like_a_formula(before: str, sign: str) -> None:
    text = f"{before}{sign}1"
    ledger = Ledger(Path("memory"), sqlite3.connect(":memory:", isolation_level=None))
    ledger.db.executescript(Path(claims.__file__).with_name("schema.sql").read_text("utf-8"))
    add_rows(ledger, 1, [Row(7, f"{1:032x}", {"name": "x"}, {}, (), ())])
    shown = Outcome(1, 7, f"{1:032x}", Status.FAILED, "X", text, text, after={"name": text}, name=text)
    claims.settle(ledger, [shown])
    (cells,) = ledger.db.execute("SELECT csv FROM result").fetchone()
    for made in (cells, result_lines(shown)[1]):
        (record,) = csv.reader(io.StringIO(made, newline=""), strict=True)
        row = dict(zip(COLUMNS, record, strict=True))
        assert (row["message"], row["hint"], row["name"]) == (f"'{text}",) * 3


@pytest.mark.parametrize("sign", FORMULAS)
def test_a_uuid_that_is_none_is_no_formula_either(sign: str) -> None:
    ledger = Ledger(Path("memory"), sqlite3.connect(":memory:", isolation_level=None))
    ledger.db.executescript(Path(claims.__file__).with_name("schema.sql").read_text("utf-8"))
    add_rows(ledger, 1, [Row(7, None, {}, {}, (), (), f"{sign}1")])
    (cells,) = ledger.db.execute("SELECT csv FROM result").fetchone()
    (record,) = csv.reader(io.StringIO(cells, newline=""), strict=True)
    assert record[1] == f"'{sign}1"
