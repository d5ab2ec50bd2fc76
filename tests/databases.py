"""Start the databases that tests read from: PostgreSQL and MariaDB as Debian packages them, on 127.0.0.1 only."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSWORD = "s3cr/et:of@tests"
ENCODED = "s3cr%2Fet%3Aof%40tests"
PATIENCE = 60.0  # seconds for a server to start


def _found(name: str) -> Path | None:
    """Return a server's program. Debian keeps those of PostgreSQL apart."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin"]
    places += sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    found = shutil.which(name, path=os.pathsep.join(places))
    return Path(found) if found else None


POSTGRES = _found("postgres")
MARIADB = _found("mariadbd")


@dataclass(frozen=True)
class Database:
    """A server, or a file of SQLite. `execute` runs statements as its owner and returns the rows of the last one."""

    kind: str
    url: str
    execute: Callable[..., list[Any]]
    pid: int = 0
    port: int = 0

    def fill(self, rows: Sequence[Sequence[Any]]) -> None:
        """Make the table `image` anew with these rows."""
        columns = "uuid varchar(64), name varchar(300), platform varchar(64), virtio integer, description varchar(3000)"
        marks = ", ".join(["?" if self.kind == "sqlite" else "%s"] * 5)
        self.execute("DROP TABLE IF EXISTS image")
        self.execute(f"CREATE TABLE image ({columns})")
        for row in rows:
            self.execute(f"INSERT INTO image VALUES ({marks})", row)

    def snapshot(self) -> list[Any]:
        return self.execute("SELECT * FROM image ORDER BY uuid")


def _other_user() -> tuple[list[str], int, int]:
    """Return how to run a program as another user, and whom: both servers refuse to run as root."""
    if os.getuid() != 0:
        return [], os.getuid(), os.getgid()
    import pwd

    user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if _exists(name))
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", *ids], user.pw_uid, user.pw_gid


def _exists(name: str) -> bool:
    import pwd

    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def _served(
    make: Callable[[Path, int], list[list[str]]], ready: Callable[[int, Path], None], end: int
) -> Iterator[tuple[int, int, Path]]:
    """Run the commands of `make` in a folder of its own; the last one is the server. Yields its port, pid and folder."""
    prefix, uid, gid = _other_user()
    with tempfile.TemporaryDirectory(prefix="bulkimg-database-") as name:
        place, port = Path(name), free_port()
        os.chown(place, uid, gid)
        (place / "password").write_text(PASSWORD)
        os.chown(place / "password", uid, gid)
        *before, server = make(place, port)
        log = (place / "log").open("wb")
        environment = {"PATH": f"/usr/sbin:/usr/bin:/bin:{os.environ.get('PATH', '')}", "LC_ALL": "C.UTF-8"}
        environment |= {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}
        for command in before:
            done = subprocess.run([*prefix, *command], cwd=place, env=environment, capture_output=True, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr).decode("utf-8", "replace")
        process = subprocess.Popen([*prefix, *server], cwd=place, env=environment, stdout=log, stderr=log)
        try:
            _wait(lambda: ready(port, place), process, place / "log")
            yield port, process.pid, place
        finally:
            process.send_signal(end)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
            log.close()


def _wait(ready: Callable[[], None], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ready()
        except Exception:
            said = log.read_text("utf-8", "replace")
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)


@contextlib.contextmanager
def postgresql() -> Iterator[Database]:
    """Start PostgreSQL with a database `test` of the user `owner`, who logs in with PASSWORD."""
    import psycopg

    assert POSTGRES is not None
    programs = POSTGRES.resolve().parent

    def make(place: Path, port: int) -> list[list[str]]:
        data = str(place / "data")
        quick = {"fsync": "off", "shared_buffers": "8MB", "max_connections": "30", "autovacuum": "off"}
        options = quick | {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(place)}
        return [
            [str(programs / "initdb"), "-D", data, "-U", "owner", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C",
             f"--pwfile={place}/password", "--no-sync", "--no-instructions"],
            [str(programs / "postgres"), "-D", data, *(f"--{key}={value}" for key, value in options.items())],
        ]  # fmt: skip

    def connected(port: int) -> Any:
        return psycopg.connect(
            host="127.0.0.1", port=port, user="owner", password=PASSWORD, dbname="postgres", autocommit=True
        )

    with _served(make, lambda port, place: connected(port).close(), signal.SIGINT) as (port, pid, _):
        owner = connected(port)

        def execute(statement: str, values: Sequence[Any] | None = None) -> list[Any]:
            cursor = owner.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

        yield Database("postgresql", f"postgresql://owner:{ENCODED}@127.0.0.1:{port}/postgres", execute, pid, port)
        owner.close()


@contextlib.contextmanager
def mariadb() -> Iterator[Database]:
    """Start MariaDB with a database `test` of the user `owner`, who logs in with PASSWORD."""
    import pymysql  # type: ignore[import-untyped]

    assert MARIADB is not None
    base = MARIADB.parent.parent

    def make(place: Path, port: int) -> list[list[str]]:
        data = str(place / "data")
        quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M"]
        quick += ["--innodb-fast-shutdown=2", "--skip-name-resolve"]
        here = [f"--datadir={data}", f"--socket={place}/socket", f"--pid-file={place}/pid", f"--basedir={base}"]
        install = base / "bin" / "mariadb-install-db"
        return [
            [str(install), "--no-defaults", f"--basedir={base}", f"--datadir={data}", "--skip-test-db",
             "--auth-root-authentication-method=normal", "--skip-name-resolve", *quick[:3]],
            [str(MARIADB), "--no-defaults", *here, f"--port={port}", "--bind-address=127.0.0.1", *quick],
        ]  # fmt: skip

    def connected(place: Path, database: str | None = None) -> Any:
        return pymysql.connect(
            unix_socket=f"{place}/socket", user="root", database=database, autocommit=True, charset="utf8mb4"
        )

    def ready(port: int, place: Path) -> None:
        assert (place / "socket").exists()  # PyMySQL does not close one that it could not connect
        connected(place).close()

    with _served(make, ready, signal.SIGTERM) as (port, pid, place):
        with contextlib.closing(connected(place)) as root, root.cursor() as cursor:
            cursor.execute("CREATE DATABASE test CHARACTER SET utf8mb4")
            cursor.execute("CREATE USER owner@127.0.0.1 IDENTIFIED BY %s", (PASSWORD,))
            cursor.execute("GRANT ALL ON *.* TO owner@127.0.0.1")
        with contextlib.closing(connected(place, "test")) as owner:

            def execute(statement: str, values: Sequence[Any] | None = None) -> list[Any]:
                with owner.cursor() as cursor:
                    cursor.execute(statement, values)
                    return list(cursor.fetchall()) if cursor.description else []

            yield Database("mariadb", f"mariadb://owner:{ENCODED}@127.0.0.1:{port}/test", execute, pid, port)
