"""A query is a manifest: what its rows mean, what is refused, and that no database is changed by it."""

import contextlib
import dataclasses
import json
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from bulkimg.errors import ManifestRefused, UsageError
from bulkimg.manifest import Manifest, database
from bulkimg.manifest.tables import Table, open_table
from bulkimg.model import Row
from bulkimg.query import SqlSource
from bulkimg.settings import Settings
from tests.conftest import UUID, Cli
from tests.databases import ENCODED, PASSWORD, Database

OTHER = UUID[::-1]
ROWS = [(UUID, "50% off :now", "Linux", 1, None), (OTHER, "ünïcode '\"\\", None, 0, "<empty>")]
PATIENCE = 30.0


class Query:
    """Queries of one database, each in a file in a folder."""

    def __init__(self, place: Path, base: Database) -> None:
        self.place, self.base = place, base
        self.file = place / "images.sql"
        (place / "url").write_text(base.url)
        (place / "url").chmod(0o600)

    def settings(self, statement: str, options: dict[str, Any] | None = None, **source: Any) -> Settings:
        self.file.write_text(statement, "utf-8")
        query = SqlSource(sql_file=self.file, url_file=self.place / "url", **source)
        return Settings(source=query, **(options or {}))

    def manifest(
        self, statement: str, options: dict[str, Any] | None = None, **source: Any
    ) -> tuple[Manifest, list[Row]]:
        manifest = Manifest(str(self.file), self.settings(statement, options, **source))
        manifest.open()
        return manifest, list(manifest.rows())

    def rows(self, statement: str, **options: Any) -> list[Row]:
        manifest, rows = self.manifest(statement, options)
        assert manifest.problems == []
        return rows

    def problems(self, statement: str, **source: Any) -> list[str]:
        manifest, rows = self.manifest(statement, **source)
        return [f"{problem.line} {problem.code} {problem.text}" for problem in manifest.problems] + [
            f"{problem.line} {problem.code} {problem.text}" for row in rows for problem in row.problems
        ]

    def unread(self, statement: str, **source: Any) -> str:
        """Return why the rows cannot be read now (exit 3)."""
        return self.refused(statement, error=ManifestRefused, **source)

    def refused(self, statement: str, error: type[Exception] = UsageError, **source: Any) -> str:
        """Return what is wrong with the query or the address (exit 2)."""
        with pytest.raises(error) as caught:
            self.manifest(statement, **source)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def job(self, cli: Cli, statement: str, **source: Any) -> str:
        """Write a job file for the command line."""
        self.file.write_text(statement, "utf-8")
        lines = [f"{key} = {json.dumps(value)}" for key, value in source.items()]
        places = [f'sql_file = "{self.file}"', f'url_file = "{self.place}/url"']
        target = '[target]\nendpoint = "http://127.0.0.1:1"\n'
        return cli.write("job.toml", "\n".join([target, "[source]", *places, *lines, ""]))


@pytest.fixture
def query(base: Database, tmp_path: Path) -> Query:
    base.fill(ROWS)
    return Query(tmp_path, base)


@pytest.fixture
def postgres(postgresql: Database, tmp_path: Path) -> Query:
    postgresql.fill(ROWS)
    return Query(tmp_path, postgresql)


@pytest.fixture
def lite(sqlite: Database, tmp_path: Path) -> Query:
    sqlite.fill(ROWS)
    return Query(tmp_path, sqlite)


# -- rows ---------------------------------------------------------------------------------------------------------------


def test_rows_mean_what_they_mean_in_a_csv(query: Query) -> None:
    rows = query.rows("SELECT uuid, name, platform, virtio, description, name AS _old FROM image ORDER BY uuid")
    (query.place / "m.csv").write_text(
        f"uuid,name,platform,virtio,description,_old\n{UUID},50% off :now,Linux,1,,50% off :now\n"
        f'{OTHER},"ünïcode \'""\\",,0,<empty>,"ünïcode \'""\\"\n',
        "utf-8",
    )
    same = list(Manifest(str(query.place / "m.csv"), Settings()).rows())
    assert [dataclasses.replace(row, line=at) for at, row in enumerate(same, 1)] == rows
    assert [row.fields.get("description") for row in rows] == [None, ""]


