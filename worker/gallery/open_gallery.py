"""A gallery that is open, wherever it is kept: searched, and changed one version after the other."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worker.errors import GalleryError
from worker.gallery.index import require_unit
from worker.gallery.state import NewSample, Person, Sample, State, enrolled
from worker.gallery.view import GalleryView


class OpenGallery(GalleryView):
    """Safe to search from any thread while it changes: each version is immutable and replaced whole, and a search
    ends with the version it began with. Changes begin with the newest version that anybody has written."""

    @property
    def folder(self) -> Path | None:
        """Where its files lie; None where it has none."""
        return None

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
                    f"gallery {self.label} has no sample {sample_id}; 'facestream gallery show' lists them"
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
                raise GalleryError(
                    f"gallery {self.label} has somebody called {new_name!r} already; choose another name"
                )
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

    @abstractmethod
    def reload_if_changed(self) -> bool:
        """Takes up what others changed, if anything; cheap enough to be asked for every frame.

        Raises:
            GalleryError: another model's gallery has taken its place.
        """

    def close(self) -> None:
        """Lets go of whatever keeps the gallery current. Searches still work."""

    @abstractmethod
    def _change(self, change: Callable[[State], State]) -> None:
        """Makes what ``change`` returns the next version. It is given the newest state, more than once if others
        change that meanwhile; a state that it returns as it is makes no version.

        Raises:
            GalleryError: the version cannot be written; the one before stays in use.
        """
