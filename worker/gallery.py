"""Who is known: people, their samples, and the search for the nearest of them."""

import io
import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from worker.errors import GalleryError
from worker.logs import get_logger
from worker.search import PersonIndex, Vectors, require_unit
from worker.snapshots import MemoryStore, Snapshot, SnapshotStore
from worker.types import Candidate, Embeddings

FORMAT: Final = "facestream.gallery.v1"

Store = SnapshotStore | MemoryStore

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """One enrolled face. ``photo`` is the file's name; ``photo_sha256`` the digest of its bytes;
    ``photo_hash`` a perceptual hash (hex, may be empty); ``added_at`` RFC 3339 UTC."""

    sample_id: str
    identity_id: str
    photo: str
    photo_sha256: str
    photo_hash: str
    quality: float
    added_at: str


@dataclass(frozen=True, slots=True)
class Person:
    """One enrolled person; ``identity_id`` stays when the name changes."""

    identity_id: str
    name: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class NewSample:
    """A face to enrol: ``vector`` float32 (d,) of unit length, from the photo with these digests.

    ``identity_id`` is used if nobody is called ``identity_name`` yet; a new one is made where it is empty.
    """

    identity_name: str
    vector: NDArray[np.float32]
    photo: str
    photo_sha256: str
    photo_hash: str = ""
    quality: float = 1.0
    identity_id: str = ""


@dataclass(frozen=True, slots=True)
class _State:
    """Everything that one version of a gallery holds; row i of ``vectors`` is ``samples[i]``."""

    version: int
    model_id: str
    preprocessing_digest: str
    dimension: int
    names: dict[str, str]
    samples: tuple[Sample, ...]
    vectors: Vectors
    threshold: float | None
    camera_thresholds: dict[str, float]
    calibration: dict[str, Any]
    created_at: str


@dataclass(frozen=True, slots=True)
class _Searchable:
    state: _State
    identity_ids: tuple[str, ...]
    index: PersonIndex


def new_identity_id() -> str:
    """An id that no person has."""
    return uuid.uuid4().hex