def test_the_quick_way_to_the_ledger_gives_the_same_rows(query: Query) -> None:
    settings = query.settings("SELECT uuid, name, platform, virtio, description FROM image ORDER BY uuid")
    plain, quoted = list(Manifest(str(query.file), settings).rows())
    quick, same = list(Manifest(str(query.file), settings).stored_rows())
    assert same == quoted
    assert isinstance(quick, tuple)
    number, digits, fields, expects, cells = quick
    assert (number, digits.hex(), json.loads(fields), expects) == (plain.line, plain.uuid, plain.fields, None)
    assert tuple(json.loads(cells)) == plain.cells


def test_the_options_of_a_manifest_hold_for_a_query(query: Query) -> None:
    statement = (
        "SELECT uuid AS image_id, name AS title, platform AS _where, virtio AS if_virtio FROM image ORDER BY uuid"
    )
    options: dict[str, Any] = {"map": [("image_id", "uuid"), ("title", "name")], "set": [("description", "{title}!")]}
    rows = query.rows(statement, **options, where=("_where=Linux",))
    assert [(row.line, row.fields, row.expects) for row in rows] == [
        (1, {"name": "50% off :now", "description": "50% off :now!"}, {"virtio": True})
    ]
    assert [row.line for row in query.rows(statement, **options, skip_rows=1)] == [2]
    assert [row.line for row in query.rows(statement, **options, max_rows=1)] == [1]


def test_percent_and_colon_in_a_query_are_what_they_say(query: Query) -> None:
    (row,) = query.rows("SELECT uuid, name FROM image WHERE name LIKE '50%:now' AND ':x' <> '%s' -- %(y)s :z")
    assert row.uuid == UUID


def test_comments_and_a_last_semicolon_are_no_second_statement(query: Query) -> None:
    assert len(query.rows("-- ; one\n/* two; */ SELECT uuid, name FROM image; -- three;\n\n")) == 2


def test_the_digest_is_of_header_and_rows_and_the_same_in_every_database(query: Query) -> None:
    statement = "SELECT uuid, name, virtio, description FROM image ORDER BY uuid"
    lines = [["uuid", "name", "virtio", "description"]]
    lines += [[UUID, ROWS[0][1], "1", None], [OTHER, ROWS[1][1], "0", "<empty>"]]  # type: ignore[list-item]
    whole = "".join(f"{json.dumps(line, ensure_ascii=False, separators=(',', ':'))}\n" for line in lines)
    assert query.manifest(statement)[0].sha256 == sha256(whole.encode()).hexdigest()
    assert query.manifest(f"{statement} DESC")[0].sha256 != sha256(whole.encode()).hexdigest()


def test_blank_texts_are_not_null_and_the_token_says_so(query: Query) -> None:
    found = query.problems(f"SELECT '{UUID}' AS uuid, '' AS name, ' ' AS description, '' AS if_platform, '' AS _x")
    assert [text.split(":")[0] for text in found] == [
        "1 BLANK_TEXT name", "1 BLANK_TEXT description ' '", "1 BLANK_TEXT if_platform",
    ]  # fmt: skip
    (row,) = query.manifest(f"SELECT '{UUID}' AS uuid, '' AS description")[1]
    assert row.problems[0].fix == "write NULL to leave the present value, or <empty> for the empty one"
    (row,) = query.rows(f"SELECT '{UUID}' AS uuid, '<empty>' AS description, NULL AS name")
    assert row.fields == {"description": ""}


TYPES = {
    "sqlite": {"1.5": "floating", "x'00'": "binary", "2.0": "floating"},
    "postgresql": {
        "1.5": "fraction", "1.5::float8": "double", "now()": "timestamptz", "current_date": "date", "'\\x00'::bytea": "bytea",
        "'null'::jsonb": "jsonb", "ARRAY['a']": "list", "'10.0.0.1'::inet": "IPv4Address", "interval '1 day'": "interval",
        "'NaN'::numeric": "fraction", "ROW(1)": "record",
    },
    "mariadb": {
        "1.5": "fraction", "CAST(1 AS DOUBLE)": "double", "now()": "datetime", "current_date": "date", "x'00'": "binary",
        "b'1'": "binary", "current_time": "time",
    },
}  # fmt: skip


