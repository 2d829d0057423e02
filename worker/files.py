"""How files are made: never half written, and for their owner only, whatever the process's umask says."""

import errno
import fcntl
import hashlib
import io
import logging
import mmap
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from worker.errors import OutputError

DRAFT: Final = ".draft-"
"""How the names of files begin that are being written."""
_ABANDONED_S: Final = 60.0
_SCRATCH: Final = "facestream-scratch-"
_SCRATCH_OF_BEFORE: Final = ("bench", "demo", "live", "photo", "photos", "search")
_DAY_S: Final = 86_400.0
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
FILE_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_OTHERS: Final = 0o077

_log = logging.getLogger(__name__)


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


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """A value that changes whenever another file takes the place of ``path``, or it is written; None if it cannot be
    looked at. Costs one ``stat``."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def private_folder(folder: Path, ours: Callable[[str], bool] = lambda _name: True) -> None:
    """Makes ``folder`` for its owner only, with the folders above it.

    An existing one is closed to other users together with all that lies in it, and the log says so. Where it holds
    something that is not ``ours`` by its name, it may be there for others: then only what is ours is closed. What
    belongs to another user is left as it is, and so is where a link leads to.

    Raises:
        OSError: the folder cannot be made.
    """
    try:
        for above in reversed([above for above in folder.parents if not above.exists()]):
            # Who may write to a folder above may put another one in the place of this.
            above.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        folder.mkdir(mode=_FOLDER_MODE)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        folder.chmod(_FOLDER_MODE)
        return
    tighten(folder, ours)


def tighten(folder: Path, ours: Callable[[str], bool] = lambda _name: True) -> None:
    """What :func:`private_folder` does with an existing folder."""
    with suppress(OSError):
        if not stat.S_IMODE(folder.stat().st_mode) & _OTHERS:
            return  # nobody can reach what lies in it
        entries = list(folder.iterdir())
        mine = [entry for entry in entries if ours(entry.name)]
        closed = [_tighten(entry, deep=True) for entry in mine]
        if len(mine) == len(entries):
            closed.append(_tighten(folder.resolve(), deep=False))
        if any(closed):
            _log.warning("%s was open to other users of this machine: it is its owner's only now", folder)


def _tighten(path: Path, *, deep: bool) -> bool:
    """Whether other users had rights. ``deep``: below a folder too."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or not status.st_mode & _OTHERS:
            return False
        if deep and stat.S_ISDIR(status.st_mode):
            for entry in path.iterdir():
                _tighten(entry, deep=True)
        path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)
    except OSError:  # gone meanwhile, or on a file system that is mounted for reading only
        return False
    return True


def tighten_file(path: Path) -> None:
    """Takes the rights of other users away from one file of this user; a link is left alone."""
    _tighten(path, deep=False)


def is_of_state(name: str) -> bool:
    """Whether a file of this name in a ``state_dir`` is the project's own."""
    return re.match(r"(?:history\.|outbox-|erased\.|audit\.|workers$)", name) is not None


def open_private(path: Path) -> io.BufferedWriter:
    """Opens ``path`` for writing what only its owner may read; an existing file is emptied.

    Raises:
        OSError: it cannot be written.
    """
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE), "wb")
    with suppress(OSError):  # another user's file, or a device
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fchmod(file.fileno(), FILE_MODE)
    return file


def draft_beside(path: Path) -> Path:
    """A path for what becomes ``path`` later. Nobody can foresee it, so nobody can put a link in its place."""
    return path.with_name(f"{DRAFT}{secrets.token_hex(8)}")


def replace_file(path: Path, content: bytes | memoryview | mmap.mmap) -> None:
    """Replaces the content of ``path`` by ``content``, durably. Readers see the old or the new, never a mixture.

    A link at ``path`` is replaced, not followed. The file gets the mode 0600.

    Raises:
        OSError: the file cannot be written.
    """
    draft = draft_beside(path)
    try:
        write_durably(draft, content)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_durably(path: Path, content: bytes | memoryview | mmap.mmap) -> None:
    """Writes a new file with the mode 0600; it is on the disk when this returns.

    Raises:
        OSError: the file exists or cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE), "wb") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Makes sure that what another library wrote to ``path`` is on the disk.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def remove_drafts(folder: Path) -> int:
    """Removes what a process that was killed has left half written anywhere below ``folder``; returns how many files.
    What was written within the last minute may be at work."""
    gone = 0
    for above, _, names in os.walk(folder):
        for draft in (Path(above, name) for name in names if name.startswith(DRAFT)):
            with suppress(OSError):
                if time.time() - draft.lstat().st_mtime > _ABANDONED_S:
                    draft.unlink()
                    gone += 1
    return gone


@contextmanager
def without_name(content: BinaryIO) -> Iterator[Path]:
    """What ``content`` holds from its beginning, in a file without a name, for the block: a path by which this process
    alone can open it. However the process ends, nothing is left."""
    content.seek(0)
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(content, file)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder of this user alone, for the block. What processes that were killed have left of theirs goes first."""
    remove_scratch()
    made = Path(tempfile.mkdtemp(prefix="facestream-"))
    # It gets the name by which it is found once it is locked: the system unlocks it however this process ends.
    held = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made = made.rename(made.with_name(f"{_SCRATCH}{secrets.token_hex(8)}"))
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


def remove_scratch() -> None:
    """Removes the folders of :func:`scratch_folder` whose process is gone, and those that earlier versions have left a
    day ago."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            held = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(held).st_uid == os.geteuid():
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)
    for left in (left for kind in _SCRATCH_OF_BEFORE for left in place.glob(f"facestream-{kind}-*")):
        with suppress(OSError):
            status = left.lstat()
            if status.st_uid != os.geteuid() or time.time() - status.st_mtime < _DAY_S:
                continue
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


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
