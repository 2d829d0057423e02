"""The people of a gallery are embedded again with another model, from kept crops or from their photos."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import SourceError
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.files import sha256_of
from worker.gallery.contents import NewSample, Person, Sample
from worker.gallery.crops import Crop, CropStore, cut_crop
from worker.gallery.enrolment import choose_face
from worker.gallery.gallery import Gallery
from worker.types import Chips
from worker.video.photos import list_photos, read_photo

_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class ReEmbedded:
    """What came of it: ``samples`` of ``people`` were embedded again.

    ``missing``: people without a single such sample, who must be enrolled again. ``partial``: people who have lost some
    of their samples, each with how many.
    """

    people: int
    samples: int
    missing: tuple[Person, ...]
    partial: tuple[tuple[Person, int], ...]


def re_embed(
    old: Gallery,
    new: Gallery,
    embedder: FaceEmbedder,
    *,
    crops: CropStore | None,
    new_crops: CropStore | None = None,
    photos: Path | None = None,
    detector: FaceDetector | None = None,
    advance: Callable[[int], None] = lambda _samples: None,
) -> ReEmbedded:
    """Embeds the samples of ``old`` with the model of ``new``, and adds them to it. People keep their ids and names.

    Args:
        old: the gallery in use.
        new: where the people go. Samples that it has already are not touched.
        embedder: the embedder of ``new``.
        crops: the crops of ``old``; None if it cannot have crops.
        new_crops: if given, keeps the crops for ``new`` as well.
        photos: a folder; if a sample has no crop, its photo is looked for there by its digest.
        detector: finds the faces in those photos; needed with ``photos``.
        advance: called with how many further samples are done.

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


def _batches(gallery: Gallery) -> Iterator[list[Sample]]:
    samples = [sample for person in gallery.people() for sample in person.samples]
    for first in range(0, len(samples), _BATCH):
        yield samples[first : first + _BATCH]


def _photos_by_digest(folder: Path) -> dict[str, Path]:
    found = {}
    for path in list_photos(folder):
        try:
            found[sha256_of(path)] = path
        except OSError as error:
            raise SourceError(f"photo {path}: {error.strerror or error}") from None
    return found


def _face_of_photo(path: Path | None, detector: FaceDetector) -> Crop | None:
    """The face of the photo, chosen as at enrolment; None if there is no photo, or no face can be chosen."""
    if path is None:
        return None
    image = read_photo(path)
    (found,) = detector.detect([image])
    chosen, reason = choose_face(found, image.shape[1::-1])
    return None if reason else cut_crop(image, chosen)


def _enroll(
    faces: Sequence[tuple[Sample, Crop]],
    names: dict[str, str],
    new: Gallery,
    embedder: FaceEmbedder,
    crops: CropStore | None,
    new_crops: CropStore | None,
) -> None:
    if not faces:
        return
    chips = [embedder.align(crop.image, crop.detections) for _, crop in faces]
    vectors = embedder.embed(Chips.joined(chips)).vectors
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