def test_a_value_that_is_no_text_is_a_problem_of_its_column(query: Query) -> None:
    for value, word in TYPES[query.base.kind].items():
        (found,) = query.problems(f"SELECT '{UUID}' AS uuid, {value} AS name")
        assert found[2:].startswith("BAD_TYPE name"), (value, found)
        assert word in found, (value, found)
        assert query.problems(f"SELECT '{UUID}' AS uuid, {value} AS _name, 'x' AS name") == [], value


def test_whole_numbers_and_booleans_are_texts(query: Query) -> None:
    whole = {"sqlite": "12", "postgresql": "12.00", "mariadb": "12.00"}[query.base.kind]
    (row,) = query.rows(f"SELECT '{UUID}' AS uuid, {whole} AS name, 1 = 1 AS virtio, 0 AS system")
    assert row.fields == {"name": "12", "virtio": True, "system": False}


def test_lists_of_tags_and_uuids_of_postgresql(postgres: Query) -> None:
    (row,) = postgres.rows(f"SELECT '{UUID}'::uuid AS uuid, ARRAY['a;b', ' c'] AS \"userTags\"")
    assert (row.uuid, row.fields) == (UUID, {"userTags": ["a;b", " c"]})
    (found,) = postgres.problems(f"SELECT '{UUID}' AS uuid, ARRAY[]::text[] AS \"userTags\"")
    assert "BLANK_TEXT userTags '[]': is an empty list" in found
    (found,) = postgres.problems(f"SELECT '{UUID}' AS uuid, ARRAY['a', NULL] AS \"userTags\"")
    assert "does not hold texts only" in found


def test_functions_of_sqlite_that_read_are_allowed(lite: Query) -> None:
    (row,) = lite.rows(f"SELECT value AS uuid, 'n' AS name FROM json_each('[\"{UUID}\"]')")
    assert row.uuid == UUID


# -- refused ------------------------------------------------------------------------------------------------------------


def test_a_column_that_is_there_twice_is_refused(query: Query) -> None:
    (found,) = query.problems("SELECT uuid, name, name FROM image")
    assert found == "0 COLUMN_TWICE name: appears twice in the header"


def test_no_rows_are_refused_unless_they_are_allowed(query: Query) -> None:
    statement = "SELECT uuid, name FROM image WHERE 1 = 0"
    (found,) = query.problems(statement)
    assert found == "1 NO_ROWS the query returned no rows"
    assert query.problems(statement, allow_empty=True) == []


CHANGES = [
    "DELETE FROM image",
    "UPDATE image SET name = 'x'",
    "INSERT INTO image (uuid) VALUES ('x')",
    "INSERT INTO image (uuid) VALUES ('x') RETURNING uuid, name",
    "WITH gone AS (SELECT 1) DELETE FROM image",
    "SELECT uuid, name FROM image; DELETE FROM image",
    "SELECT uuid, name FROM image; COMMIT; DELETE FROM image",
    "SELECT uuid, name INTO other FROM image",
    "SELECT uuid, name FROM image FOR UPDATE",
    "CREATE TABLE other (a integer)",
    "DROP TABLE image",
    "TRUNCATE image",
    "CALL wipe()",
    "COMMIT",
    "",
    "-- nothing",
]
CHANGES_OF = {
    "sqlite": ["PRAGMA user_version = 3", "ATTACH 'other.db' AS other", "VACUUM", "SELECT * FROM pragma_table_info('image')"],
    "postgresql": [
        "WITH gone AS (DELETE FROM image RETURNING *) SELECT uuid, name FROM gone",
        "COPY image TO STDOUT", "COPY image TO PROGRAM 'cat'", "SELECT wipe()", "SELECT nextval('numbers') AS uuid",
        "EXPLAIN ANALYZE DELETE FROM image", "DO $$ BEGIN DELETE FROM image; END $$",
        "SELECT uuid, set_config('transaction_read_only', 'off', false) AS name, wipe() FROM image",
    ],
    "mariadb": [
        "SELECT uuid FROM image INTO OUTFILE '/tmp/x'", "SELECT uuid, name FROM image LOCK IN SHARE MODE",
        "SELECT wiped() AS uuid, 'x' AS name", "SELECT uuid /*! FROM image; DELETE */ FROM image", "LOAD DATA INFILE 'x' INTO TABLE image",
        "SET GLOBAL read_only = 0",
    ],
}  # fmt: skip


