"""SQLite files, and the only way in which they are opened: for their owner alone, and encrypted where there is a key.

Encrypted files are SQLCipher's: each page has its own nonce and tag (AES-256, HMAC-SHA512), the write-ahead log too. A
plain one goes on as it is until :func:`convert` has encrypted it. The first bytes of an encrypted file name its key, in
the place of the salt, which may be any bytes: so a wrong key is told from a damaged file.

A process uses one SQLite library for all files, SQLCipher's if it has keys: two would take each other's locks away, see
:func:`connect_sqlite`.
"""

import functools
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from worker.encryption import ID_BYTES, Key, Sealing, keys
from worker.errors import ConfigError, DatabaseError, EncryptionError
from worker.files import FILE_MODE, draft_beside, sync_file, sync_folder, tighten_file

_OPENING: Final = threading.Lock()
_MARKER: Final = b"FSDB"
_PLAIN: Final = b"SQLite format 3\0"
_HEAD_BYTES: Final = 16
_warned: Final[set[str]] = set()

_log = logging.getLogger(__name__)


def connect_sqlite(path: Path, *, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection to the SQLite file ``path``. If the file is missing, it is made with mode 0600; SQLite gives its own
    files beside it the same mode. The connection begins no transaction by itself, and threads may pass it on.

    The file is touched only if it is missing: a process that closes any descriptor of a file loses all POSIX locks that
    it holds on the file, including those of other connections (SQLite's "How To Corrupt An SQLite Database File", 2.2).
    Another process then believes that it is the last one, and deletes the write-ahead log. So in this project only
    SQLite opens the path of a database. The lock keeps a second thread from connecting between the creation of the file
    and its close.

    Raises:
        OSError: the file cannot be made.
        EncryptionError: it is encrypted, and its key is not among those of this process.
        ConfigError: there are keys, but the extra for them is not installed.
        sqlite3.Error: it cannot be opened. Errors of SQLCipher are turned into these.
    """
    with _OPENING:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        except FileExistsError:
            # By their paths: see above.
            for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
                tighten_file(name)
        else:
            os.fchmod(descriptor, FILE_MODE)
            os.close(descriptor)
        if keys().reading:
            return _connect_cipher(path, busy_timeout_s)
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA schema_version").fetchall()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
            _refuse_encrypted(path, connection)
    return connection


def sealing_of(path: Path) -> Sealing:
    """By which key of this process an existing file is encrypted.

    Raises:
        DatabaseError: it cannot be opened.
    """
    ours = keys()
    try:
        if not ours.reading:
            connect_sqlite(path, busy_timeout_s=0).close()
            return "plain"
        with closing(_cipher_connection(path, 0.0, ours.reading[0])) as connection:
            head = _head(connection)
    except EncryptionError:
        return "unknown"
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(f"{path} cannot be opened: {error}") from None
    return ours.kind_of(_key_id(head)) if head.startswith(_MARKER) else "plain"


def is_as_wanted(path: Path) -> bool:
    """Whether the file is encrypted as this process would make it now, or plain; True if there is none.

    Raises:
        DatabaseError: it cannot be opened.
    """
    if not path.exists() or not path.stat().st_size:
        return True
    return sealing_of(path) == ("plain" if keys().writing is None else "current")


def convert(path: Path) -> bool:
    """Writes an existing file anew as this process, which must have keys, would make it now: encrypted with the key to
    write with, or plain. Returns whether that was needed. It takes the place of the old file as a whole.

    Raises:
        EncryptionError: its key is not among those of this process.
        DatabaseError: another process uses it, it is damaged, or its folder cannot be written.
    """
    writing = keys().writing
    draft = draft_beside(path)
    try:
        with closing(_connect_cipher(path, 0.0, quiet=True)) as connection:
            head = _head(connection) if path.stat().st_size else b""
            wanted = _MARKER + writing.id if writing else _PLAIN
            if not head or head.startswith(wanted):
                return False
            _keep_others_out(connection)
            export(connection, draft, writing)
            draft.replace(path)
            sync_folder(path.parent)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise DatabaseError(f"{path} is in use: stop the workers and commands that use it, and try again") from None
        raise DatabaseError(f"{path} cannot be converted: {error}") from None
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(f"{path} cannot be converted: {error}; it stays as it is") from None
    finally:
        draft.unlink(missing_ok=True)
        Path(f"{draft}-journal").unlink(missing_ok=True)
    return True


def export(connection: sqlite3.Connection, target: Path, key: Key | None) -> None:
    """Copies all that a connection of SQLCipher has open to the new file ``target``, encrypted with ``key``.

    Raises:
        OSError, sqlite3.Error: it cannot be written.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    connection.execute("ATTACH DATABASE ? AS draft KEY ?", (str(target), _spoken(key, new=True) if key else ""))
    for name in ("auto_vacuum", "user_version", "application_id"):
        (value,) = connection.execute(f"PRAGMA main.{name}").fetchone()
        if name == "auto_vacuum":
            connection.execute(f"PRAGMA draft.auto_vacuum = {int(value)}")
            connection.execute("SELECT sqlcipher_export('draft')").fetchall()
        else:
            connection.execute(f"PRAGMA draft.{name} = {int(value)}")
    connection.execute("DETACH DATABASE draft")
    sync_file(target)


@contextmanager
def source_for(target: sqlite3.Connection, file: Path, scratch: Path) -> Iterator[sqlite3.Connection]:
    """A connection to ``file``, from which SQLite can copy to ``target``: of the same library and, as SQLCipher asks
    for, encrypted like it. If ``file`` is not, a copy at ``scratch`` is, which is removed afterwards.

    Raises:
        EncryptionError: its key is not among those of this process.
        OSError, sqlite3.Error: it cannot be read, or the copy cannot be written.
    """
    if not keys().reading:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as source:
            _refuse_encrypted(file, source)
            yield source
        return
    head = _head(target)
    key = keys().find(_key_id(head), "the database") if head.startswith(_MARKER) else None
    with closing(_connect_cipher(file, 0.0, quiet=True)) as source:
        if _head(source).startswith(_MARKER) == (key is not None):
            yield source
            return
        try:
            export(source, scratch, key)
            with closing(_cipher_connection(scratch, 0.0, key)) as copy:
                yield copy
        finally:
            scratch.unlink(missing_ok=True)


def _keep_others_out(connection: sqlite3.Connection) -> None:
    """Takes the log over into the file, and lets nobody else open it until the connection is closed.

    Raises:
        sqlite3.OperationalError: somebody else has it open.
    """
    connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    # SQLite refuses this while anybody else has the file open.
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("COMMIT")


def _refuse_encrypted(path: Path, connection: sqlite3.Connection) -> None:
    # No connection of this process can hold a lock on a file that none of them can read: so it may be opened here.
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_MARKER):
        connection.close()
        keys().find(_key_id(head), path)


def _connect_cipher(path: Path, busy_timeout_s: float, *, quiet: bool = False) -> sqlite3.Connection:
    """A connection by SQLCipher, with the key that the file names; a new file gets the key to write with."""
    ours = keys()
    if path.stat().st_size == 0:
        return _cipher_connection(path, busy_timeout_s, ours.writing, new=True)
    connection = _cipher_connection(path, busy_timeout_s, ours.reading[0])
    head = _head(connection)
    if head == _PLAIN:
        connection.close()
        if ours.writing is not None and not quiet and str(path) not in _warned:
            _warned.add(str(path))
            _log.warning("%s is not encrypted: stop what uses it and run 'facestream encryption apply'", path)
        return _cipher_connection(path, busy_timeout_s, None)
    if head.startswith(_MARKER) and _key_id(head) != ours.reading[0].id:
        connection.close()
        return _cipher_connection(path, busy_timeout_s, ours.find(_key_id(head), path))
    return connection


def _cipher_connection(path: Path, busy_timeout_s: float, key: Key | None, *, new: bool = False) -> sqlite3.Connection:
    connection: sqlite3.Connection = _cipher()(
        path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )
    # It writes to standard error otherwise.
    connection.execute("PRAGMA cipher_log_level = NONE").fetchall()
    if key is not None:
        connection.execute(f'PRAGMA key = "{_spoken(key, new=new)}"').fetchall()
    return connection


def _spoken(key: Key, *, new: bool) -> str:
    """The key in SQLCipher's form; for a new file with the salt, which a key of 32 random bytes does not need."""
    salt = (_MARKER + key.id).ljust(_HEAD_BYTES, b"\0") if new else b""
    return f"x'{(key.derived(b'facestream sqlite') + salt).hex()}'"


def _head(connection: sqlite3.Connection) -> bytes:
    """The first bytes of a file that was opened with a key, or is plain."""
    rows = connection.execute("PRAGMA cipher_salt").fetchall()
    return bytes.fromhex(rows[0][0]) if rows else _PLAIN


def _key_id(head: bytes) -> bytes:
    return head[len(_MARKER) : len(_MARKER) + ID_BYTES]


@functools.cache
def _cipher() -> Any:
    """SQLCipher's class of connections, which raises the errors of :mod:`sqlite3`."""
    flags = sys.getdlopenflags()
    # TensorFlow shows its own SQLite to all that is loaded later, and SQLCipher would run that one: without encryption.
    sys.setdlopenflags(flags | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        from sqlcipher3 import dbapi2
    except ImportError:
        raise ConfigError(
            "encrypted SQLite files need the extra 'encryption': pip install 'facestream[encryption]'"
        ) from None
    finally:
        sys.setdlopenflags(flags)
    with closing(dbapi2.connect(":memory:")) as connection:
        if not connection.execute("PRAGMA cipher_version").fetchall():
            raise EncryptionError(
                "this process has another SQLite in the place of SQLCipher's, which encrypts nothing: start facestream "
                "as a process of its own"
            )

    def translating(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            try:
                return method(*args, **options)
            except dbapi2.Error as error:
                meant = _as_sqlite3(error)
            raise meant

        return call

    cursors = type(
        "Cursor",
        (dbapi2.Cursor,),
        {
            name: translating(getattr(dbapi2.Cursor, name))
            for name in ("execute", "executemany", "executescript", "fetchone", "fetchmany", "fetchall", "__next__")
        },
    )

    class Connection(dbapi2.Connection):  # type: ignore[misc]
        def cursor(self, factory: Any = cursors) -> Any:
            return super().cursor(factory)

    for name in ("__init__", "commit", "rollback", "backup", "close"):
        setattr(Connection, name, translating(getattr(dbapi2.Connection, name)))
    return Connection


def _as_sqlite3(error: Exception) -> sqlite3.Error:
    meant: sqlite3.Error = getattr(sqlite3, type(error).__name__)(*error.args)
    for name in ("sqlite_errorcode", "sqlite_errorname"):
        with suppress(AttributeError):
            setattr(meant, name, getattr(error, name))
    meant.__context__ = error.__context__
    return meant
