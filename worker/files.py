"""How files are made: never half written, and databases for their owner only."""

import errno
import hashlib
import io
import mmap
import os
import secrets
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from worker.errors import OutputError

DRAFT: Final = ".draft-"
"""How the names of files begin that are being written."""
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_OPENING: Final = threading.Lock()


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
        sqlite3.Error: it cannot be opened.
    """
    with _OPENING:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        return sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)


def open_regular(path: Path) -> io.BufferedReader:
    """Opens an ordinary file, or a link to one, for reading. A pipe, a socket or a device is refused and never waited
    for, also if it takes the place of a file at the last moment.

    Raises:
        OSError: it cannot be opened, or is no ordinary file.
    """
    # Without O_NONBLOCK, the opening of a pipe waits until somebody writes.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return os.fdopen(descriptor, "rb")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is no ordinary file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, content: bytes | memoryview | mmap.mmap, *, mode: int = 0o666) -> None:
    """Replaces the content of ``path`` by ``content``, durably. Readers see the old or the new, never a mixture.

    A new file gets ``mode``, less the process's umask. Nobody can foresee the name of the draft, so nobody can put a
    link in its place.

    Raises:
        OSError: the file cannot be written.
    """
    draft = path.with_name(f"{DRAFT}{secrets.token_hex(8)}")
    try:
        write_durably(draft, content, mode=mode)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_durably(path: Path, content: bytes | memoryview | mmap.mmap, *, mode: int = 0o666) -> None:
    """Writes a new file; it is on the disk when this returns.

    Raises:
        OSError: the file exists or cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes sure that what was renamed or made in ``folder`` survives a power cut.

    Raises:
        OSError: the folder cannot be read.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def why_unwritable(error: OSError | ValueError | NotImplementedError) -> str:
    """Why a folder in which a file is locked and written did not take it, and what to do."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or error
    if number in _NO_LOCKS or isinstance(error, NotImplementedError):
        return (
            f"its file system gives no locks ({reason}); use a local disk, or switch locking on where the network "
            "share is served and mounted"
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}; make room on its disk"
    if number == errno.EROFS:
        return f"{reason}; mount it for writing, or name another folder"
    return f"{reason}; check its permissions and free space"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure of the block to write ``path`` into an error that names the path.

    Raises:
        OutputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
