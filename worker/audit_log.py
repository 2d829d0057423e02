"""Who changed, looked up or gave away what of whom: one line for each, chained, for whoever has to show it later.

``facestream audit verify`` finds what was changed, taken out or cut off. (``facestream gallery audit`` is another
thing: it looks for mistakes among the people of a gallery.) A line holds no name: people, samples and sightings are
digests with the key of the log. So nobody finds anybody in it without the key, and who was erased leaves no name.

- ``audit.jsonl``: the lines. Each has the HMAC of itself and of the line before.
- ``audit.head.json``: number, HMAC and end of the last line, so that a log which was cut off is seen.
- ``audit.key``: the key of both, for the owner of the folder only.
"""

import contextlib
import getpass
import hashlib
import hmac
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from worker.errors import AuditError
from worker.files import is_of_state, private_folder, replace_file, why_unwritable
from worker.logs import get_logger
from worker.wire import now_rfc3339

LOG: Final = "audit.jsonl"
HEAD: Final = "audit.head.json"
KEY: Final = "audit.key"
_LOCK: Final = "audit.lock"
_LOCK_TIMEOUT_S: Final = 10.0
_KEY_BYTES: Final = 32
_START: Final = "0" * 64

_log = get_logger(__name__)
_account: ContextVar[str] = ContextVar("account", default="")


@dataclass(frozen=True, slots=True)
class Head:
    """The last line: its number (0: there is none), its HMAC, and where it ends in the file."""

    number: int
    chain: str
    size_bytes: int


