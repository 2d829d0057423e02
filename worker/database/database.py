"""An open database, SQLite or PostgreSQL: transactions, and errors in one form."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from worker.database.address import DatabaseAddress
from worker.database.errors import translated
from worker.database.schema import SCHEMA
from worker.errors import ConfigError, DatabaseError
from worker.observer import Observer
from worker.sqlite import connect_sqlite

_APPLICATION: Final = "facestream"
_PRAGMAS: Final = (
    "secure_delete = ON", "auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = NORMAL",
)  # fmt: skip
# libpq's own defaults wait for minutes, or for ever, for a server that has gone without a word.
_DEFAULTS: Final = {
    "connect_timeout": "5", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
    "tcp_user_timeout": "15000", "application_name": _APPLICATION,
}  # fmt: skip
PATIENCE_S: Final = 30.0
_COPY_SIGNATURE: Final = b"PGCOPY\n\xff\r\n\0"
_COPY_END: Final = b"\xff\xff"
_LIMITS: Final = "SET LOCAL lock_timeout = '15s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"


class Database:
    """An open database called ``label`` in messages. Threads may share a PostgreSQL one; a SQLite one has a single
    connection, for one thread at a time.

    All methods raise DatabaseError, or one of its kinds.
    """

    def __init__(self, label: str, engine: sa.Engine) -> None:
        self.label = label
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database from its beginning to its end."""
        with translated(self.label), self.engine.connect() as connection:
            if not self.is_sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that is written as a whole, or not at all if the block raises."""
        with translated(self.label), self.engine.connect() as connection:
            connection = connection.execution_options(facestream_writes=True)
            with connection.begin():
                yield connection

    def standing(self) -> sa.Connection:
        """A connection for a caller who keeps it, and ends it by ``invalidate`` and ``close``. Each statement on it is
        a transaction of its own, and a single journey to the server."""
        with translated(self.label):
            return self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def outside(self) -> Iterator[Any]:
        """The connection of the driver, outside of any transaction: for what none can hold."""
        with translated(self.label), self.engine.connect() as connection:
            yield connection.connection.driver_connection

    def copied(self, connection: sa.Connection, query: sa.Select[Any]) -> Iterator[bytes]:
        """The rows of ``query`` on a PostgreSQL ``connection``, each as COPY's binary form has it, by which a lot of
        bytes comes several times as fast as in the results of a query."""
        compiled = query.compile(
            dialect=connection.dialect, schema_translate_map={None: SCHEMA}, render_schema_translate=True,
            compile_kwargs={"render_postcompile": True},
        )  # fmt: skip
        driver: Any = connection.connection.driver_connection
        with driver.cursor().copy(f"COPY ({compiled}) TO STDOUT (FORMAT BINARY)", compiled.params) as rows:
            yield from _without_frame(rows)

    def rewrite(self, tables: Sequence[str]) -> bool:
        """Writes those of ``tables`` that there are in PostgreSQL anew, without what was deleted, and begins another
        file of the write-ahead log; returns whether this user may do all of it."""
        import psycopg

        done = True
        refused: list[Any] = []
        with self.outside() as connection:
            connection.set_autocommit(True)
            there = {
                name
                for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [SCHEMA])
            }
            statements = [f"VACUUM (FULL) {SCHEMA}.{table}" for table in tables if table in there]
            # VACUUM passes over the tables of others, and only says so: in the language of the server.
            connection.add_notice_handler(
                lambda notice: refused.append(notice) if notice.severity_nonlocalized == "WARNING" else None
            )
            for statement in (*statements, "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"):
                try:
                    connection.execute(statement)
                except psycopg.errors.InsufficientPrivilege:
                    done = False
            connection.set_autocommit(False)
        return done and not refused

    def insert(self, table: sa.Table) -> sqlite.Insert:
        """An INSERT that knows ON CONFLICT, which both databases write in the same way."""
        # The two classes have the same methods; one name for them spares a branch at each use.
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)  # type: ignore[return-value]

    def watch(self, observer: Observer) -> None:
        """Tells ``observer`` of statements and connections from now on."""

        def begun(connection: sa.Connection, *_: object) -> None:
            connection.info["begun_s"] = time.perf_counter()

        def done(connection: sa.Connection, *_: object) -> None:
            observer.database_statement(time.perf_counter() - connection.info["begun_s"])

        sa.event.listen(self.engine, "before_cursor_execute", begun)
        sa.event.listen(self.engine, "after_cursor_execute", done)
        sa.event.listen(self.engine, "connect", lambda *_: observer.database_connections(1))
        sa.event.listen(self.engine, "close", lambda *_: observer.database_connections(-1))

    def close(self) -> None:
        self.engine.dispose()


def open_sqlite(path: Path, *, busy_timeout_s: float = 5.0) -> Database:
    """The SQLite file ``path``, made with mode 0600 if it is missing; what is deleted in it is overwritten.

    Raises:
        OSError: the file cannot be made.
        DatabaseError: it cannot be opened, or is no SQLite file.
    """

    def connect() -> sqlite3.Connection:
        connection = connect_sqlite(path, busy_timeout_s=busy_timeout_s)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=StaticPool, hide_parameters=True)
    sa.event.listen(engine, "begin", _begin_sqlite)
    database = Database(str(path), engine)
    try:
        with database.reading():
            pass
    except BaseException:
        database.close()
        raise
    return database


def open_postgres(
    address: DatabaseAddress, *, connections: int = 0, label: str = "", patience_s: float | None = PATIENCE_S
) -> Database:
    """The PostgreSQL database at ``address``. Messages call it ``label``, which is ``address.server`` unless given.

    Up to ``connections`` are made and kept until the close. With 0, each transaction makes one of its own and none is
    kept: a command that runs once need not close anything. ``patience_s`` as for :func:`connector`.

    Raises:
        ConfigError: the extra is not installed, or libpq does not know an option of the URL.
    """
    pool: dict[str, Any] = {"poolclass": NullPool}
    if connections:
        pool = {"poolclass": QueuePool, "pool_size": connections, "max_overflow": 0, "pool_pre_ping": True}
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=connector(address, patience_s=patience_s),
        hide_parameters=True,
        use_native_hstore=False,
        **pool,
    ).execution_options(schema_translate_map={None: SCHEMA})
    sa.event.listen(engine, "begin", _begin_postgres)
    return Database(label or address.server, engine)


def connector(address: DatabaseAddress, *, patience_s: float | None = PATIENCE_S) -> Any:
    """A function that makes a new connection of psycopg.

    A connection whose server does not answer for ``patience_s`` is given up. Keepalives do not show that: the machine
    of a server that hangs still answers them.

    Raises:
        ConfigError: the extra is not installed, or libpq does not know an option of the URL.
    """
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise ConfigError(
            f"{address.server}: PostgreSQL needs the extra 'postgres': pip install 'facestream[postgres]'"
        ) from None

    class Impatient(psycopg.Connection[Any]):
        """Made here, since psycopg is loaded here."""

        patience_s: float | None = None

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            if timeout is not None or self.patience_s is None:
                return super().wait(gen, interval, timeout)
            try:
                return super().wait(gen, interval, self.patience_s)
            except psycopg.OperationalError as error:
                if "wait timeout expired" not in str(error):
                    raise
                self.pgconn.finish()
                raise psycopg.OperationalError(f"no answer within {self.patience_s:g} s") from None

    conninfo = address.conninfo.get_secret_value()
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.Error:
        raise ConfigError(
            f"{address.server} is not a URL that libpq understands: check its options and escape special characters"
        ) from None
    defaults = {} if "service" in given or "PGSERVICE" in os.environ else dict(_DEFAULTS)
    if "PGCONNECT_TIMEOUT" in os.environ:
        defaults.pop("connect_timeout", None)
    options = {key: value for key, value in defaults.items() if key not in given}

    def connect() -> Any:
        known: dict[str, Any] = dict(options)
        if (password := password_of(address)) is not None:
            known["password"] = password
        # Prepared statements do not survive a pooler that hands connections round.
        connection = Impatient.connect(conninfo, prepare_threshold=None, **known)
        connection.patience_s = patience_s
        return connection

    return connect


def password_of(address: DatabaseAddress) -> str | None:
    """What stands in the address's password file, read anew for each connection; None if there is none.

    Raises:
        DatabaseError: it cannot be read.
    """
    if address.password_file is None:
        return None
    try:
        return address.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is no text"
        raise DatabaseError(f"{address.server}: password_file {address.password_file}: {problem}") from None


def _without_frame(messages: Iterable[Any]) -> Iterator[bytes]:
    """The rows in the messages of a binary COPY: its head comes with the first row, its end is a message of its own."""
    head = _COPY_SIGNATURE
    for message in messages:
        row = bytes(message)
        if head:
            # After the signature: flags, and the length of an extension.
            row = row[len(head) + 8 + int.from_bytes(row[len(head) + 4 : len(head) + 8]) :]
            head = b""
        if row and row != _COPY_END:
            yield row


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("facestream_writes")
    # A transaction that begins by reading and then writes may find that somebody else has written meanwhile.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgres(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("facestream_writes"):
        connection.exec_driver_sql(_LIMITS)
