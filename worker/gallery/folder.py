"""Galleries in folders: opened, made and changed, and the files of one version.

The files of a version: ``embeddings.npy`` and ``people.json`` are its last block, which still grows, and the names of
all people. Each full block has two files of its own, ``<digest>.json`` and ``<digest>.npy``, which versions share.
"""

import hashlib
import io
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np

from worker.erased import FILE as ERASED
from worker.erased import LOCK as ERASED_LOCK
from worker.erased import WORKERS, Erased, folders_of, read_erased, state_beside
from worker.errors import EncryptionError, ErasureError, GalleryError, GalleryExistsError
from worker.files import DRAFT
from worker.gallery.consents import consents_of
from worker.gallery.contents import BLOCK_SAMPLES, Block, Contents, Sample, empty, removed_samples
from worker.gallery.crops import CROPS, CropStore, remove_crops
from worker.gallery.gallery import Gallery, Searchable, searchable
from worker.gallery.groups import groups_of
from worker.gallery.index import Representation
from worker.gallery.snapshots import FileContent, MemoryStore, Snapshot, SnapshotStore
from worker.logs import get_logger
from worker.names import clean_text
from worker.types import Vectors
from worker.video.folders import is_system_name

FORMAT: Final = "facestream.gallery.v1"
PREVIOUS: Final = "previous"
"""The folder inside a gallery's own folder that holds the gallery which the last switch of models put aside."""

_log = get_logger(__name__)


