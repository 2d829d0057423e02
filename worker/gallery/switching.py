"""Another model for a gallery, without downtime: embed everybody anew beside it, switch, and switch back.

The new gallery is made in a folder of its own. The switch writes its contents into the old folder as the next
version, which readers take up as they do any other; what was there goes to ``previous`` inside it, a gallery like any
other, and comes back by :func:`roll_back`.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from worker.errors import GalleryError, SourceError
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.gallery.crops import Crop, CropStore, cut_crop
from worker.gallery.diff import Difference, other_people
from worker.gallery.enrolment import choose_face
from worker.gallery.folder import PREVIOUS, Gallery, NewSample, Person, Sample
from worker.gallery.open_gallery import OpenGallery
from worker.gallery.opening import open_gallery
from worker.gallery.shared.gallery import SharedGallery
from worker.gallery.shared.switch import previous_shared, switch_shared
from worker.gallery.snapshots import Snapshot, SnapshotStore
from worker.types import Chips
from worker.video.photos import list_photos, read_photo

_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class ReEmbedded:
    """``samples`` of ``people`` were embedded anew; ``missing``: people of whom nothing could be, who must be enrolled
    again; ``partial``: people who have lost some of their samples, and how many."""

    people: int
    samples: int
    missing: tuple[Person, ...]
    partial: tuple[tuple[Person, int], ...]


def re_embed(
    old: OpenGallery,
    new: OpenGallery,
    embedder: FaceEmbedder,
    *,
    crops: CropStore | None,
    new_crops: CropStore | None = None,
    photos: Path | None = None,
    detector: FaceDetector | None = None,
    advance: Callable[[int], None] = lambda _samples: None,
) -> ReEmbedded:
    """Embeds the samples of ``old`` with another model into ``new``; people keep their ids and names.

    Args:
        old: the gallery in use.
        new: where the people go; samples that are there already are left alone.
        embedder: of ``new``.
        crops: those of ``old``, if it can have any.
        new_crops: keeps the crops for ``new`` as well, where given.
        photos: folder in which the photos of samples without a crop are looked for, by their digests.
        detector: finds the faces in those photos; needed with ``photos``.
        advance: told how many samples are done.

    Raises:
        GalleryError: a crop is damaged or cannot be decrypted, or ``new`` cannot be written.
        SourceError: ``photos`` does not exist.
    """
    new.require_model(embedder.model_id, embedder.preprocessing_digest)
    if new_crops:
        new_crops.open_for_writing()
    by_digest = _photos_by_digest(photos) if photos else {}
    done = {sample.photo_sha256 for person in new.people() for sample in person.samples}
    kept = crops.sample_ids() if crops else set()
    names = {person.identity_id: person.name for person in old.people()}
    taken: dict[str, int] = dict.fromkeys(names, 0)
    for batch in _batches(old):
        faces: list[tuple[Sample, Crop]] = []
        for sample in batch:
            if sample.photo_sha256 in done:
                continue
            crop = crops.read(sample.sample_id) if crops and sample.sample_id in kept else None
            if crop is None and detector:
                crop = _face_of_photo(by_digest.get(sample.photo_sha256), detector)
            if crop:
                faces.append((sample, crop))
        _enroll(faces, names, new, embedder, crops, new_crops)
        done |= {sample.photo_sha256 for sample, _ in faces}
        for sample in batch:
            taken[sample.identity_id] += sample.photo_sha256 in done
        advance(len(batch))
    people = old.people()
    return ReEmbedded(
        people=sum(count > 0 for count in taken.values()),
        samples=sum(taken.values()),
        missing=tuple(person for person in people if not taken[person.identity_id]),
        partial=tuple(
            (person, len(person.samples) - taken[person.identity_id])
            for person in people
            if 0 < taken[person.identity_id] < len(person.samples)
        ),
    )


def difference(old: OpenGallery | Path | str, new: OpenGallery | Path | str) -> Difference:
    """Whom a switch of the gallery ``old`` to ``new`` would remove and bring in, by identity_id.

    Raises:
        GalleryError: one of them is missing or damaged.
    """
    return other_people(_opened(old).state, _opened(new).state)


def switch(path: Path | str, new_path: Path | str, *, accept: Difference | None = None) -> int:
    """Lets the gallery ``path`` hold what that at ``new_path`` holds, at once for all readers; returns the version.

    Raises:
        GalleryError: other people are in one than in the other, and ``accept`` does not name just them; one of the
            galleries is missing, damaged or cannot be written.
    """
    gallery, new = open_gallery(path), open_gallery(new_path)
    if isinstance(gallery, SharedGallery):
        return _switch_shared(gallery, new, accept)
    if new.folder is None:
        raise GalleryError(f"gallery {path} is a folder and cannot become that of {new.label}: re-embed into a folder")
    if Path(path).resolve() == Path(new_path).resolve():
        raise GalleryError(f"{new_path} is the gallery itself: name the one made by 'facestream gallery re-embed'")
    _exchange(Path(path), Path(new_path), accept)
    return Gallery.open(path).version


def previous_of(path: Path | str) -> OpenGallery:
    """The gallery that the last switch of that at ``path`` put aside.

    Raises:
        GalleryError: nothing was.
    """
    gallery = open_gallery(path)
    previous = _put_aside(gallery)
    if previous is None:
        raise GalleryError(f"gallery {gallery.label} was never switched: there is nothing to roll back to")
    return previous


def roll_back(path: Path | str, *, accept: Difference | None = None) -> int:
    """Undoes the last switch; another one undoes that. Returns the version.

    Raises:
        GalleryError: as of :func:`switch`, or there was no switch.
    """
    gallery, previous = open_gallery(path), previous_of(path)
    if isinstance(gallery, SharedGallery):
        return _switch_shared(gallery, previous, accept)
    _exchange(Path(path), Path(path) / PREVIOUS, accept)
    return Gallery.open(path).version


def remove_person(gallery: OpenGallery, identity: str) -> Person:
    """Removes a person (id or name) from the gallery, from the one that a switch has put aside, and their crops.

    Raises:
        GalleryError: nobody is called that, or something cannot be written.
    """
    person = gallery.remove(identity)
    previous = _put_aside(gallery)
    if previous and any(other.identity_id == person.identity_id for other in previous.people()):
        previous.remove(person.identity_id)
    prune_crops(gallery)
    return person


def prune_crops(gallery: OpenGallery) -> int:
    """Removes the crops of samples that neither the gallery nor the one put aside has any more; returns how many.

    Raises:
        GalleryError: one cannot be removed.
    """
    if gallery.folder is None:
        return 0
    galleries = [gallery, *filter(None, [_put_aside(gallery)])]
    live = {sample.sample_id for each in galleries for person in each.people() for sample in person.samples}
    return CropStore(gallery.folder).prune(live)


def _opened(gallery: OpenGallery | Path | str) -> OpenGallery:
    return gallery if isinstance(gallery, OpenGallery) else open_gallery(gallery)


def _put_aside(gallery: OpenGallery) -> OpenGallery | None:
    if isinstance(gallery, SharedGallery):
        return previous_shared(gallery)
    folder = gallery.folder
    return Gallery.open(folder / PREVIOUS) if folder and Gallery.exists(folder / PREVIOUS) else None


def _switch_shared(gallery: SharedGallery, new: OpenGallery, accept: Difference | None) -> int:
    _check(gallery.label, new.label, difference(gallery, new), accept)
    return switch_shared(gallery, new.state)


def _exchange(folder: Path, source: Path, accept: Difference | None) -> None:
    store, source_store, aside = SnapshotStore(folder), SnapshotStore(source), SnapshotStore(folder / PREVIOUS)
    with store.locked(), aside.locked():
        _check(folder, source, difference(folder, source), accept)
        before, after = store.read(), source_store.read()
        _copy_crops(source, folder)
        aside.write(before.files, _own_fields(before))
        store.write(after.files, _own_fields(after))


def _check(old: object, new: object, changes: Difference, accept: Difference | None) -> None:
    if changes and changes != accept:
        raise GalleryError(
            f"galleries {old} and {new} hold other people ({changes}): "
            "enroll or remove them first, or give --accept-differences"
        )


def _copy_crops(source: Path, folder: Path) -> None:
    """The crops of both stay, since either gallery may come back."""
    if not CropStore(source).exists or source.parent == folder:
        return
    CropStore(source).copy_files(CropStore(folder))


def _own_fields(snapshot: Snapshot) -> dict[str, object]:
    return {name: value for name, value in snapshot.manifest.items() if name not in {"version", "files"}}


def _batches(gallery: OpenGallery) -> Iterator[list[Sample]]:
    samples = [sample for person in gallery.people() for sample in person.samples]
    for first in range(0, len(samples), _BATCH):
        yield samples[first : first + _BATCH]


def _photos_by_digest(folder: Path) -> dict[str, Path]:
    found = {}
    for path in list_photos(folder):
        try:
            found[hashlib.sha256(path.read_bytes()).hexdigest()] = path
        except OSError as error:
            raise SourceError(f"photo {path}: {error.strerror or error}") from None
    return found


def _face_of_photo(path: Path | None, detector: FaceDetector) -> Crop | None:
    """The face that the photo shows, as at its enrolment; None where it is not there or shows none any more."""
    if path is None:
        return None
    image = read_photo(path)
    (found,) = detector.detect([image])
    chosen, reason = choose_face(found, image.shape[1::-1])
    return None if reason else cut_crop(image, chosen)


def _enroll(
    faces: Sequence[tuple[Sample, Crop]],
    names: dict[str, str],
    new: OpenGallery,
    embedder: FaceEmbedder,
    crops: CropStore | None,
    new_crops: CropStore | None,
) -> None:
    if not faces:
        return
    chips = [embedder.align(crop.image, crop.detections) for _, crop in faces]
    vectors = embedder.embed(Chips(np.concatenate([chip.images for chip in chips]), chips[0].channel_order)).vectors
    stored = new.add(
        [
            NewSample(names[old.identity_id], vector, old.photo, old.photo_sha256, old.photo_hash, old.quality,
                      old.identity_id)
            for (old, _), vector in zip(faces, vectors, strict=True)
        ]
    )  # fmt: skip
    if new_crops and crops:
        kept = crops.sample_ids()
        for (old, crop), sample in zip(faces, stored, strict=True):
            if sample and old.sample_id in kept:
                crops.copy(old.sample_id, new_crops, sample.sample_id)
            elif sample:
                new_crops.add(sample.sample_id, crop)


def is_calibrated(path: Path | str) -> bool:
    """Whether the gallery has a calibrated threshold."""
    gallery = open_gallery(path)
    return gallery.threshold is not None or bool(gallery.camera_thresholds)
