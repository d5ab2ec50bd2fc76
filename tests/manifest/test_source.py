"""`[source]` of a job file: what it may say, which URLs are taken, and what the text of a query may be. No database."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bulkimg import layers
from bulkimg.errors import UsageError
from bulkimg.manifest.database import parse_address, read_address
from bulkimg.manifest.statement import Dialect, check
from bulkimg.manifest.tables import open_table
from bulkimg.query import SqlSource
from bulkimg.settings import Settings
from tests.conftest import Cli

SECRET = "pa55/zebra"


# -- the text of a query ------------------------------------------------------------------------------------------------

ONE = [
    ("sqlite", "SELECT 1", "SELECT 1"),
    ("sqlite", "  -- a;b\n(SELECT ';' AS \"a;b\", [c;d], `e;f`) ; -- end;\n/* ; */", "  -- a;b\n(SELECT ';' AS \"a;b\", [c;d], `e;f`) "),
    ("sqlite", "SELECT 'it''s; -- no'", "SELECT 'it''s; -- no'"),
    ("sqlite", "SELECT '\\'; ", "SELECT '\\'"),
    ("postgresql", "SELECT 'a\\'; ", "SELECT 'a\\'"),
    ("postgresql", "SELECT E'a\\'; b'", "SELECT E'a\\'; b'"),
    ("postgresql", "SELECT $a$; $b$ ; $a$, $$;$$", "SELECT $a$; $b$ ; $a$, $$;$$"),
    ("postgresql", "/* one /* two; */ three; */ SELECT 1;", "/* one /* two; */ three; */ SELECT 1"),
    ("postgresql", "SELECT a #> b FROM t", "SELECT a #> b FROM t"),
    ("postgresql", "WITH x AS (SELECT updated, for_sale FROM t) SELECT x.deleted FROM x", None),
    ("mysql", "SELECT 'a\\'; b', \"c\\\"; d\", `e;f` # g;\n", None),
    ("mysql", "SELECT 1--1, 2 -- 3; 4\n", None),
    ("mysql", "/* one /* two */ SELECT 1", None),
    ("postgresql", "SELECT (merge) FROM t WHERE lock IN (1)", None),
    ("mysql", "SELECT concat(insert(name, 1, 2, 'x'), 'y') FROM t", None),
    ("postgresql", "TABLE image;", "TABLE image"),
    ("sqlite", "VALUES (1, 2)", None),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "text", "kept"), ONE)
def test_one_statement_is_found_whatever_is_quoted(dialect: Dialect, text: str, kept: str | None) -> None:
    assert check(text, dialect, "q.sql") == (text if kept is None else kept)


NOT_ONE = [
    ("sqlite", "", "contains no statement"),
    ("sqlite", ";", "contains no statement"),
    ("sqlite", "/* SELECT 1 */ -- SELECT 2", "contains no statement"),
    ("sqlite", "SELECT 1;\nSELECT 2", "q.sql:2: a second statement"),
    ("sqlite", "SELECT 1;;", "q.sql:1: a second statement"),
    ("postgresql", "SELECT 'a\\'; DELETE FROM t --'", "a second statement"),
    ("mysql", "SELECT 1 --1\n; DELETE FROM t", "q.sql:2: a second statement"),
    ("sqlite", "SELECT 1 --1\n; DELETE FROM t", "q.sql:2: a second statement"),
    ("mysql", "/* one /* two */ ; */ SELECT 1", "a second statement"),
    ("sqlite", "delete from t", "DELETE is not a query"),
    ("sqlite", "?", "the statement is not a query"),
    ("postgresql", "SELECT a INTO b FROM c", "INTO"),
    ("postgresql", "WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT a FROM x", "INSERT"),
    ("postgresql", "WITH x AS (/* y */ update t SET a = 1 RETURNING a) SELECT a FROM x", "UPDATE"),
    ("postgresql", "SELECT a FROM t FOR NO KEY UPDATE", "lock rows"),
    ("mysql", "SELECT a FROM t for\nshare", "lock rows"),
    ("mysql", "SELECT a FROM t LOCK IN SHARE MODE", "locks rows"),
    ("mysql", "SELECT /*!50000 1 */", "remove the comment"),
    ("mysql", "SELECT /*M! 1 */", "remove the comment"),
    ("sqlite", "SELECT 'a", "q.sql:1: a quote or comment opens here"),
    ("sqlite", "SELECT 1 /* a", "opens here and is not closed"),
    ("postgresql", "SELECT /* a /* b */", "opens here and is not closed"),
    ("postgresql", "SELECT $a$ b $b$", "opens here and is not closed"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "text", "said"), NOT_ONE)
def test_what_is_not_one_statement_that_reads_is_refused(dialect: Dialect, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(text, dialect, "q.sql")
    assert said in str(caught.value)
    assert str(caught.value).startswith("q.sql")


# -- the URL ------------------------------------------------------------------------------------------------------------

URLS = {
    "sqlite:///a.db": "sqlite",
    "sqlite:////srv/a.db": "sqlite",
    "postgresql://u:p@h/d": "postgresql",
    "postgres://h": "postgresql",
    "postgresql+psycopg:///d?host=/run/postgresql&sslmode=verify-full": "postgresql",
    "mysql://u:p%40q@h:3306/d?ssl_ca=/etc/ca.pem&ssl_check_hostname=true": "mysql",
    "mariadb://u@h/d?unix_socket=/run/mysqld/mysqld.sock": "mysql",
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_of_a_database_that_is_read_is_taken(url: str) -> None:
    assert parse_address(url, "here").dialect == URLS[url]


@pytest.mark.parametrize(
    "url",
    [
        f"oracle://u:{SECRET}@h/d", f"mssql+pyodbc://u:{SECRET}@h/d", f"postgresql+asyncpg://u:{SECRET}@h/d", f"duckdb:///{SECRET}.db",
        f"postgresql://u:x@{SECRET}@h/d", f"sqlite://u:{SECRET}@h/d", f"u:{SECRET}@h", SECRET, f"postgresql//{SECRET}",
        f"postgresql://h/d?password={SECRET}", f"postgresql://u:{SECRET}@h/d?options=-c%20default_transaction_read_only=off",
        f"mysql://u:{SECRET}@h/d?init_command=DROP", f"mysql://u:{SECRET}@h/d?client_flag=65536", f"mysql://u:{SECRET}@h/d?local_infile=1",
        f"sqlite:///a.db?mode=rwc&x={SECRET}", f"postgresql://u:{SECRET}@h:port/d",
    ],
)  # fmt: skip
def test_another_url_is_refused_and_never_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(url, "here")
    assert str(caught.value).startswith("here ")
    assert SECRET not in str(caught.value)
    assert url not in str(caught.value)
    assert SECRET.split("/")[1] not in str(caught.value)


def test_an_error_that_shows_the_secret_is_only_named(tmp_path: Path) -> None:
    address = parse_address("postgresql://u:hunter2@h/d", "here")
    assert address.reason(ValueError("no host h for hunter2")) == "ValueError"
    assert address.reason(ValueError("no host\n  HINT: hunter2")) == "ValueError"
    assert address.reason(OSError(2, "no such  file.\nmore")) == "no such file"
    assert "hunter2" not in repr(address.url)


def test_the_url_is_read_like_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql, url = tmp_path / "q.sql", tmp_path / "url"
    url.write_text("\ufeffsqlite:///a.db\n", "utf-8")
    url.chmod(0o600)
    source = SqlSource(sql_file=sql, url_file=url)
    assert read_address(source).dialect == "sqlite"
    url.chmod(0o604)
    assert "chmod 600" in _refused(source)
    url.chmod(0o600)
    for text in ("", "sqlite:///a.db\nsqlite:///b.db", "sqlite:///a b.db", "sqlite:///a\x07.db"):
        url.write_text(text)
        assert "does not hold the URL of a database" in _refused(source)
    assert "cannot be read" in _refused(SqlSource(sql_file=sql, url_file=tmp_path / "missing"))
    monkeypatch.setenv("BULKIMG_PASSWORD", "sqlite:///secret.db")
    command = SqlSource(sql_file=sql, url_command=("sh", "-c", 'echo "${BULKIMG_PASSWORD-sqlite:///a.db}"'))
    assert read_address(command).url.database == "a.db"
    assert "exit code 3" in _refused(SqlSource(sql_file=sql, url_command=("sh", "-c", "echo sqlite:///a.db; exit 3")))


def _refused(source: SqlSource) -> str:
    with pytest.raises(UsageError) as caught:
        read_address(source)
    return str(caught.value)


# -- the job file -------------------------------------------------------------------------------------------------------


def settings_of(tmp_path: Path, text: str) -> Any:
    (tmp_path / "job.toml").write_text(text, "utf-8")
    return layers.merge(layers.job_layer(tmp_path / "job.toml")[0])


def test_a_source_is_a_query_and_a_url_relative_to_the_job_file(tmp_path: Path) -> None:
    found = settings_of(
        tmp_path, '[source]\nsql_file = "q.sql"\nurl_file = "../url"\nallow_empty = true\ntimeout = "5m"\n'
    )
    assert found.source == SqlSource(
        sql_file=tmp_path / "q.sql", url_file=tmp_path / ".." / "url", allow_empty=True, timeout=300.0
    )
    assert found.job_manifest == str(tmp_path / "q.sql")
    found = settings_of(tmp_path, '[source]\nsql_file = "/q.sql"\nurl_command = ["./url", "x"]\n')
    assert (found.source.sql_file, found.source.url_command) == (Path("/q.sql"), (f"{tmp_path}/url", "x"))
    found = settings_of(tmp_path, '[source]\nsql_file = "q.sql"\nurl_command = ["vault", "-address=https://v", "x"]\n')
    assert found.source.url_command[0] == "vault"


MISTAKES = {
    'sql_file = "q.sql"': "job.toml:1: [source] has no database; add url_file or url_command",
    'url_file = "u"': 'job.toml:1: [source] has no sql_file; add sql_file = "FILE"',
    'sql_file = "q.sql"\nurl_file = "u"\nurl_command = ["u"]': "has url_file and url_command; keep one",
    'sql_file = "q.sql"\nurl = "postgresql://u:pa55/zebra@h/d"': "job.toml:3: url would hold an address, and an address is a secret",
    'sql_file = "q.sql"\nurl_file = "postgresql://u:pa55/zebra@h/d"': "job.toml:3: [source] url_file is an address",
    'sql_file = "q.sql"\nurl_command = ["echo", "mysql://u:pa55/zebra@h/d"]': "job.toml:3: [source] url_command holds an address",
    'sql_file = "q.sql"\nurl_command = "cat u"': "is one text, and no shell reads it",
    'sql_file = "q.sql"\nurl_command = []': "names no program",
    'sql_file = "SELECT 1\\nFROM t"\nurl_file = "u"': "write the query in a file and name it",
    'sql_file = 3\nurl_file = "u"': "write the query in a file and name it",
    'sql_file = ""\nurl_file = "u"': "write the query in a file and name it",
    'sql = "SELECT 1"\nurl_file = "u"': "job.toml:2: sql is not read from the job file",
    'sql_fil = "q.sql"\nurl_file = "u"': "job.toml:2: unknown key 'sql_fil' in [source]; did you mean 'sql_file'?",
    'sql_file = "q.sql"\nurl_file = "u"\nallow_empty = "yes"': "job.toml:4: [source] allow_empty is not valid",
    'sql_file = "q.sql"\nurl_file = "u"\ntimeout = "soon"': "job.toml:4: [source] timeout is not a duration",
    'sql_file = "q.sql"\nurl_file = "u"\n[job]\nmanifest = "m.csv"': "job.toml:5: [job] has a manifest, and [source] takes its place",
    'sql_file = "q.sql"\nurl_file = "u"\n[job]\nsql_file = "q"': "'sql_file' is in [job] but belongs in [source]",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_source_has_its_line_and_shows_no_secret(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_of(tmp_path, f"[source]\n{text}\n")
    assert MISTAKES[text] in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('source = "q.sql"\n', "source is not a table"),
        ('[[source]]\nsql_file = "q.sql"\n', "source is not a table"),
        ('[job]\nsource = "q.sql"\n', "'source' is in [job] but is a table of its own; write [source]"),
        ('[sourc]\nsql_file = "q.sql"\n', "unknown table [sourc]; did you mean 'source'?"),
        ('sql_file = "q.sql"\n', "'sql_file' is outside any table; move it to [source]"),
        ("[target]\n", "has no manifest"),
    ],
)
def test_a_source_in_a_wrong_place_is_sent_to_the_right_one(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_of(tmp_path, text)
    assert said in str(caught.value)


def test_a_profile_has_no_source(cli: Cli) -> None:
    (cli.place / "config" / "bulkimg").mkdir(parents=True)
    (cli.place / "config" / "bulkimg" / "config.toml").write_text('[profile.p.source]\nsql_file = "q.sql"\n')
    assert "unknown option 'source' in [profile.p]" in cli("doctor", "--profile", "p", code=2).err


def test_the_query_that_is_missing_or_no_text_is_one_sentence(cli: Cli) -> None:
    cli.write("job.toml", '[source]\nsql_file = "q.sql"\nurl_command = ["echo", "sqlite:///a.db"]\n')
    assert "q.sql: cannot be read: No such file" in cli("check", "job.toml", code=3).err
    cli.write("q.sql", b"SELECT '\xff'")
    assert "q.sql: the query is not UTF-8; save it as UTF-8" in cli("check", "job.toml", code=2).err
    cli.write("q.sql", "SELECT 1\n,\0")
    assert "q.sql:2: the query contains a NUL character" in cli("check", "job.toml", code=2).err
    cli.write("q.sql", "\ufeffSELECT 1")
    assert "there is no SQLite database" in cli("check", "job.toml", code=3).err


def test_the_libraries_are_imported_only_for_a_source(cli: Cli) -> None:
    cli.write("m.csv", "uuid,name\n0123456789abcdef0123456789abcdef,a\n")
    cli.write(
        "look.py",
        "import sys, bulkimg.cli.main as main, bulkimg.cli.check\n"
        "try: main.app(['check', 'm.csv'], standalone_mode=False)\nexcept BaseException: pass\n"
        "print([name for name in ('sqlalchemy', 'duckdb', 'psycopg', 'pymysql') if name in sys.modules])\n",
    )
    done = subprocess.run(
        [sys.executable, "look.py"], cwd=cli.place, env=cli.env(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("sqlalchemy", "needs SQLAlchemy, which"),
        ("psycopg", "needs psycopg, which"),
        ("pymysql", "needs PyMySQL, which"),
    ],
)
def test_a_library_that_is_missing_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # what an import meets where it is not installed
    scheme = "mysql" if library == "pymysql" else "postgresql"
    url = tmp_path / "url"
    url.write_text(f"{scheme}://u@127.0.0.1:1/d")
    url.chmod(0o600)
    (tmp_path / "q.sql").write_text("SELECT 1")
    source = SqlSource(sql_file=tmp_path / "q.sql", url_file=url)
    with pytest.raises(UsageError) as caught:
        open_table("sql", str(source.sql_file), Settings(source=source))
    assert said in str(caught.value)
    assert "uv tool install '.[sql]'" in str(caught.value)


def test_duckdb_that_is_missing_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(
        UsageError, match=r"m\.parquet: Parquet needs duckdb, which is not installed; .*'\.\[parquet\]'"
    ):
        open_table("parquet", "m.parquet", Settings())
