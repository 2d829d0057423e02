"""Which workers use a gallery or a state folder at this moment, and which erasures each has carried out.

A worker keeps a small file in ``workers`` beside the list of erased people, and holds the lock beside it for as long as
it runs. The system takes the lock back when the process ends, however it ends.
"""

import json
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from filelock import FileLock, Timeout

from worker.erased import WORKERS
from worker.files import private_folder, replace_file
from worker.logs import get_logger

_LOCK: Final = ".lock"

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Attendant:
    """A worker that runs, the erasures that it has carried out, and why it could not, if it could not."""

    name: str
    done: frozenset[str]
    problem: str = ""


class Presence:
    """What a worker says of itself in ``folders``; one that cannot be written is passed over."""

    def __init__(self, folders: Sequence[Path], worker_id: str) -> None:
        self._name = f"{quote(worker_id, safe='')}-{secrets.token_hex(4)}"
        self._held: list[tuple[Path, FileLock]] = []
        problem = ""
        # A folder that is not there holds nothing of anybody.
        for folder in filter(Path.is_dir, folders):
            try:
                private_folder(folder / WORKERS)
                lock = FileLock(
                    folder / WORKERS / f"{self._name}{_LOCK}", blocking=False, mode=0o600, thread_local=False
                )
                lock.acquire()
            except (OSError, Timeout, NotImplementedError) as error:
                problem = str(error)
                continue
            self._held.append((folder / WORKERS, lock))
        if problem and not self._held:
            _log.warning("'facestream forget' cannot see this worker", folder=str(folders[0]), problem=problem)

    def tell(self, done: Collection[str], problem: str = "") -> None:
        """These erasures are carried out."""
        content = json.dumps({"name": self._name, "done": sorted(done), "problem": problem}).encode()
        for folder, _ in self._held:
            try:
                replace_file(folder / f"{self._name}.json", content)
            except OSError as error:
                _log.warning("an erasure cannot be acknowledged", folder=str(folder), problem=str(error))

    def leave(self) -> None:
        for folder, lock in self._held:
            with suppress(OSError):
                (folder / f"{self._name}.json").unlink(missing_ok=True)
                (folder / f"{self._name}{_LOCK}").unlink(missing_ok=True)
            lock.release()
        self._held = []


def attendants(folders: Sequence[Path]) -> list[Attendant]:
    """The workers that run now and use one of ``folders``. What dead ones have left behind is removed."""
    found: dict[str, Attendant] = {}
    for folder in folders:
        for path in sorted((folder / WORKERS).glob(f"*{_LOCK}")):
            if (attendant := _attendant(path)) is not None:
                found[attendant.name] = attendant
    return list(found.values())


def _attendant(lock_path: Path) -> Attendant | None:
    name, lock = lock_path.name.removesuffix(_LOCK), FileLock(lock_path, blocking=False, mode=0o600)
    notes = lock_path.with_name(f"{name}.json")
    try:
        lock.acquire()
    except Timeout:
        try:
            told = json.loads(notes.read_bytes())
            return Attendant(name, frozenset(told["done"]), str(told["problem"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Attendant(name, frozenset(), "it has not said anything yet")
    except OSError:
        return None
    with suppress(OSError):
        notes.unlink(missing_ok=True)
        lock_path.unlink(missing_ok=True)
    lock.release()
    return None
