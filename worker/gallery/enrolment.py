"""Photos become people of a gallery, with the detector and the embedder that the stream uses too."""

import functools
import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.boxes import area
from worker.errors import SourceError
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.faces.quality import REJECT_BELOW, assess, looks_enlarged
from worker.gallery.contents import NewSample, Sample, new_identity_id
from worker.gallery.crops import Crop, CropStore, cut_crop
from worker.gallery.gallery import Gallery
from worker.logs import get_logger
from worker.names import clean_text, is_unicode, person_name
from worker.types import Candidate, Chips, Detections, Image
from worker.video.photos import in_batches, list_photos, read_file, read_photo

BATCH_PHOTOS: Final = 16
_COMMIT_PHOTOS: Final = 64
DOMINANT_AREA_RATIO: Final = 4.0
"""The largest face of a photo is the one to enrol if its area is this many times the area of the next."""
CENTRAL_SIDE: Final = 0.35
"""The largest face is also the one to enrol if no other face covers the photo's centre and its side is at least this
share of the photo's shorter side. Other people in such a picture stand behind or are cut off: this is so on 1 in 10
photos of Labeled Faces in the Wild. People of that size side by side do not fit in a photo."""
_SURE_SCORE: Final = 0.9
"""Faces below this detection score count only if the photo has no other face."""
NEAR_DUPLICATE_BITS: Final = 10
"""Two photos of one person are copies of one picture if their 256-bit hashes differ in at most this many bits."""
_COPY: Final = re.compile(r" ?\(\d{1,3}\)$")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """What became of one photo.

    ``reason`` is empty if the photo was taken and there is nothing to say. Reasons for not taking it: ``unreadable``,
    ``no_name``, ``no_face``, ``several_faces``, ``duplicate_photo``, ``near_duplicate``, or what is wrong with the face
    (``too_small``, ``blurred``, ``pose``, ``exposure``, ``low_score``). A warning about a photo that was taken:
    ``nearer_to_another_person``. ``detail`` says more, for people to read. ``quality`` is 0..1; it is 0 if no face was
    judged.
    """

    path: Path
    identity_id: str
    identity_name: str
    accepted: bool
    reason: str = ""
    quality: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Photo:
    path: Path
    name: str
    sha256: str
    image: Image


@dataclass(frozen=True, slots=True)
class _Face:
    """The one face of a photo that can be enrolled."""

    photo: _Photo
    detections: Detections
    photo_hash: str
    quality: float


def enroll_photos(
    photos: Path | Iterable[Path],
    gallery: Gallery,
    detector: FaceDetector,
    embedder: FaceEmbedder,
    *,
    min_quality: float = REJECT_BELOW,
    crops: CropStore | None = None,
) -> Iterator[PhotoResult]:
    """As :func:`enroll_named`, for folders and single ``photos``; see :func:`people_of` for whom a photo shows.

    Raises:
        GalleryError: as :func:`enroll_named`.
        SourceError: a path does not exist or holds no photos.
    """
    gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
    paths = [photos] if isinstance(photos, Path) else list(photos)
    named = [photo for path in paths for photo in people_of(path)]
    return enroll_named(named, gallery, detector, embedder, min_quality=min_quality, crops=crops)


