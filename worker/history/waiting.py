"""What a worker wants to remember while its database is away: kept in a bounded file, and written later, once."""

import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from worker.erased import Erased
from worker.errors import HistoryError
from worker.history.records import PastSighting, Tally, UnknownPerson
from worker.history.reuniting import Tell
from worker.history.rows import batched
from worker.history.store import History
from worker.history.strangers import EVERYBODY
from worker.logs import get_logger

_NOW: Final = "now"
_CHUNK: Final = 500
_REMOVED: Final = "removed"

_log = get_logger(__name__)


class Waiting:
    """Rows that wait in ``folder``, at most ``most`` of them. For one thread at a time.

    The file that grows is called ``now``. Before it is written to the database, it gets a name that no other has, and
    does not change any more: so a process that is killed meanwhile writes the same again, and nothing counts twice.
    The file ``removed`` has the ids of people who are known no more, each as a line of JSON.
    """

    def __init__(self, folder: Path, most: int = 100_000) -> None:
        self._folder = folder
        self._most = most
        self._count = self._counted()

    def __len__(self) -> int:
        """How many rows wait."""
        return self._count

    def keep(
        self,
        sightings: list[PastSighting],
        unknowns: list[UnknownPerson],
        tallies: list[Tally],
        removed: Sequence[str] = (),
        *,
        keep_s: float,
        remember_s: float,
    ) -> int:
        """Keeps these rows; returns how many sightings there was no room for. ``removed``: people who are known no
        more, so that it is not kept whom past sightings were said not to show.

        Raises:
            HistoryError: the file cannot be written.
        """
        room = max(0, self._most - self._count)
        fitting = sightings[:room]
        with History.open(self._folder / _NOW, create=True) as history:
            history.write(fitting, unknowns, tallies, keep_s=keep_s, remember_s=remember_s)
        if removed:
            self._keep_removed(removed)
        self._count += len(fitting) + len(unknowns) + len(removed)
        return len(sightings) - len(fitting)

    def write_to(
        self,
        history: History,
        *,
        keep_s: float,
        remember_s: float,
        tell: Tell | None = None,
        threshold: float | None = None,
    ) -> None:
        """Writes everything that waits to ``history``, and forgets it here. The other arguments are those of
        :meth:`History.write`.

        Raises:
            HistoryError: ``history`` cannot be written; what was not written waits on.
        """
        growing = self._folder / _NOW
        if growing.exists():
            growing.rename(self._folder / uuid.uuid4().hex)
        for folder in self._folders():
            try:
                with History.open(folder) as kept:
                    past, (people, _) = iter(kept.sightings()), kept.unknowns(EVERYBODY)
                    tallies = kept.tallies()
            except HistoryError as error:
                _log.error("what waited for the database cannot be read", folder=str(folder), problem=str(error))
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for chunk in batched(past, _CHUNK):
                history.write(chunk, keep_s=keep_s, remember_s=remember_s, tell=tell, threshold=threshold)
            # Tallies add up: the name of the file says whether they were added before.
            history.write(
                (), people, tallies, keep_s=keep_s, remember_s=remember_s, batch_id=folder.name, tell=tell
            )  # fmt: skip
            shutil.rmtree(folder)
        for identity_id in self._removed():
            history.forget_denials_of(identity_id)
        (self._folder / _REMOVED).unlink(missing_ok=True)
        self._count = 0

    def erase(self, erased: Erased, names: Collection[str]) -> None:
        """Removes all that bears an id of ``erased`` from what waits, and ``names`` from what is told of others.

        Raises:
            HistoryError: it cannot be removed.
        """
        for folder in [*self._folders(), *filter(Path.exists, [self._folder / _NOW])]:
            with History.open(folder) as kept:
                kept.erase(erased, names, again=True)
        self._count = self._counted()

    def _keep_removed(self, removed: Sequence[str]) -> None:
        lines = "".join(f"{json.dumps(identity_id)}\n" for identity_id in removed)
        path = self._folder / _REMOVED
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise HistoryError(f"{path} cannot be written: {error.strerror or error}") from None

    def _removed(self) -> list[str]:
        """The people who were known no more while the database was away. A line that was cut off is passed over."""
        path = self._folder / _REMOVED
        found = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            with suppress(ValueError):
                found.append(str(json.loads(line)))
        return found

    def _folders(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from sorted(path for path in self._folder.iterdir() if path.name != _NOW and path.is_dir())

    def _counted(self) -> int:
        """What a process before this one has left."""
        count = len(self._removed())
        for folder in [*self._folders(), *filter(Path.exists, [self._folder / _NOW])]:
            try:
                with History.open(folder) as kept:
                    count += len(kept.sightings()) + len(kept.unknowns(EVERYBODY)[0])
            except HistoryError:
                continue
        return count
