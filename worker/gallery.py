"""Who is known: galleries opened, made and changed."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from worker.errors import GalleryError
from worker.gallery_state import (
    NewSample,
    Person,
    Sample,
    State,
    Store,
    empty,
    enrolled,
    new_identity_id,
    parse,
    write,
)
from worker.gallery_view import GalleryView, searchable
from worker.logs import get_logger
from worker.search import require_unit
from worker.snapshots import MemoryStore, SnapshotStore

__all__ = ["Gallery", "NewSample", "Person", "Sample", "new_identity_id"]

_log = get_logger(__name__)


class Gallery(GalleryView):
    """An open gallery folder.

    Safe to search from any thread while it changes: each version is immutable and replaced whole, and a search
    ends with the version it began with. Changes from several processes are serialised by a lock file and begin
    with the newest version on disk.
    """

    def __init__(self, store: Store, *, search_threads: int = 1) -> None:
        self.path = store.folder
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

    def add(self, samples: Sequence[NewSample]) -> list[Sample | None]:
        """Enrols all ``samples`` in one new version.

        Returns, for each, the stored sample, or None where a photo with the same bytes is enrolled already. People
        are told apart by name: a name that exists gets a further sample.

        Raises:
            GalleryError: the gallery cannot be written; nothing was added.
            ValueError: an empty name, or a vector that is not finite, of unit length and of the gallery's dimension.
        """
        if any(not sample.identity_name for sample in samples):
            raise ValueError("a person's name must not be empty")
        if not samples:
            return []
        vectors = require_unit(np.stack([sample.vector for sample in samples]), self.dimension)
        stored: list[Sample | None] = []

        def change(state: State) -> State:
            changed, stored[:] = enrolled(state, samples, vectors)
            return changed

        self._change(change)
        return stored

    def remove(self, identity: str) -> Person:
        """Removes a person (id or name) with all samples, and returns who it was.

        Raises:
            GalleryError: nobody is called that, or the gallery cannot be written.
        """
        removed: list[Person] = []

        def change(state: State) -> State:
            identity_id = self._resolve(state, identity)
            gone = state.samples_of(identity_id)
            removed[:] = [Person(identity_id, state.names[identity_id], gone)]
            return state.minus({sample.sample_id for sample in gone})

        self._change(change)
        return removed[0]

    def remove_sample(self, sample_id: str) -> Sample:
        """Removes one sample; a person whose last sample it was goes with it.

        Raises:
            GalleryError: no such sample, or the gallery cannot be written.
        """
        removed: list[Sample] = []

        def change(state: State) -> State:
            removed[:] = [sample for sample in state.samples if sample.sample_id == sample_id]
            if not removed:
                raise GalleryError(
                    f"gallery {self.path} has no sample {sample_id}; 'facestream gallery show' lists them"
                )
            return state.minus({sample_id})

        self._change(change)
        return removed[0]

    def rename(self, identity: str, new_name: str) -> Person:
        """Gives a person (id or name) another name; the identity_id stays.

        Raises:
            GalleryError: nobody is called that, the new name is empty or taken, or the gallery cannot be written.
        """
        if not new_name:
            raise GalleryError("a person's name must not be empty")

        def change(state: State) -> State:
            identity_id = self._resolve(state, identity)
            if any(name == new_name and key != identity_id for key, name in state.names.items()):
                raise GalleryError(f"gallery {self.path} has somebody called {new_name!r} already; choose another name")
            return replace(state, names={**state.names, identity_id: new_name})

        self._change(change)
        return self.person(new_name)

    def set_thresholds(
        self, default: float | None, per_camera: Mapping[str, float], calibration: Mapping[str, Any]
    ) -> None:
        """Stores calibrated cosine thresholds and how they were found (JSON values).

        Raises:
            GalleryError: the gallery cannot be written.
            ValueError: a threshold outside -1..1.
        """
        for value in (*per_camera.values(), *([] if default is None else [default])):
            if not -1.0 <= value <= 1.0:
                raise ValueError(f"a cosine threshold lies in -1..1, not {value}")
        self._change(
            lambda state: replace(
                state, threshold=default, camera_thresholds=dict(per_camera), calibration=dict(calibration)
            )
        )

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
            state = change(self._live.state)
            if state is self._live.state:
                return
            stored = write(self._store, state)
            self._stamp = self._store.stamp()
            self._live = searchable(stored, self._live)


def _refuse_foreign_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise GalleryError(f"{folder} is a file; a gallery is a folder")
    ours = {"lock", "snapshots", "CURRENT", "CURRENT.draft"}
    if folder.is_dir() and any(entry.name not in ours for entry in folder.iterdir()):
        raise GalleryError(f"{folder} is not empty and not a gallery; choose another folder")