class AuditLog:
    """The log in ``folder``. Several processes may write at once: a lock keeps their lines in one chain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        return (self.folder / LOG).exists() or (self.folder / HEAD).exists()

    def add(self, action: str, subjects: Iterable[str] = (), **details: str | int) -> None:
        """Notes ``action`` on ``subjects`` (ids), by the user of this process. ``details`` must name nobody.

        Raises:
            AuditError: it cannot be written.
        """
        with self._locked():
            key = self._key()
            head = self._last(key)
            body: dict[str, Any] = {
                "number": head.number + 1,
                "at": now_rfc3339(),
                "by": _actor(),
                "action": action,
                "subjects": sorted({_subject(key, subject) for subject in subjects if subject}),
                "details": details,
                "before": head.chain,
            }
            chain = _chain(key, body)
            line = json.dumps(body | {"chain": chain}).encode() + b"\n"
            try:
                size_bytes = _append(self.folder / LOG, line)
                self._write_head(key, Head(head.number + 1, chain, size_bytes))
            except OSError as error:
                raise self._unwritable(error) from None

    def entries(self) -> Iterator[dict[str, Any]]:
        """All lines, oldest first; a line that is no JSON object comes with the field ``damaged`` alone.

        Raises:
            AuditError: the log cannot be read.
        """
        try:
            content = (self.folder / LOG).read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise AuditError(f"audit log {self.folder / LOG} cannot be read: {error.strerror or error}") from None
        for line in content.splitlines():
            yield _parsed(line)

    def verify(self) -> tuple[Head, list[str]]:
        """The last line, and what is wrong with the log: one text for each place; none if all is well.

        Raises:
            AuditError: the log, its head or its key cannot be read.
        """
        with self._locked():
            key = self._key(make=False)
            head = self._head(key)
            before, number, problems = _START, 0, []
            for place, entry in enumerate(self.entries(), start=1):
                body = {name: value for name, value in entry.items() if name != "chain"}
                if entry.get("chain") != _chain(key, body):
                    problems.append(f"line {place}: it was changed after it was written")
                elif entry["before"] != before or entry["number"] != number + 1:
                    problems.append(f"line {place}: what came before it is missing or was changed")
                before, number = str(entry.get("chain", "")), _number(entry, number + 1)
            if head is None:
                problems.append(f"{HEAD} is missing or was changed: nobody can tell whether the end was cut off")
            elif head.number > number or (head.number == number and head.chain != before):
                problems.append(
                    f"the end was cut off: there were {head.number} lines, the last one of {head.chain[:16]}"
                )
            size = (self.folder / LOG).stat().st_size if (self.folder / LOG).exists() else 0
        return Head(number, before, size), problems

    def subject_of(self, an_id: str) -> str:
        """What stands in the log for an id.

        Raises:
            AuditError: the key cannot be read.
        """
        return _subject(self._key(make=False), an_id)

    def _last(self, key: bytes) -> Head:
        """Where the next line goes on. A log that was cut off is not mended: the gap stays to be seen."""
        head = self._head(key)
        path = self.folder / LOG
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            return head or Head(0, _START, 0)
        if head is not None and size_bytes <= head.size_bytes:
            return head
        # The writer before was killed between its line and the head, or the head is lost.
        last = head or Head(0, _START, 0)
        for entry in self.entries():
            if entry.get("before") == last.chain and entry.get("number") == last.number + 1:
                last = Head(int(entry["number"]), str(entry.get("chain")), size_bytes)
        return last

    def _head(self, key: bytes) -> Head | None:
        try:
            told = json.loads((self.folder / HEAD).read_bytes())
            head = Head(int(told["number"]), str(told["chain"]), int(told["size_bytes"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise AuditError(f"{self.folder / HEAD} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError):
            return None
        return head if hmac.compare_digest(str(told.get("check")), _check(key, head)) else None

    def _write_head(self, key: bytes, head: Head) -> None:
        told = {"number": head.number, "chain": head.chain, "size_bytes": head.size_bytes, "check": _check(key, head)}
        replace_file(self.folder / HEAD, json.dumps(told).encode())

    def _key(self, *, make: bool = True) -> bytes:
        path = self.folder / KEY
        try:
            if make and not path.exists():
                replace_file(path, os.urandom(_KEY_BYTES))
            key = path.read_bytes()
        except OSError as error:
            raise AuditError(f"the key of the audit log, {path}, cannot be read: {error}") from None
        if len(key) != _KEY_BYTES:
            raise AuditError(f"{path} is no key of an audit log: restore it from a backup")
        return key

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            private_folder(self.folder, is_of_state)
            lock = FileLock(self.folder / _LOCK, timeout=_LOCK_TIMEOUT_S, mode=0o600)
            lock.acquire()
        except Timeout:
            raise AuditError(f"audit log {self.folder / LOG} is held by another process; try again later") from None
        except (OSError, NotImplementedError) as error:
            raise self._unwritable(error) from None
        try:
            yield
        finally:
            lock.release()

    def _unwritable(self, error: OSError | NotImplementedError) -> AuditError:
        return AuditError(f"audit log {self.folder / LOG} cannot be written: {why_unwritable(error)}")


def note(folder: Path | None, action: str, subjects: Iterable[str] = (), **details: str | int) -> None:
    """Adds to the log in ``folder``. What was done has been done: if it cannot be noted, the program's log says so.
    None: there is no place for an audit log."""
    if folder is None:
        return
    try:
        AuditLog(folder).add(action, subjects, **details)
    except AuditError as error:
        _log.error("this is missing in the audit log", action=action, problem=str(error))


def acting_as(account: str) -> None:
    """What this task or thread does from now on, and what it begins, is done for an account of the console."""
    _account.set(account)


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.geteuid())
    process = f"{user}@{socket.gethostname()}/{os.getpid()}"
    return f"{account} at the console of {process}" if (account := _account.get()) else process


def _subject(key: bytes, an_id: str) -> str:
    return hmac.new(key, b"subject\0" + an_id.encode(), hashlib.sha256).hexdigest()[:32]


def _chain(key: bytes, body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, b"line\0" + text.encode(), hashlib.sha256).hexdigest()


def _check(key: bytes, head: Head) -> str:
    return hmac.new(key, f"head\0{head.number} {head.chain} {head.size_bytes}".encode(), hashlib.sha256).hexdigest()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {"damaged": True}
    return entry if isinstance(entry, dict) else {"damaged": True}


def _number(entry: dict[str, Any], otherwise: int) -> int:
    number = entry.get("number")
    return number if isinstance(number, int) else otherwise


def _append(path: Path, line: bytes) -> int:
    """Returns where the line ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes and os.pread(descriptor, 1, size_bytes - 1) != b"\n":
            line = b"\n" + line  # a writer was killed in the middle of its line
        os.write(descriptor, line)
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