def test_a_statement_that_does_not_only_read_is_refused_and_changes_nothing(query: Query) -> None:
    _make_wipe(query.base)
    before = query.base.snapshot()
    files = sorted(query.place.iterdir())
    for statement in [*CHANGES, *CHANGES_OF[query.base.kind]]:
        refusal = query.refused(statement)
        assert refusal.startswith(str(query.file)), statement
        assert query.base.snapshot() == before, statement
    assert sorted(query.place.iterdir()) == sorted([*files, query.file])


def test_the_database_itself_refuses_what_the_text_does_not_show(query: Query) -> None:
    """The check of the text is left out here: what is left is the transaction that only reads."""
    _make_wipe(query.base)
    before = query.base.snapshot()
    address = database.read_address(query.settings("").source)  # type: ignore[arg-type]
    for statement in (
        "DELETE FROM image",
        "INSERT INTO image (uuid) VALUES ('x')",
        "CREATE TABLE other (a integer)",
        "DROP TABLE image",
    ):
        opened = database.connect(address, query.settings("").source)  # type: ignore[arg-type]
        try:
            with pytest.raises(Exception, match=r"(?i)read.?only|not authorized"):
                opened.connection.exec_driver_sql(statement)
        finally:
            opened.close()
        assert query.base.snapshot() == before


def _make_wipe(base: Database) -> None:
    """Make functions that delete all images. PostgreSQL and MariaDB have such."""
    if base.kind == "postgresql":
        base.execute("CREATE OR REPLACE FUNCTION wipe() RETURNS integer LANGUAGE sql AS 'DELETE FROM image; SELECT 1'")
        base.execute("CREATE SEQUENCE IF NOT EXISTS numbers")
    if base.kind == "mariadb":
        base.execute("DROP FUNCTION IF EXISTS wiped")
        base.execute("CREATE FUNCTION wiped() RETURNS integer MODIFIES SQL DATA BEGIN DELETE FROM image; RETURN 1; END")


def test_what_the_database_says_about_a_wrong_query_is_one_sentence(query: Query) -> None:
    said = query.refused("SELECT uuid, name FROM missing")
    assert "the database refused the query: " in said
    assert said.endswith("; correct it")
    query.refused("SELECT uuid, :name AS name FROM image WHERE uuid = ?")


# -- streaming, time, the end of a server -------------------------------------------------------------------------------

ENDLESS = {
    "sqlite": "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT '{uuid}' AS uuid, i AS name FROM t",
    "postgresql": "SELECT '{uuid}' AS uuid, generate_series(1, 1000000000000) AS name",
    "mariadb": "SELECT '{uuid}' AS uuid, seq AS name FROM seq_1_to_1000000000000",
}
SLOW = {
    "sqlite": "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT i AS uuid, 'x' AS name FROM image, t WHERE i < 0",
    "postgresql": "SELECT pg_sleep(600) AS uuid, 'x' AS name",
    "mariadb": "SELECT sleep(600) AS uuid, 'x' AS name",
}


def test_rows_are_streamed_and_what_is_left_is_not_read(query: Query) -> None:
    table = begun(query, ENDLESS[query.base.kind].format(uuid=UUID))
    records = table.records()
    assert [next(records).line for _ in range(2000)][-1] == 2000
    at = time.monotonic()
    table.close()
    assert time.monotonic() - at < 60, "the rest would take hours"


