"""A gallery that is open, wherever it is kept: searched, and changed one version after the other."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.errors import GalleryError
from worker.files import writing
from worker.gallery.index import PersonIndex, Vectors, require_unit
from worker.gallery.state import NewSample, Person, Sample, State, enrolled
from worker.types import Candidate, Embeddings


@dataclass(frozen=True, slots=True)
class Searchable:
    """A state with its index.

    A person's number in the index is the place in ``identity_ids``, which ends with "" for nobody. Numbers are not
    given again while a gallery is open, so that what is known of an unchanged block stays true.
    """

    state: State
    identity_ids: tuple[str, ...]
    numbers: dict[str, int]
    owners: tuple[NDArray[np.int64], ...]
    index: PersonIndex


def searchable(state: State, before: Searchable | None = None) -> Searchable:
    """``state`` ready for searches; what ``before`` computed for blocks that stayed is taken over."""
    numbers = {} if before is None else before.numbers
    new = [identity_id for identity_id in state.names if identity_id not in numbers]
    if new or before is None:
        numbers = {**numbers, **{identity_id: len(numbers) + place for place, identity_id in enumerate(new)}}
    known = {} if before is None else dict(zip(map(id, before.state.blocks), before.owners, strict=True))
    owners = tuple(
        known[id(block)]
        if id(block) in known
        else np.array([numbers[sample.identity_id] for sample in block.samples], np.int64)
        for block in state.blocks
    )
    index = PersonIndex(
        [block.vectors for block in state.blocks],
        np.concatenate(owners),
        previous=None if before is None else before.index,
    )
    return Searchable(state, (*numbers, ""), numbers, owners, index)


class Gallery:
    """Safe to search from any thread while it changes: each version is immutable and replaced whole, and a search
    ends with the version it began with. Changes begin with the newest version that anybody has written."""

    label: str
    """How messages call the gallery; holds no credentials."""
    _search_threads: int
    _live: Searchable

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

    def require_model(self, model_id: str, preprocessing_digest: str | None = None) -> None:
        """Raises GalleryError unless the gallery's vectors were made by this model with this preprocessing."""
        state = self._live.state
        if model_id != state.model_id:
            raise GalleryError(
                f"gallery {self.label} was made with model {state.model_id}, not {model_id}: "
                f"use --model {state.model_id}, or enroll into a new gallery"
            )
        if preprocessing_digest is not None and preprocessing_digest != state.preprocessing_digest:
            raise GalleryError(
                f"gallery {self.label} was made with preprocessing {state.preprocessing_digest} of {state.model_id}, "
                f"not {preprocessing_digest}: enroll the photos into a new gallery"
            )

    @property
    def state(self) -> State:
        """Everything that the version in use holds."""
        return self._live.state

    @property
    def version(self) -> int:
        return self._live.state.version

    @property
    def model_id(self) -> str:
        return self._live.state.model_id

    @property
    def preprocessing_digest(self) -> str:
        return self._live.state.preprocessing_digest

    @property
    def dimension(self) -> int:
        return self._live.state.dimension

    @property
    def threshold(self) -> float | None:
        """The calibrated cosine threshold; None where the model's own applies."""
        return self._live.state.threshold

    @property
    def camera_thresholds(self) -> dict[str, float]:
        """Calibrated cosine thresholds of single cameras."""
        return dict(self._live.state.camera_thresholds)

    @property
    def calibration(self) -> dict[str, Any]:
        """How the thresholds were found, as given to :meth:`set_thresholds`."""
        return dict(self._live.state.calibration)

    def threshold_of(self, camera_id: str) -> float | None:
        """The camera's calibrated threshold, else the gallery's, else None."""
        state = self._live.state
        return state.camera_thresholds.get(camera_id, state.threshold)

    def __len__(self) -> int:
        """The number of people."""
        return len(self._live.state.names)

    @property
    def sample_count(self) -> int:
        return self._live.state.sample_count

    def people(self) -> list[Person]:
        """Everybody, by name."""
        state = self._live.state
        samples: dict[str, list[Sample]] = {identity_id: [] for identity_id in state.names}
        for sample in state.samples:
            samples[sample.identity_id].append(sample)
        people = [Person(key, state.names[key], tuple(own)) for key, own in samples.items()]
        return sorted(people, key=lambda person: (person.name, person.identity_id))

    def person(self, identity: str) -> Person:
        """The person with this id or name.

        Raises:
            GalleryError: nobody is called that.
        """
        state = self._live.state
        identity_id = self._resolve(state, identity)
        return Person(identity_id, state.names[identity_id], state.samples_of(identity_id))

    def vectors(self, identity: str | None = None) -> tuple[Vectors, tuple[Sample, ...]]:
        """The unit vectors float32 (n, d) of one person (id or name), or of all, with their samples in that order."""
        state = self._live.state
        if identity is None:
            return state.vectors_of(), state.samples
        identity_id = self._resolve(state, identity)
        return state.vectors_of(identity_id), state.samples_of(identity_id)

    def search(self, embeddings: Embeddings) -> list[Candidate]:
        """The nearest person and the nearest other person of each vector; similarities are exact at any size.

        Raises:
            GalleryError: the embeddings are another model's.
            ValueError: vectors that are not finite, of unit length and of the gallery's dimension.
        """
        live = self._live
        if embeddings.model_id != live.state.model_id:
            raise GalleryError(
                f"gallery {self.label} was made with model {live.state.model_id}, not {embeddings.model_id}"
            )
        people, similarities = live.index.search(embeddings.vectors, threads=self._search_threads)
        ids, names = live.identity_ids, live.state.names
        candidates = []
        for (best, other), (similarity, runner_up) in zip(people.tolist(), similarities.tolist(), strict=True):
            candidates.append(
                Candidate(ids[best] or None, names.get(ids[best], ""), similarity, runner_up, ids[other],
                          names.get(ids[other], ""))
            )  # fmt: skip
        return candidates

    def export_npz(self, file: Path) -> int:
        """Writes ``faces`` (empty: no pixels are kept), ``embeddings`` float32 (n, d), ``names`` and
        ``identity_ids`` (unicode, one for each row) to a compressed ``.npz`` without pickle; returns n.

        Raises:
            OutputError: the file cannot be written.
        """
        state = self._live.state
        ids = [sample.identity_id for sample in state.samples]
        with writing(file), file.open("wb") as out:
            np.savez_compressed(
                out,
                faces=np.empty((0, 0, 0, 3), np.uint8),
                embeddings=state.vectors_of(),
                names=np.array([state.names[key] for key in ids], dtype=np.str_),
                identity_ids=np.array(ids, dtype=np.str_),
            )
        return len(ids)

    def _resolve(self, state: State, identity: str) -> str:
        if identity in state.names:
            return identity
        for identity_id, name in state.names.items():
            if name == identity:
                return identity_id
        raise GalleryError(
            f"gallery {self.label} knows nobody called {identity!r}; 'facestream gallery list' shows all"
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
