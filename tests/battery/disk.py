"""A disk that fails, or a process that dies, at the n-th statement that its ledger executes."""

import sqlite3
from typing import Any


class Disk:
    """Wrap a ledger's connection.

    `die_at`, `fail_at`: the number of the statement; `late`: after it was executed. A death leaves what was committed
    and nothing else, and a cleanup afterwards changes nothing.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, die_at: int = 0, fail_at: int = 0, late: bool = False
    ) -> None:
        self.connection = connection
        self._die_at, self._fail_at, self._late = die_at, fail_at, late
        self.statements = 0
        self.dead = False
        self.failed = False
        self.begun_after_failure = 0

    def execute(self, sql: str, *values: Any) -> Any:
        return self._do("execute", sql, *values)

    def executemany(self, sql: str, *values: Any) -> Any:
        return self._do("executemany", sql, *values)

    def _do(self, how: str, sql: str, *values: Any) -> Any:
        if self.dead:
            raise sqlite3.OperationalError("nobody is there any more")
        if self.failed and sql.startswith("BEGIN"):
            self.begun_after_failure += 1
        self.statements += 1
        stroke = self.statements in (self._die_at, self._fail_at)
        if stroke and not self._late:
            self._strike()
        done = getattr(self.connection, how)(sql, *values)
        if stroke:
            self._strike()
        return done

    def _strike(self) -> None:
        if self.statements == self._die_at:
            self.die()
        self.failed = True
        raise sqlite3.OperationalError("disk I/O error")

    def die(self) -> None:
        """End the process as kill -9 does."""
        self.dead = True
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        raise Died

    @property
    def in_transaction(self) -> bool:
        return not self.dead and self.connection.in_transaction

    def close(self) -> None:
        self.connection.close()


class Died(BaseException):
    """The process is dead. It is not an Exception: nothing of the program may catch it."""