class Gallery:
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
        self._live = _searchable(_parse(store.read(), store.folder))

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether there is a gallery, intact or not, in the folder ``path``."""
        return SnapshotStore(Path(path)).exists()

    @classmethod
    def in_memory(cls, model_id: str, preprocessing_digest: str, dimension: int) -> Self:
        """A new, empty gallery that is never written anywhere."""
        store = MemoryStore()
        _write(store, _empty(model_id, preprocessing_digest, dimension))
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
            _write(store, _empty(model_id, preprocessing_digest, dimension))
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

    def require_model(self, model_id: str, preprocessing_digest: str | None = None) -> None:
        """Raises GalleryError unless the gallery's vectors were made by this model with this preprocessing."""
        state = self._live.state
        if model_id != state.model_id:
            raise GalleryError(
                f"gallery {self.path} was made with model {state.model_id}, not {model_id}: "
                f"use --model {state.model_id}, or enroll into a new gallery"
            )
        if preprocessing_digest is not None and preprocessing_digest != state.preprocessing_digest:
            raise GalleryError(
                f"gallery {self.path} was made with preprocessing {state.preprocessing_digest} of {state.model_id}, "
                f"not {preprocessing_digest}: enroll the photos into a new gallery"
            )

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
        return len(self._live.state.samples)

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
        own = tuple(sample for sample in state.samples if sample.identity_id == identity_id)
        return Person(identity_id, state.names[identity_id], own)

    def vectors(self, identity: str | None = None) -> tuple[Vectors, tuple[Sample, ...]]:
        """The unit vectors float32 (n, d) of one person (id or name), or of all, with their samples in that order."""
        state = self._live.state
        if identity is None:
            return state.vectors.copy(), state.samples
        identity_id = self._resolve(state, identity)
        rows = [row for row, sample in enumerate(state.samples) if sample.identity_id == identity_id]
        return state.vectors[rows], tuple(state.samples[row] for row in rows)

    def search(self, embeddings: Embeddings) -> list[Candidate]:
        """The nearest person and the nearest other person of each vector, exactly.

        Raises:
            GalleryError: the embeddings are another model's.
            ValueError: vectors that are not finite, of unit length and of the gallery's dimension.
        """
        live = self._live
        if embeddings.model_id != live.state.model_id:
            raise GalleryError(
                f"gallery {self.path} was made with model {live.state.model_id}, not {embeddings.model_id}"
            )
        people, similarities = live.index.search(embeddings.vectors, threads=self._search_threads)
        ids, names = (*live.identity_ids, ""), live.state.names
        candidates = []
        for (best, other), (similarity, runner_up) in zip(people.tolist(), similarities.tolist(), strict=True):
            candidates.append(
                Candidate(ids[best] or None, names.get(ids[best], ""), similarity, runner_up, ids[other],
                          names.get(ids[other], ""))
            )  # fmt: skip
        return candidates

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

        def change(state: _State) -> _State:
            stored.clear()
            ids = {name: identity_id for identity_id, name in state.names.items()}
            photos = {sample.photo_sha256 for sample in state.samples}
            for sample in samples:
                if sample.photo_sha256 in photos:
                    stored.append(None)
                    continue
                photos.add(sample.photo_sha256)
                identity_id = ids.setdefault(sample.identity_name, sample.identity_id or new_identity_id())
                stored.append(
                    Sample(uuid.uuid4().hex, identity_id, sample.photo, sample.photo_sha256, sample.photo_hash,
                           round(float(sample.quality), 4), _now())
                )  # fmt: skip
            taken = [row for row, sample in enumerate(stored) if sample is not None]
            if not taken:
                return state
            return replace(
                state,
                names={identity_id: name for name, identity_id in ids.items()},
                samples=(*state.samples, *(sample for sample in stored if sample is not None)),
                vectors=np.concatenate([state.vectors, vectors[taken]]),
            )

        self._change(change)
        return stored

    def remove(self, identity: str) -> Person:
        """Removes a person (id or name) with all samples, and returns who it was.

        Raises:
            GalleryError: nobody is called that, or the gallery cannot be written.
        """
        removed: list[Person] = []

        def change(state: _State) -> _State:
            identity_id = self._resolve(state, identity)
            kept = [sample.identity_id != identity_id for sample in state.samples]
            gone = tuple(sample for sample, keep in zip(state.samples, kept, strict=True) if not keep)
            removed[:] = [Person(identity_id, state.names[identity_id], gone)]
            names = {key: name for key, name in state.names.items() if key != identity_id}
            return _without(state, kept, names)

        self._change(change)
        return removed[0]

    def remove_sample(self, sample_id: str) -> Sample:
        """Removes one sample; a person whose last sample it was goes with it.

        Raises:
            GalleryError: no such sample, or the gallery cannot be written.
        """
        removed: list[Sample] = []

        def change(state: _State) -> _State:
            kept = [sample.sample_id != sample_id for sample in state.samples]
            removed[:] = [sample for sample in state.samples if sample.sample_id == sample_id]
            if not removed:
                raise GalleryError(
                    f"gallery {self.path} has no sample {sample_id}; 'facestream gallery show' lists them"
                )
            left = {sample.identity_id for sample in state.samples if sample.sample_id != sample_id}
            return _without(state, kept, {key: name for key, name in state.names.items() if key in left})

        self._change(change)
        return removed[0]

    def rename(self, identity: str, new_name: str) -> Person:
        """Gives a person (id or name) another name; the identity_id stays.

        Raises:
            GalleryError: nobody is called that, the new name is empty or taken, or the gallery cannot be written.
        """
        if not new_name:
            raise GalleryError("a person's name must not be empty")

        def change(state: _State) -> _State:
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
            self._stamp = stamp
            try:
                state = _parse(self._store.read(), self.path)
            except GalleryError as error:
                _log.warning("gallery_not_reloaded", gallery=str(self.path), version=before.version, problem=str(error))
                return False
            if (state.model_id, state.preprocessing_digest) != (before.model_id, before.preprocessing_digest):
                raise GalleryError(
                    f"gallery {self.path} was replaced: it is now made with model {state.model_id} "
                    f"(preprocessing {state.preprocessing_digest}), not {before.model_id} "
                    f"({before.preprocessing_digest}); restart with the new model"
                )
            if (state.version, state.created_at) == (before.version, before.created_at):
                return False
            self._live = _searchable(state)
            return True

    def export_npz(self, file: Path) -> int:
        """Writes ``faces`` (empty: no pixels are kept), ``embeddings`` float32 (n, d), ``names`` and
        ``identity_ids`` (unicode, one for each row) to a compressed ``.npz`` without pickle; returns n.

        Raises:
            GalleryError: the file cannot be written.
        """
        state = self._live.state
        ids = [sample.identity_id for sample in state.samples]
        try:
            with file.open("wb") as out:
                np.savez_compressed(
                    out,
                    faces=np.empty((0, 0, 0, 3), np.uint8),
                    embeddings=state.vectors,
                    names=np.array([state.names[key] for key in ids], dtype=np.str_),
                    identity_ids=np.array(ids, dtype=np.str_),
                )
        except OSError as error:
            raise GalleryError(f"cannot write {file}: {error.strerror or error}") from None
        return len(ids)

    def _resolve(self, state: _State, identity: str) -> str:
        if identity in state.names:
            return identity
        for identity_id, name in state.names.items():
            if name == identity:
                return identity_id
        raise GalleryError(f"gallery {self.path} knows nobody called {identity!r}; 'facestream gallery list' shows all")

    def _change(self, change: Callable[[_State], _State]) -> None:
        with self._changing, self._store.locked():
            self.reload_if_changed()
            state = change(self._live.state)
            if state is self._live.state:
                return
            version = _write(self._store, state)
            self._stamp = self._store.stamp()
            self._live = _searchable(replace(state, version=version))


