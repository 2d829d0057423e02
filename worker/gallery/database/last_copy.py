"""The last copy of a gallery in a database, on the disk of a worker, for a start while the database is away.

It is a gallery in a folder like any other, so its digests are checked when it is read, and its vectors are mapped. Only
its newest version is kept: what was removed from the gallery is not to stay here.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from worker.errors import GalleryError
from worker.files import private_folder
from worker.gallery.contents import Block, Contents, removed_samples
from worker.gallery.database.store import Copy
from worker.gallery.folder import read_contents, write_contents
from worker.gallery.snapshots import SnapshotStore
from worker.logs import get_logger

EVERY_S: Final = 30.0
"""How often the copy is written at most; one without somebody who was removed is written at once."""

_log = get_logger(__name__)


class LastCopy:
    """The copy in ``folder``, which only this user may read. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._store = SnapshotStore(folder, kept=1)
        self._written: Copy | None = None
        self._written_s = float("-inf")
        self._stems: dict[int, tuple[Block, Block]] = {}

    def read(self) -> Copy | None:
        """What was written last; None if there is nothing, or nothing intact."""
        if not self._store.exists():
            return None
        try:
            contents, of_database = read_contents(self._store)
            copy = Copy(replace(contents, version=int(of_database["version"])), str(of_database["change_id"]))
        except (GalleryError, KeyError, ValueError) as error:
            _log.warning("the last copy of the gallery cannot be used", folder=str(self.folder), problem=str(error))
            return None
        self._note(copy, copy.contents)
        return copy

    def write(self, copy: Copy, *, at_once: bool = False) -> None:
        """Writes ``copy`` if it is due. If it cannot be written, the log says so."""
        if self._written is not None and self._written.change_id == copy.change_id:
            return
        before = self._written.contents if self._written else None
        hurry = at_once or before is None or bool(removed_samples(before, copy.contents))
        if not hurry and time.monotonic() - self._written_s < EVERY_S:
            return
        try:
            private_folder(self.folder)
            # Blocks that were written before are linked, not written again.
            blocks = tuple(self._stems.get(id(block), (block, block))[1] for block in copy.contents.blocks)
            of_database = {"version": copy.contents.version, "change_id": copy.change_id}
            with self._store.locked():
                stored = write_contents(self._store, replace(copy.contents, blocks=blocks), of_database)
        except (GalleryError, OSError) as error:
            _log.warning("the last copy of the gallery is not written", folder=str(self.folder), problem=str(error))
            # Another worker may have written here: what it has pruned cannot be linked.
            self._stems, self._written_s = {}, time.monotonic()
            return
        self._note(copy, stored)

    def _note(self, copy: Copy, stored: Contents) -> None:
        self._written, self._written_s = copy, time.monotonic()
        pairs = zip(copy.contents.blocks, stored.blocks, strict=True)
        self._stems = {id(live): (live, kept) for live, kept in pairs if kept.stem}
