"""Galleries in folders: opened, made and changed."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from worker.errors import GalleryError
from worker.gallery.crops import CROPS, remove_crops
from worker.gallery.gallery import Gallery, searchable
from worker.gallery.snapshots import MemoryStore, SnapshotStore
from worker.gallery.state import (
    NewSample,
    Person,
    Sample,
    State,
    Store,
    empty,
    new_identity_id,
    parse,
    removed_samples,
    write,
)
from worker.logs import get_logger

__all__ = ["FolderGallery", "NewSample", "Person", "Sample", "new_identity_id"]

PREVIOUS: Final = "previous"
"""The folder inside a gallery's own in which lies the gallery that a switch of models has put aside."""

_log = get_logger(__name__)


class FolderGallery(Gallery):
    """A gallery in a folder, or in memory. Changes from several processes are serialised by a lock file."""

    def __init__(self, store: Store, *, search_threads: int = 1) -> None:
        self.path = store.folder
        self.label = str(store.folder)
        self._store = store
        self._search_threads = search_threads
        self._changing = threading.RLock()
        self._stamp = store.stamp()
        self._live = searchable(parse(store.read(), store.folder))

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether there is a gallery, intact or not, in the folder ``path``."""
        return SnapshotStore(Path(path)).exists()

    @classmethod
    def in_memory(cls, model_id: str, preprocessing_digest: str, dimension: int) -> Self:
        """A new, empty gallery that is never written anywhere."""
        store = MemoryStore()
        write(store, empty(model_id, preprocessing_digest, dimension))
        return cls(store)

    @classmethod
    def create(cls, path: Path | str, model_id: str, preprocessing_digest: str, dimension: int) -> Self:
        """A new, empty gallery in the folder ``path``, for the vectors of one model.

        Raises:
            GalleryError: a gallery, or something else, is there already.
        """
        store = SnapshotStore(Path(path))
        _refuse_foreign_folder(store.folder)
        with store.locked():
            if store.exists():
                raise GalleryError(f"gallery {path} exists already; open it, or choose another folder")
            write(store, empty(model_id, preprocessing_digest, dimension))
        return cls(store)

    @classmethod
    def open(cls, path: Path | str, *, model_id: str | None = None, preprocessing_digest: str | None = None) -> Self:
        """The gallery in the folder ``path``; a model, where given, must be the one that it was made with.

        Raises:
            GalleryError: no gallery there, nothing intact left in it, or made with another model.
        """
        store = SnapshotStore(Path(path))
        if not store.exists():
            raise GalleryError(f"no gallery at {path}: make one with 'facestream enroll --gallery {path} PHOTOS'")
        gallery = cls(store)
        gallery.require_model(model_id or gallery.model_id, preprocessing_digest)
        return gallery

    @property
    def folder(self) -> Path:
        return self.path

    def reload_if_changed(self) -> bool:
        """Takes up what other processes changed; costs one ``stat`` where nothing did.

        A gallery that has become unreadable is reported in the log once, and the version in memory stays in use.

        Raises:
            GalleryError: the folder now holds a gallery of another model.
        """
        stamp = self._store.stamp()
        if stamp == self._stamp:
            return False
        with self._changing:
            before = self._live.state
            try:
                state = parse(self._store.read(), self.path, before)
            except GalleryError as error:
                self._stamp = stamp
                _log.warning("gallery_not_reloaded", gallery=str(self.path), version=before.version, problem=str(error))
                return False
            if (state.model_id, state.preprocessing_digest) != (before.model_id, before.preprocessing_digest):
                raise GalleryError(
                    f"gallery {self.path} was replaced: it is now made with model {state.model_id} "
                    f"(preprocessing {state.preprocessing_digest}), not {before.model_id} "
                    f"({before.preprocessing_digest}); restart with the new model"
                )
            self._stamp = stamp
            if (state.version, state.created_at) == (before.version, before.created_at):
                return False
            self._live = searchable(state, self._live)
            return True

    def _change(self, change: Callable[[State], State]) -> None:
        with self._changing, self._store.locked():
            self.reload_if_changed()
            before = self._live.state
            state = change(before)
            if state is before:
                return
            stored = write(self._store, state)
            self._stamp = self._store.stamp()
            self._live = searchable(stored, self._live)
            remove_crops(self.path / CROPS, removed_samples(before, stored))


def _refuse_foreign_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise GalleryError(f"{folder} is a file; a gallery is a folder")
    ours = {"lock", "snapshots", "CURRENT", "CURRENT.draft", CROPS, PREVIOUS}
    if folder.is_dir() and any(entry.name not in ours for entry in folder.iterdir()):
        raise GalleryError(f"{folder} is not empty and not a gallery; choose another folder")
