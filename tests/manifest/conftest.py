"""The databases that queries are read from. Each is started once, for the tests of one process."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests import databases
from tests.databases import Database


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Database]:
    """A PostgreSQL server. Tests that need it are skipped if it is missing."""
    if databases.POSTGRES is None:
        pytest.skip("postgresql is absent")
    with databases.postgresql() as found:
        yield found


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Database]:
    """A MariaDB server. Tests that need it are skipped if it is missing."""
    if databases.MARIADB is None:
        pytest.skip("mariadb-server is absent")
    with databases.mariadb() as found:
        yield found


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A file of SQLite."""
    path = tmp_path_factory.mktemp("sqlite") / "images.db"
    owner = sqlite3.connect(path, isolation_level=None)

    def execute(statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return owner.execute(statement, values).fetchall()

    yield Database("sqlite", f"sqlite:///{path}", execute)
    owner.close()


@pytest.fixture(scope="session", params=["sqlite", "postgresql", "mariadb"])
def base(request: pytest.FixtureRequest) -> Database:
    """Each of the databases."""
    found: Database = request.getfixturevalue(request.param)
    return found
