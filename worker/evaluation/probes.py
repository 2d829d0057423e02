"""The probes that evaluation and calibration compare: one face of each photo, or of each track of a recording.

A probe is mated if its person is enrolled. The probes of people who are not enrolled are non-mated.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from worker.config import Config, load_config
from worker.errors import SourceError
from worker.evaluation.face_cache import FaceCache
from worker.evaluation.false_matches import NonMatedScores, strangers_against_gallery
from worker.evaluation.recordings import replay
from worker.faces.detection import FaceDetector, only_central
from worker.faces.embedding import FaceEmbedder
from worker.gallery.gallery import Gallery
from worker.logs import get_logger
from worker.names import person_name
from worker.recognition.sighting import Sighting
from worker.types import Chips, Embeddings, Image
from worker.video.folders import files_below
from worker.video.photos import in_batches, read_photo
from worker.video.picture_kinds import is_photo

VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mkv", ".avi", ".mov", ".webm", ".ts", ".m4v", ".mpg", ".mpeg"})
BATCH_PHOTOS: Final = 32
_EMPTY: Final = np.zeros((1, 1, 3), np.uint8)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PhotoFaces:
    """The face nearest the centre of each photo.

    ``vectors`` float32 (n, d) have unit length. ``found`` bool (n,) is false for a photo that shows no face or cannot
    be read; its vector is zero.
    """

    vectors: NDArray[np.float32]
    found: NDArray[np.bool_]

    @property
    def failed(self) -> int:
        """The number of photos without a vector."""
        return int(np.count_nonzero(~self.found))


@dataclass(frozen=True, slots=True)
class PeopleFaces:
    """The faces of people, without the photos in which no face was found.

    ``vectors`` float32 (n, d) have unit length. ``people`` int64 (n,) are indices into ``names``. ``photos`` are the
    paths (n). ``failed`` is the number of photos without a face.
    """

    vectors: NDArray[np.float32]
    people: NDArray[np.int64]
    names: tuple[str, ...]
    failed: int
    photos: tuple[Path, ...] = ()


def embed_photos(
    paths: Sequence[Path | None],
    detector: FaceDetector,
    embedder: FaceEmbedder,
    *,
    advance: Callable[[int], None] = lambda _count: None,
    cache: FaceCache | None = None,
) -> PhotoFaces:
    """Embeds the face nearest the centre of each photo. ``advance`` is told how many photos are done. What ``cache``
    knows is not embedded anew.

    A photo that cannot be read is reported in the log and counts as a photo without a face. None stands for a photo
    that does not exist, and counts the same.
    """
    vectors = np.zeros((len(paths), embedder.dimension), np.float32)
    found = np.zeros(len(paths), bool)
    keys: dict[int, bytes] = {}
    todo = list(enumerate(paths))
    if cache is not None:
        keys, known = _look_up(paths, cache)
        for row, vector in known.items():
            found[row] = vector is not None
            vectors[row] = 0.0 if vector is None else vector
        todo = [(row, path) for row, path in todo if row not in known]
        advance(len(known))
    for batch in in_batches(_read(todo), BATCH_PHOTOS):
        rows, images = [row for row, _ in batch], [image for _, image in batch]
        faces = [only_central(seen, image) for seen, image in zip(detector.detect(images), images, strict=True)]
        chips = [embedder.align(image, face) for image, face in zip(images, faces, strict=True)]
        with_face = [row for row, face in zip(rows, faces, strict=True) if len(face)]
        vectors[with_face] = embedder.embed(Chips.joined(chips)).vectors
        found[with_face] = True
        if cache is not None:
            cache.put([(keys[row], vectors[row] if found[row] else None) for row in rows if row in keys])
        advance(len(batch))
    return PhotoFaces(vectors, found)


def people_faces(named: Sequence[tuple[Path, str]], faces: PhotoFaces) -> PeopleFaces:
    """The ``faces`` of photos and the people whom they show. ``named`` gives the path and the person of each photo."""
    shown = [photo for photo, found in zip(named, faces.found.tolist(), strict=True) if found]
    names, people = np.unique(np.array([name for _, name in shown], dtype=np.str_), return_inverse=True)
    photos = tuple(path for path, _ in shown)
    return PeopleFaces(faces.vectors[faces.found], people.astype(np.int64), tuple(names.tolist()), faces.failed, photos)


def _look_up(
    paths: Sequence[Path | None], cache: FaceCache
) -> tuple[dict[int, bytes], dict[int, NDArray[np.float32] | None]]:
    """The keys of those photos that can be read, and the vectors of those that ``cache`` knows, by position; None
    where a photo shows no face."""
    keys: dict[int, bytes] = {}
    known: dict[int, NDArray[np.float32] | None] = {}
    for position, path in enumerate(paths):
        if path is None:
            continue
        with suppress(OSError):
            keys[position] = cache.key(path.read_bytes())
            is_known, vector = cache.get(keys[position])
            if is_known:
                known[position] = vector
    cache.touch(keys[position] for position in known)
    return keys, known


def _read(paths: Iterable[tuple[int, Path | None]]) -> Iterator[tuple[int, Image]]:
    for position, path in paths:
        image = _EMPTY
        try:
            image = read_photo(path) if path else image
        except SourceError as error:
            _log.warning("photo_unreadable", problem=str(error))
        yield position, image


@dataclass(frozen=True, slots=True)
class NonMatedProbes:
    """Probes of people who are not enrolled.

    ``similarities`` float64 (n,) are the highest similarities on which the worker decides, and ``nearest`` names the
    enrolled person to whom each belongs. ``people`` int64 (n,) says which probes count as one person. ``places`` says
    where each probe was seen.
    """

    similarities: NDArray[np.float64]
    people: NDArray[np.int64]
    nearest: tuple[str, ...]
    places: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.similarities)


@dataclass(slots=True)
class _Probe:
    vector: NDArray[np.float32]
    similarity: float
    nearest: str
    place: str


def non_mated_probes(
    paths: Sequence[Path],
    gallery: Gallery,
    photo_detector: FaceDetector,
    stream_detector: FaceDetector,
    embedder: FaceEmbedder,
    *,
    threshold: float,
    advance: Callable[[str], None] = lambda _done: None,
    cache: FaceCache | None = None,
) -> NonMatedProbes:
    """The probes in videos and photos of people who are not enrolled.

    Each track in a video is a probe, on which the worker decides as it would in service. In a photo it is the face
    nearest the centre. Probes that the model takes for one person count as one person. Look-alikes may be counted as
    one person, too, so the sample is rather counted too small than too large.

    ``threshold`` is the one in use so far. ``advance`` is told what was done, and ``cache`` knows faces of photos.

    Raises:
        SourceError: a path is missing, or holds neither videos nor photos.
    """
    videos, photos = _kinds(paths)
    probes: list[_Probe] = []
    for video in videos:
        probes += _probes_in_video(video, gallery, stream_detector, embedder, threshold)
        advance(video.name)
    faces = embed_photos(photos, photo_detector, embedder, cache=cache)
    vectors = faces.vectors[faces.found]
    shown = [photo for photo, found in zip(photos, faces.found.tolist(), strict=True) if found]
    for photo, vector, candidate in zip(
        shown, vectors, gallery.search(Embeddings(vectors, embedder.model_id)), strict=True
    ):
        probes.append(_Probe(vector, candidate.similarity, candidate.identity_name, photo.name))
    if photos:
        advance(f"{len(photos)} photos")
    return NonMatedProbes(
        np.array([probe.similarity for probe in probes], np.float64),
        group_people(_stack(probes, embedder.dimension), max(threshold, embedder.threshold)),
        tuple(probe.nearest for probe in probes),
        tuple(probe.place for probe in probes),
    )


def group_people(vectors: NDArray[np.float32], same_person: float) -> NDArray[np.int64]:
    """The number of a person for each vector, int64 (n,), from 0.

    Vectors whose groups have on average at least the similarity ``same_person`` count as one person.
    """
    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    tree = linkage(pdist(vectors, "cosine").clip(min=0), "average")
    numbers: NDArray[np.int64] = fcluster(tree, 1 - same_person, "distance").astype(np.int64) - 1
    return numbers


def _stack(probes: Sequence[_Probe], dimension: int) -> NDArray[np.float32]:
    return np.array([probe.vector for probe in probes], np.float32).reshape(-1, dimension)


def _probes_in_video(
    video: Path, gallery: Gallery, detector: FaceDetector, embedder: FaceEmbedder, threshold: float
) -> list[_Probe]:
    config: Config = load_config(
        None,
        {
            "cameras": [{"id": "strangers", "source": str(video), "policy": "every"}],
            "recognition": {"threshold": max(0.0, threshold)},
        },
    )
    probes: dict[str, _Probe] = {}

    def note(sighting: Sighting) -> None:
        match, template = sighting.match, sighting.template
        if match is None or template.count < config.recognition.min_embeddings:
            return
        place = f"{video.name} at {sighting.started_pts_s:.1f} s"
        probe = probes.setdefault(sighting.sighting_id, _Probe(template.vector, -1.0, "", place))
        probe.vector = template.vector
        if match.similarity > probe.similarity:
            probe.similarity = match.similarity
            (candidate,) = gallery.search(Embeddings(template.vector[None], embedder.model_id))
            probe.nearest = candidate.identity_name

    replay(config, detector, embedder, gallery, on_verdict=note)
    return list(probes.values())


def _kinds(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The videos and the photos among ``paths`` and in the folders among them."""
    videos: list[Path] = []
    photos: list[Path] = []
    for path in paths:
        if not path.exists():
            raise SourceError(f"no video, photo or folder at {path}")
        if path.is_file():
            # Recorders give files any name. A file that cannot be decoded gives an error when it is opened.
            (photos if path.suffix.lower() != ".gif" and is_photo(path) else videos).append(path)
            continue
        files = files_below(path).files
        found_videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        found_photos = [file for file in files if file.suffix.lower() not in VIDEO_SUFFIXES and is_photo(file)]
        if not found_videos and not found_photos:
            raise SourceError(f"{path} holds neither videos nor photos: give footage of people who are not enrolled")
        videos += found_videos
        photos += found_photos
    return videos, photos


def probes_of_people(faces: PeopleFaces, gallery: Gallery) -> tuple[NonMatedScores, str] | None:
    """``faces`` searched in ``gallery`` as probes of strangers, and in words who they are; None if it is empty.

    They are the people who are not enrolled, by name. If there are none, everybody is searched among the others of the
    gallery. Every person counts the same, however many photos show them.
    """
    if not gallery.sample_count or not len(faces.people):
        return None
    names = {person_name(person.name): person.identity_id for person in gallery.people()}
    own = np.array([names.get(person_name(name), "") for name in faces.names])[faces.people]
    apart = own == ""
    if not apart.any() and len(gallery) < 2:
        return None
    chosen = apart if apart.any() else np.ones(len(own), bool)
    found = gallery.search(Embeddings(faces.vectors[chosen], gallery.model_id))
    similarities = [
        candidate.similarity if candidate.identity_id != identity_id else candidate.runner_up
        for candidate, identity_id in zip(found, own[chosen].tolist(), strict=True)
    ]
    _, people = np.unique(faces.people[chosen], return_inverse=True)
    who = "people not enrolled, against this gallery" if apart.any() else "people of this gallery, against the others"
    return strangers_against_gallery(np.array(similarities, np.float64), people, by_person=True), who