def _empty(model_id: str, preprocessing_digest: str, dimension: int) -> _State:
    return _State(
        version=0,
        model_id=model_id,
        preprocessing_digest=preprocessing_digest,
        dimension=dimension,
        names={},
        samples=(),
        vectors=np.empty((0, dimension), np.float32),
        threshold=None,
        camera_thresholds={},
        calibration={},
        created_at=_now(),
    )


def _searchable(state: _State) -> _Searchable:
    identity_ids = tuple(state.names)
    number = {identity_id: position for position, identity_id in enumerate(identity_ids)}
    owners = np.array([number[sample.identity_id] for sample in state.samples], np.int64)
    state.vectors.setflags(write=False)
    return _Searchable(state, identity_ids, PersonIndex(state.vectors, owners))


def _without(state: _State, kept: list[bool], names: dict[str, str]) -> _State:
    samples = tuple(sample for sample, keep in zip(state.samples, kept, strict=True) if keep)
    return replace(state, names=names, samples=samples, vectors=state.vectors[np.array(kept, bool)])


def _write(store: Store, state: _State) -> int:
    people = {"names": state.names, "samples": [asdict(sample) for sample in state.samples]}
    vectors = io.BytesIO()
    np.save(vectors, state.vectors, allow_pickle=False)
    fields = {
        "format": FORMAT,
        "model_id": state.model_id,
        "preprocessing_digest": state.preprocessing_digest,
        "dimension": state.dimension,
        "threshold": state.threshold,
        "camera_thresholds": state.camera_thresholds,
        "calibration": state.calibration,
        "created_at": state.created_at,
    }
    files = {"people.json": json.dumps(people).encode(), "embeddings.npy": vectors.getvalue()}
    return store.write(files, fields)


def _parse(snapshot: Snapshot, folder: Path) -> _State:
    manifest = snapshot.manifest
    if manifest.get("format") != FORMAT:
        raise GalleryError(
            f"gallery {folder} has format {manifest.get('format')!r}, this version reads {FORMAT}; upgrade facestream"
        )
    people = json.loads(snapshot.files["people.json"])
    return _State(
        version=snapshot.version,
        model_id=manifest["model_id"],
        preprocessing_digest=manifest["preprocessing_digest"],
        dimension=manifest["dimension"],
        names=people["names"],
        samples=tuple(Sample(**sample) for sample in people["samples"]),
        vectors=np.load(io.BytesIO(snapshot.files["embeddings.npy"]), allow_pickle=False),
        threshold=manifest["threshold"],
        camera_thresholds=manifest["camera_thresholds"],
        calibration=manifest["calibration"],
        created_at=manifest["created_at"],
    )


def _refuse_foreign_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise GalleryError(f"{folder} is a file; a gallery is a folder")
    ours = {"lock", "snapshots", "CURRENT", "CURRENT.draft"}
    if folder.is_dir() and any(entry.name not in ours for entry in folder.iterdir()):
        raise GalleryError(f"{folder} is not empty and not a gallery; choose another folder")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