def enroll_named(
    named: Sequence[tuple[Path, str]],
    gallery: Gallery,
    detector: FaceDetector,
    embedder: FaceEmbedder,
    *,
    min_quality: float = REJECT_BELOW,
    crops: CropStore | None = None,
    lie_at: Mapping[Path, Path] | None = None,
) -> Iterator[PhotoResult]:
    """Enrols photos into ``gallery``; yields what became of each photo, once that is stored. An interrupted run keeps
    what it has taken so far.

    Args:
        named: each photo with the name of the person whom it shows.
        gallery: where the people go.
        detector: the detector of the stream, perhaps set to look for smaller faces.
        embedder: the embedder that the gallery was made with.
        min_quality: faces below this quality (0..1) are not taken.
        crops: if given, keeps the face of each photo that is taken.
        lie_at: where a photo is read from whose path says only what it is called.

    Raises:
        GalleryError: the gallery was made with another model, or the gallery or the crops cannot be written.
    """
    gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
    if crops:
        crops.open_for_writing()
    enrolment = _Enrolment(gallery, detector, embedder, [photo for photo, _ in named], min_quality, crops)
    _tell_of_similar_names({name for _, name in named}, enrolment.known_names)
    try:
        for batch in in_batches(_read_all(named, enrolment, lie_at or {}), BATCH_PHOTOS):
            enrolment.take([photo for photo, _ in batch])
            if enrolment.waiting >= max(_COMMIT_PHOTOS, gallery.sample_count // 8):
                yield from enrolment.commit()
        yield from enrolment.commit()
    finally:
        enrolment.commit()


def people_of(path: Path) -> list[tuple[Path, str]]:
    """The photos at ``path``, each with the name of the person whom it shows.

    A photo in a subfolder of ``path`` shows the person whose name is the name of that subfolder. Any other photo shows
    the person whose name is the name of its file. Names are put into one form, see :func:`worker.names.person_name`;
    a name of nothing but blanks becomes an empty one.

    Raises:
        SourceError: ``path`` does not exist or holds no photos.
    """
    named = []
    for photo in list_photos(path):
        below = photo.relative_to(path).parts if path.is_dir() else (photo.name,)
        given = below[0] if len(below) > 1 else photo.stem
        name = person_name(given)
        if not is_unicode(given):
            _tell_of_encoding(str(path), name)
        named.append((photo, name))
    return named


@functools.lru_cache(maxsize=1000)
def _tell_of_encoding(folder: str, name: str) -> None:
    """Says it once for each name."""
    _log.warning("a name is no UTF-8 and was read as Windows-1252", folder=clean_text(folder), name=name)


def _tell_of_similar_names(new: set[str], known: Collection[str]) -> None:
    """Warns of names that may be one person's: they differ in capital letters, or one bears the number of a copy."""
    alike = defaultdict[str, set[str]](set)
    for name in new.union(known):
        alike[_COPY.sub("", name).casefold()].add(name)
    for names in alike.values():
        if len(names) > 1 and names & new:
            _log.warning("names that differ little are different people", names=", ".join(sorted(names)))


def choose_face(detections: Detections, image_size: tuple[int, int]) -> tuple[Detections, str]:
    """The one face to enrol in a photo of ``image_size`` (width, height in px), and an empty reason; or, if none can be
    chosen, all faces and the reason: ``no_face`` or ``several_faces``."""
    if not len(detections):
        return detections, "no_face"
    sure = detections.take(detections.scores >= _SURE_SCORE)
    detections = sure if len(sure) else detections
    areas = area(detections.boxes)
    order = np.argsort(areas)[::-1]
    dominant = len(order) == 1 or areas[order[0]] >= DOMINANT_AREA_RATIO * areas[order[1]]
    if dominant or _is_portrait(detections.boxes[order], image_size):
        return detections.take(order[:1]), ""
    return detections, "several_faces"


def _is_portrait(boxes: NDArray[np.float32], image_size: tuple[int, int]) -> bool:
    """Whether the first of ``boxes``, the largest, is large for the photo and the only one that covers its middle."""
    centre = np.array(image_size, np.float32) / 2
    covers = np.all((boxes[:, :2] <= centre) & (centre <= boxes[:, 2:]), axis=1)
    side = float(np.sqrt(area(boxes[:1])[0]))
    return bool(covers[0] and covers.sum() == 1 and side >= CENTRAL_SIDE * min(image_size))


def hash_photo(image: Image) -> str:
    """A perceptual hash of 256 bits as hex. It stays nearly the same if a picture is scaled or compressed again.

    This is the difference hash: whether each cell of a 16 x 17 grey thumbnail is brighter than its left neighbour.
    """
    thumbnail = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (17, 16), interpolation=cv2.INTER_AREA)
    return np.packbits(thumbnail[:, 1:] > thumbnail[:, :-1]).tobytes().hex()