class FolderGallery(Gallery):
    """A gallery in a folder, or in memory. A lock file lets only one process at a time change it.

    ``block_samples`` and ``representation`` are how samples are stored and searched, see :class:`Block` and
    :class:`worker.gallery.index.PersonIndex`; they change no answer.
    """

    def __init__(
        self,
        store: SnapshotStore | MemoryStore,
        *,
        block_samples: int = BLOCK_SAMPLES,
        representation: Representation | Literal["auto"] = "auto",
    ) -> None:
        self.path = store.folder
        self.label = str(store.folder)
        self._store = store
        self._block_samples = block_samples
        self._representation = representation
        self._changing = threading.RLock()
        self._brought_back = False
        self._stamp = store.stamp()
        self._live = self._searchable(self._read())

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether there is a gallery, intact or not, in the folder ``path``."""
        return SnapshotStore(Path(path)).exists()

    @classmethod
    def in_memory(
        cls,
        model_id: str,
        preprocessing_digest: str,
        dimension: int,
        *,
        block_samples: int = BLOCK_SAMPLES,
        representation: Representation | Literal["auto"] = "auto",
    ) -> Self:
        """A new, empty gallery that is never written anywhere."""
        store = MemoryStore()
        write_contents(store, empty(model_id, preprocessing_digest, dimension))
        return cls(store, block_samples=block_samples, representation=representation)

    @classmethod
    def create(cls, path: Path | str, model_id: str, preprocessing_digest: str, dimension: int) -> Self:
        """A new, empty gallery in the folder ``path``, for the vectors of one model.

        Raises:
            GalleryExistsError: a gallery is there already.
            GalleryError: something else is there already.
        """
        store = SnapshotStore(Path(path))
        _refuse_foreign_folder(store.folder)
        with store.locked():
            if store.exists():
                raise GalleryExistsError(f"gallery {path} exists already; open it, or choose another folder")
            write_contents(store, empty(model_id, preprocessing_digest, dimension))
        return cls(store)

    @classmethod
    def open(cls, path: Path | str, *, model_id: str | None = None, preprocessing_digest: str | None = None) -> Self:
        """The gallery in the folder ``path``. A model, if given, must be the one that the gallery was made with.

        Raises:
            GalleryError: there is no gallery, no version of it is intact, or it was made with another model.
        """
        store = SnapshotStore(Path(path))
        if not store.exists():
            raise GalleryError(f"no gallery at {path}: make one with 'facestream enroll --gallery {path} PHOTOS'")
        gallery = cls(store)
        gallery.require_model(model_id or gallery.model_id, preprocessing_digest)
        if gallery._brought_back:
            _log.warning(
                "people who were erased had come back in this gallery: they are removed again", gallery=str(path)
            )
            try:
                gallery.purge()
            except GalleryError as error:
                _log.warning("who was erased is passed over, but still lies in the folder", problem=str(error))
        return gallery

    @property
    def audit_folder(self) -> Path | None:
        return state_beside(self._owner.resolve()) if isinstance(self._store, SnapshotStore) else None

    @property
    def _owner(self) -> Path:
        """The gallery itself: what a switch puts aside lies inside it."""
        return self.path.parent if self.path.name == PREVIOUS else self.path

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
            before = self._live.contents
            try:
                contents = self._read(before)
            except (GalleryError, EncryptionError) as error:
                self._stamp = stamp
                _log.warning("gallery_not_reloaded", gallery=str(self.path), version=before.version, problem=str(error))
                return False
            if (contents.model_id, contents.preprocessing_digest) != (before.model_id, before.preprocessing_digest):
                raise GalleryError(
                    f"gallery {self.path} was replaced: it is now made with model {contents.model_id} "
                    f"(preprocessing {contents.preprocessing_digest}), not {before.model_id} "
                    f"({before.preprocessing_digest}); restart with the new model"
                )
            self._stamp = stamp
            if (contents.version, contents.created_at) == (before.version, before.created_at):
                return False
            self._live = self._searchable(contents, self._live)
            return True

    def purge(self) -> None:
        """Writes the version in use anew without those who were erased, and removes all that came before it.

        Raises:
            GalleryError: the folder cannot be written.
        """
        with self._changing, self._store.locked():
            self.reload_if_changed()
            self._write(self._live.contents.without(self._erased()))
            self._store.forget_older()
            self.prune_crops()
            self._brought_back = False

    def hide(self, erased: Erased) -> None:
        # A version that is read later is compared with the list that lies beside it.
        with self._changing:
            before = self._live.contents
            if (left := before.without(erased)) is not before:
                self._live = self._searchable(left, self._live)

    def past_contents(self) -> list[Contents]:
        """What each intact version that is still on disk holds, oldest first, also of people who were erased."""
        if not isinstance(self._store, SnapshotStore):
            return []
        return [_parse(snapshot, self.path) for snapshot in SnapshotStore(self.path).all_readable()]

    def previous(self) -> "FolderGallery | None":
        """The gallery that the last switch put aside; None if there was no switch."""
        return FolderGallery.open(self.path / PREVIOUS) if FolderGallery.exists(self.path / PREVIOUS) else None

    def prune_crops(self) -> int:
        """Removes the crops of samples that are neither here nor in the gallery put aside; returns how many.

        Raises:
            GalleryError: a crop cannot be removed.
        """
        galleries = [self, *filter(None, [self.previous()])]
        live = {sample.sample_id for gallery in galleries for sample in gallery.contents.samples}
        return CropStore(self.path).prune(live)

    def _erased(self) -> Erased:
        if not isinstance(self._store, SnapshotStore):
            return Erased()
        try:
            return read_erased(folders_of(self._owner))
        except ErasureError as error:
            raise GalleryError(str(error)) from None

    def _read(self, before: Contents | None = None) -> Contents:
        """The version in use, without those who were erased."""
        snapshot = self._store.read()
        contents = _parse(snapshot, self.path, before)
        erased = self._erased()
        if snapshot.manifest.get("erased", "") == erased.stamp:
            return contents
        left = contents.without(erased)
        self._brought_back |= left is not contents
        return left

    def _write(self, contents: Contents) -> None:
        stored = write_contents(self._store, contents, erased=self._erased().stamp)
        self._stamp = self._store.stamp()
        self._live = self._searchable(stored, self._live)

    def _searchable(self, contents: Contents, before: Searchable | None = None) -> Searchable:
        return searchable(contents, before, representation=self._representation)

    def _change(self, change: Callable[[Contents], Contents]) -> None:
        with self._changing, self._store.locked():
            self.reload_if_changed()
            before = self._live.contents
            after = change(before)
            if after is before:
                return
            self._write(after)
            if gone := removed_samples(before, self._live.contents):
                # A damaged byte must not lead back to a version that still has them.
                self._store.forget_older()
                remove_crops(self.path / CROPS, gone)


def _refuse_foreign_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise GalleryError(f"{folder} is a file; a gallery is a folder")
    ours = {"lock", "snapshots", "CURRENT", "CURRENT.draft", CROPS, PREVIOUS, ERASED, ERASED_LOCK, WORKERS}
    if folder.is_dir() and not all(
        entry.name in ours or entry.name.startswith(DRAFT) or is_system_name(entry.name) for entry in folder.iterdir()
    ):
        raise GalleryError(f"{folder} is not empty and not a gallery; choose another folder")


def write_contents(
    store: SnapshotStore | MemoryStore,
    contents: Contents,
    of_database: Mapping[str, object] | None = None,
    erased: str = "",
) -> Contents:
    """Makes ``contents`` the version in use and returns it as it is stored; call while ``store`` is locked.

    ``of_database``: what :func:`read_contents` is to give back, if this is a copy of a gallery in a database.
    ``erased``: the stamp of the list of erased people, none of whom is in ``contents``.

    Raises:
        GalleryError: the folder cannot be written; the version in use stays as it was.
    """
    last = contents.blocks[-1]
    files = {"people.json": _people(last, contents.names), "embeddings.npy": _npy(last.vectors)}
    stems: list[str] = []
    shared: dict[str, bytes | None] = {}
    for block in contents.blocks[:-1]:
        stem = block.stem
        if stem:
            shared |= {f"{stem}.json": None, f"{stem}.npy": None}
        else:
            people, vectors = _people(block, {}), _npy(block.vectors)
            stem = hashlib.sha256(hashlib.sha256(people).digest() + hashlib.sha256(vectors).digest()).hexdigest()
            shared |= {f"{stem}.json": people, f"{stem}.npy": vectors}
        stems.append(stem)
    fields = (
        {
            "format": FORMAT,
            "model_id": contents.model_id,
            "preprocessing_digest": contents.preprocessing_digest,
            "dimension": contents.dimension,
            "threshold": contents.threshold,
            "camera_thresholds": contents.camera_thresholds,
            "calibration": contents.calibration,
            "created_at": contents.created_at,
            "blocks": stems,
            "erased": erased,
        }
        | what_is_noted(contents)
        | ({} if of_database is None else {"of_database": of_database})
    )
    version, stored = store.write(files, fields, shared)
    blocks = [
        block if block.stem else replace(block, vectors=_array(stored[f"{stem}.npy"]), stem=stem, room=None)
        for block, stem in zip(contents.blocks, stems, strict=False)
    ]
    return replace(contents, version=version, blocks=(*blocks, last))


def what_is_noted(contents: Contents) -> dict[str, object]:
    """What people have noted of those in ``contents``, as fields of a manifest."""
    return {
        "consents": {key: one.document() for key, one in contents.consents.items() if key in contents.names},
        "groups": {name: group.document() for name, group in contents.groups.items()},
        "memberships": {key: names for key, names in contents.memberships.items() if key in contents.names},
    }


def rewrite(folder: Path) -> int:
    """Writes the version in use anew, sealed as the keys of this process say, and removes the versions before it.
    Returns how many samples it has.

    Raises:
        GalleryError: no version is intact, or the folder cannot be written; it stays as it was.
        EncryptionError: it is encrypted, and its key is not among those of this process.
    """
    store = SnapshotStore(folder, kept=1)
    with store.locked():
        contents, of_database = read_contents(store)
        blocks = tuple(replace(block, stem="") for block in contents.blocks)
        write_contents(store, replace(contents, blocks=blocks), of_database or None)
    return len(contents.samples)


def read_contents(store: SnapshotStore) -> tuple[Contents, dict[str, Any]]:
    """The version in use, and what was given as ``of_database`` when it was written.

    Raises:
        GalleryError: no version is intact, or another version of this program wrote it.
    """
    snapshot = store.read()
    return _parse(snapshot, store.folder), snapshot.manifest.get("of_database", {})


def _parse(snapshot: Snapshot, folder: Path, before: Contents | None = None) -> Contents:
    """The contents in a snapshot. A block that ``before`` has too is the same object.

    Raises:
        GalleryError: another version of this program wrote it, in another format.
    """
    manifest, files = snapshot.manifest, snapshot.files
    if manifest.get("format") != FORMAT:
        raise GalleryError(
            f"gallery {folder} has format {manifest.get('format')!r}, this version reads {FORMAT}; upgrade facestream"
        )
    people = json.loads(bytes(files["people.json"]))
    last = Block(_samples(people), _array(files["embeddings.npy"]))
    known = {block.stem: block for block in before.blocks if block.stem} if before else {}
    full = [
        known.get(stem) or Block(_samples(json.loads(bytes(files[f"{stem}.json"]))), _array(files[f"{stem}.npy"]), stem)
        for stem in manifest.get("blocks", [])
    ]
    return Contents(
        version=snapshot.version,
        model_id=manifest["model_id"],
        preprocessing_digest=manifest["preprocessing_digest"],
        dimension=manifest["dimension"],
        names={identity_id: clean_text(name) for identity_id, name in people["names"].items()},
        blocks=(*full, last),
        threshold=manifest["threshold"],
        camera_thresholds=manifest["camera_thresholds"],
        calibration=manifest["calibration"],
        created_at=manifest["created_at"],
        consents=consents_of(manifest.get("consents", {})),
        groups=groups_of(manifest.get("groups", {})),
        memberships={key: tuple(names) for key, names in manifest.get("memberships", {}).items()},
    )


def _people(block: Block, names: dict[str, str]) -> bytes:
    return json.dumps({"names": names, "samples": [asdict(sample) for sample in block.samples]}).encode()


def _samples(people: dict[str, Any]) -> tuple[Sample, ...]:
    for sample in people["samples"]:
        sample["photo"] = clean_text(sample["photo"])
    return tuple(Sample(**sample) for sample in people["samples"])


def _npy(vectors: Vectors) -> bytes:
    out = io.BytesIO()
    np.save(out, vectors, allow_pickle=False)
    return out.getvalue()


def _array(content: FileContent) -> Vectors:
    """The array in an ``.npy`` file, read-only, without a copy."""
    head = io.BytesIO(content[:4096])
    np.lib.format.read_magic(head)
    shape, _, dtype = np.lib.format.read_array_header_1_0(head)
    array: Vectors = np.frombuffer(content, dtype, offset=head.tell()).reshape(shape)
    return array