def begun(query: Query, statement: str, **source: Any) -> Table:
    return open_table("sql", str(query.file), query.settings(statement, **source))


def test_a_query_that_takes_too_long_is_ended(query: Query) -> None:
    said = query.unread(SLOW[query.base.kind], timeout=1)
    assert said.endswith("no rows came in 1 s; make the query quicker, or raise timeout in [source]")
    if query.base.kind != "sqlite":
        _wait(lambda: not _is_querying(query.base, 0))


@pytest.mark.parametrize("base", ["postgresql", "mariadb"], indirect=True)
def test_a_server_that_closes_in_the_middle_refuses_the_manifest(query: Query) -> None:
    pad = "repeat('x', 2000) AS _pad, "  # so that few rows are on their way when the connection ends
    endless = ENDLESS[query.base.kind].format(uuid=UUID).replace("SELECT ", f"SELECT {pad}")
    manifest = Manifest(str(query.file), query.settings(endless))
    rows = manifest.rows()
    for _ in range(1000):
        next(rows)
    _end_other_connections(query.base)
    assert sum(1 for _ in rows) < 1_000_000
    (problem,) = manifest.problems
    assert (problem.code, problem.fatal) == ("UNREADABLE", True)
    assert "did not return the rest of the rows" in problem.message
    assert PASSWORD not in problem.message + problem.fix


def _end_other_connections(base: Database) -> None:
    if base.kind == "postgresql":
        base.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bulkimg'")
        return
    for (number,) in base.execute(
        "SELECT id FROM information_schema.processlist WHERE info LIKE '%seq_1_to%' AND id <> connection_id()"
    ):
        base.execute(f"KILL {number}")


@pytest.mark.parametrize("base", ["postgresql", "mariadb"], indirect=True)
def test_a_server_that_cannot_be_reached_is_a_sentence_without_the_secret(query: Query) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts and never answers
        silent, url = deaf.getsockname()[1], query.base.url
        closed = _closed_port()
        for port, options in ((silent, {"timeout": 2}), (closed, {})):
            (query.place / "url").write_text(url.replace(f":{query.base.port}/", f":{port}/"))
            begun = time.monotonic()
            said = query.unread("SELECT 1 AS uuid", **options)
            assert time.monotonic() - begun < 60
            assert "cannot connect to " in said
            assert said.endswith("then run it again")
            assert PASSWORD not in said
            assert ENCODED not in said
            assert "://" not in said


def _closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("base", ["postgresql", "mariadb"], indirect=True)
def test_a_wrong_password_is_a_sentence_without_it(query: Query) -> None:
    (query.place / "url").write_text(query.base.url.replace(ENCODED, "wr0ng%40pass"))
    said = query.unread("SELECT 1 AS uuid")
    assert "cannot connect to " in said
    assert "wr0ng" not in said


def test_a_missing_database_of_sqlite_is_not_made(lite: Query) -> None:
    (lite.place / "url").write_text("sqlite:///missing.db")
    assert f"there is no SQLite database {lite.place}/missing.db" in lite.unread("SELECT 1 AS uuid")
    assert not (lite.place / "missing.db").exists()
    (lite.place / "missing.db").write_text("this is no database, only a text of some length")
    assert "file is not a database; get a complete copy of the database" in lite.unread("SELECT uuid FROM image")