def hash_distance(a: str, b: str) -> int:
    """The number of bits in which two hashes differ."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


class _Enrolment:
    """The photos of one call of :func:`enroll_photos`: decided on in batches, stored in larger chunks."""

    def __init__(
        self,
        gallery: Gallery,
        detector: FaceDetector,
        embedder: FaceEmbedder,
        photos: Sequence[Path],
        min_quality: float,
        crops: CropStore | None,
    ) -> None:
        self._min_quality, self._crop_store, self._crops = min_quality, crops, list[Crop]()
        self._order = {photo: position for position, photo in enumerate(photos)}
        self._gallery = gallery
        self._detector = detector
        self._embedder = embedder
        self._threshold = embedder.threshold if gallery.threshold is None else gallery.threshold
        self._ids: dict[str, str] = {}
        self._photos: dict[str, str] = {}
        self._hashes: dict[str, list[tuple[str, str]]] = {}
        for person in gallery.people():
            name = person_name(person.name)
            self._ids.setdefault(name, person.identity_id)
            self._photos |= {sample.photo_sha256: sample.photo for sample in person.samples}
            hashed = [(sample.photo_hash, sample.photo) for sample in person.samples if sample.photo_hash]
            self._hashes.setdefault(name, []).extend(hashed)
        self._results: list[PhotoResult] = []
        self._samples: list[NewSample] = []

    @property
    def known_names(self) -> Collection[str]:
        """The names of the people of the gallery, in the form that :func:`worker.names.person_name` gives."""
        return self._ids.keys()

    @property
    def waiting(self) -> int:
        """How many photos were decided on and are not committed yet."""
        return len(self._results)

    def refuse(self, path: Path, name: str, reason: str, detail: str = "", quality: float = 0.0) -> None:
        """Notes that a photo is not taken."""
        self._results.append(PhotoResult(path, self._ids.get(name, ""), name, False, reason, quality, detail))

    def note(self, photo: str, sha256: str) -> str:
        """Remembers a photo by its digest; returns the earlier photo with the same bytes, or an empty string."""
        known = self._photos.get(sha256, "")
        self._photos.setdefault(sha256, photo)
        return known

    def take(self, photos: Sequence[_Photo]) -> None:
        """Decides on a batch of photos."""
        found = self._detector.detect([photo.image for photo in photos])
        faces = [face for photo, faces in zip(photos, found, strict=True) if (face := self._fit_face(photo, faces))]
        if not faces:
            return
        chips = [self._embedder.align(face.photo.image, face.detections) for face in faces]
        embeddings = self._embedder.embed(Chips.joined(chips))
        nearest = self._gallery.search(embeddings)
        for face, vector, candidate in zip(faces, embeddings.vectors, nearest, strict=True):
            self._accept(face, vector, candidate)

    def commit(self) -> list[PhotoResult]:
        """Stores what was taken since the last commit, as one version; returns what became of each photo."""
        results, samples = self._results, self._samples
        if not results:
            return []
        stored = self._gallery.add(samples)  # an interrupt before this line leaves everything to the last commit
        crops, self._results, self._samples, self._crops = self._crops, [], [], []
        for sample, crop in zip(stored, crops, strict=bool(self._crop_store)):
            if sample and self._crop_store:
                self._crop_store.add(sample.sample_id, crop)
        of_results = iter(stored)
        final = [_as_stored(result, next(of_results)) if result.accepted else result for result in results]
        return sorted(final, key=lambda result: self._order[result.path])

    def _fit_face(self, photo: _Photo, detections: Detections) -> _Face | None:
        chosen, reason = choose_face(detections, photo.image.shape[1::-1])
        if reason:
            detail = f"{len(detections)} faces of similar size" if reason == "several_faces" else ""
            self.refuse(photo.path, photo.name, reason, detail)
            return None
        quality = assess(photo.image, chosen, self._min_quality)
        score = float(quality.scores[0])
        if quality.reasons[0]:
            self.refuse(photo.path, photo.name, quality.reasons[0], quality=score)
            return None
        if self._min_quality > 0 and looks_enlarged(photo.image, chosen.boxes[0]):
            self.refuse(photo.path, photo.name, "blurred", "a tiny face that was enlarged", score)
            return None
        photo_hash = hash_photo(photo.image)
        for known_hash, known_photo in self._hashes.get(photo.name, ()):
            if hash_distance(photo_hash, known_hash) <= NEAR_DUPLICATE_BITS:
                self.refuse(photo.path, photo.name, "near_duplicate", f"the same picture as {known_photo}", score)
                return None
        self._hashes.setdefault(photo.name, []).append((photo_hash, clean_text(photo.path.name)))
        return _Face(photo, chosen, photo_hash, score)

    def _accept(self, face: _Face, vector: NDArray[np.float32], candidate: Candidate) -> None:
        name = face.photo.name
        identity_id = self._ids.setdefault(name, new_identity_id())
        rival = self._nearer_person(name, vector, candidate)
        reason, detail = ("nearer_to_another_person", f"looks like {rival}") if rival else ("", "")
        self._samples.append(
            NewSample(name, vector, face.photo.path.name, face.photo.sha256, face.photo_hash, face.quality, identity_id)
        )
        if self._crop_store:
            self._crops.append(cut_crop(face.photo.image, face.detections))
        self._results.append(PhotoResult(face.photo.path, identity_id, name, True, reason, face.quality, detail))

    def _nearer_person(self, name: str, vector: NDArray[np.float32], candidate: Candidate) -> str:
        """Another person, stored or about to be stored, who is nearest to this face and would be recognised in it."""
        nearest, similarity = person_name(candidate.identity_name), candidate.similarity
        if self._samples:
            similarities = np.stack([sample.vector for sample in self._samples]) @ vector
            row = int(similarities.argmax())
            if similarities[row] > similarity:
                nearest, similarity = self._samples[row].identity_name, float(similarities[row])
        return nearest if nearest != name and similarity >= self._threshold else ""


def _read_all(
    named: Iterable[tuple[Path, str]], enrolment: _Enrolment, lie_at: Mapping[Path, Path]
) -> Iterator[tuple[_Photo, Image]]:
    """Each photo that can be read, as :func:`worker.video.photos.in_batches` takes them; the others are refused."""
    for path, name in named:
        if photo := _read(path, name, enrolment, lie_at.get(path, path)):
            yield photo, photo.image


def _read(path: Path, name: str, enrolment: _Enrolment, lies_at: Path) -> _Photo | None:
    if not name:
        enrolment.refuse(path, name, "no_name", "its name, or that of its folder, has no letters")
        return None
    try:
        sha256 = hashlib.sha256(read_file(lies_at)).hexdigest()
        if known := enrolment.note(clean_text(path.name), sha256):
            enrolment.refuse(path, name, "duplicate_photo", f"the same file as {known}")
            return None
        return _Photo(path, name, sha256, read_photo(lies_at))
    except OSError as error:
        enrolment.refuse(path, name, "unreadable", error.strerror or str(error))
    except SourceError as error:
        enrolment.refuse(path, name, "unreadable", str(error).replace(str(lies_at), str(path)))
    return None


def _as_stored(result: PhotoResult, stored: Sample | None) -> PhotoResult:
    """``result`` as the gallery stored it: another process may have enrolled the same photo or person meanwhile."""
    if stored is None:
        return replace(result, accepted=False, reason="duplicate_photo", detail="enrolled meanwhile")
    return replace(result, identity_id=stored.identity_id)