def test_a_database_of_sqlite_is_opened_for_reading(lite: Query) -> None:
    path = lite.place / "own.db"
    with contextlib.closing(sqlite3.connect(path)) as own, own:
        own.execute("CREATE TABLE image (uuid TEXT)")
    with (
        contextlib.closing(database._open_sqlite(path)) as opened,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        opened.execute("DELETE FROM image")


def test_a_database_that_another_program_holds_is_no_wrong_query(lite: Query) -> None:
    path = lite.place / "own.db"
    (lite.place / "url").write_text(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as own:
        own.execute("CREATE TABLE image AS SELECT 'x' AS uuid")
        own.execute("BEGIN EXCLUSIVE")
        assert lite.unread("SELECT uuid FROM image", timeout=0.1).endswith(
            "database is locked; run it again when it has ended"
        )


def test_a_database_that_a_writer_left_half_way_is_not_repaired(lite: Query) -> None:
    path, left = lite.place / "own.db", lite.place / "left.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as own:
        own.execute("CREATE TABLE image (uuid TEXT, name TEXT)")
        own.execute("BEGIN")
        own.executemany("INSERT INTO image VALUES (?, ?)", [("x", "n" * 200)] * 2000)
        own.execute("COMMIT")
        own.execute("PRAGMA cache_size = 5")
        own.execute("BEGIN")
        own.execute("UPDATE image SET name = 'm' || name")
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", f"{left}{suffix}")
    (lite.place / "url").write_text(f"sqlite:///{left}")
    before = left.read_bytes()
    assert "did not end well, and reading does not repair it" in lite.unread("SELECT uuid, name FROM image")
    assert left.read_bytes() == before


def test_a_relative_file_of_sqlite_is_in_the_folder_of_the_query(lite: Query) -> None:
    with contextlib.closing(sqlite3.connect(lite.place / "own.db")) as own, own:
        own.execute("CREATE TABLE image AS SELECT ? AS uuid, 'own' AS name", (UUID,))
    (lite.place / "url").write_text("sqlite:///own.db\n")
    assert [row.fields for row in lite.rows("SELECT uuid, name FROM image")] == [{"name": "own"}]


# -- the command line ---------------------------------------------------------------------------------------------------


def test_check_reads_a_query_and_says_what_is_next(lite: Query, cli: Cli) -> None:
    query = lite
    job = query.job(cli, "SELECT uuid, name, platform FROM image ORDER BY uuid")
    done = cli("check", job)
    assert "images.sql: 2 rows, all valid" in done.err
    assert "bulkimg plan job.toml" in done.err
    for option, value in (("--format", "csv"), ("--encoding", "gbk"), ("--sheet", "A"), ("--hidden-rows", "skip")):
        said = cli("check", job, option, value, code=2).err
        assert f"{option} {value}: " in said
        assert said.endswith("; leave the option out\n")
    job = query.job(cli, f"SELECT '{UUID}' AS uuid, 'Linx' AS platform, '' AS name")
    done = cli("check", job, code=3)
    assert "images.sql:1: platform 'Linx': is not one of" in done.out
    assert "images.sql:1: name: is a text without characters" in done.out
    done = cli("check", query.job(cli, "SELECT uuid, nam FROM (SELECT uuid, name AS nam FROM image) x"), code=3)
    assert done.out.startswith(f"{query.file}: nam: is not a known column; did you mean 'name'?")
    assert cli("check", query.job(cli, "DELETE FROM image"), "--json", code=2).json()["error"]["code"] == "USAGE"


def test_an_empty_query_that_is_allowed_is_a_run_of_no_rows(lite: Query, cli: Cli) -> None:
    query = lite
    statement = "SELECT uuid, name FROM image WHERE 1 = 0"
    assert "the query returned no rows" in cli("run", query.job(cli, statement), "--dry-run", code=3).err
    assert "0 rows would be sent" in cli("run", query.job(cli, statement, allow_empty=True), "--dry-run").out


def test_ctrl_c_while_the_query_runs_ends_it(query: Query, cli: Cli) -> None:
    process = cli.start("check", query.job(cli, SLOW[query.base.kind]))
    _wait(lambda: _is_querying(query.base, process.pid))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    _wait(lambda: not _is_querying(query.base, process.pid))
    assert not (cli.place / "runs").exists()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_querying(base: Database, pid: int) -> bool:
    """Return whether the process waits for its query. SQLite shows that by a lock of the file."""
    if base.kind == "postgresql":
        return bool(
            base.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = 'bulkimg' AND wait_event = 'PgSleep'")
        )
    if base.kind == "mariadb":
        return bool(base.execute("SELECT 1 FROM information_schema.processlist WHERE state = 'User sleep'"))
    return any(f" {pid} " in line and "POSIX" in line for line in Path("/proc/locks").read_text().splitlines())
