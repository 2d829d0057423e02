"""One face of each of many photos, embedded in batches: what evaluation and calibration compare."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.errors import SourceError
from worker.faces.detection import FaceDetector, only_central
from worker.faces.embedding import FaceEmbedder
from worker.logs import get_logger
from worker.types import Chips, Image
from worker.video.photos import read_photo

BATCH_PHOTOS: Final = 32
_BATCH_PIXELS: Final = 64_000_000
_EMPTY: Final = np.zeros((1, 1, 3), np.uint8)

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PhotoFaces:
    """The face nearest the centre of each photo.

    ``vectors`` float32 (n, d) of unit length, zero where ``found`` bool (n,) is false: no face, or no photo that
    can be read.
    """

    vectors: NDArray[np.float32]
    found: NDArray[np.bool_]

    @property
    def failed(self) -> int:
        """How many photos gave no face."""
        return int(np.count_nonzero(~self.found))


@dataclass(frozen=True, slots=True)
class PeopleFaces:
    """Faces of people, only of photos that show one: ``vectors`` float32 (n, d) of unit length, ``people`` int64 (n,)
    into ``names``; ``failed`` photos gave none."""

    vectors: NDArray[np.float32]
    people: NDArray[np.int64]
    names: tuple[str, ...]
    failed: int


def embed_photos(
    paths: Sequence[Path | None],
    detector: FaceDetector,
    embedder: FaceEmbedder,
    *,
    advance: Callable[[int], None] = lambda _count: None,
) -> PhotoFaces:
    """Embeds the face nearest the centre of each photo; ``advance`` is told how many photos are done.

    A photo that cannot be read is reported in the log and counts as one without a face; so does None, a photo that is
    not there.
    """
    vectors = np.zeros((len(paths), embedder.dimension), np.float32)
    found = np.zeros(len(paths), bool)
    for batch in _batches(paths):
        rows, images = [row for row, _ in batch], [image for _, image in batch]
        faces = [only_central(seen, image) for seen, image in zip(detector.detect(images), images, strict=True)]
        chips = [embedder.align(image, face) for image, face in zip(images, faces, strict=True)]
        with_face = [row for row, face in zip(rows, faces, strict=True) if len(face)]
        vectors[with_face] = embedder.embed(Chips.joined(chips)).vectors
        found[with_face] = True
        advance(len(batch))
    return PhotoFaces(vectors, found)


def people_faces(named: Sequence[tuple[Path, str]], faces: PhotoFaces) -> PeopleFaces:
    """The ``faces`` of photos that show the people they are ``named`` after."""
    owners = [name for (_, name), found in zip(named, faces.found.tolist(), strict=True) if found]
    names, people = np.unique(np.array(owners, dtype=np.str_), return_inverse=True)
    return PeopleFaces(faces.vectors[faces.found], people.astype(np.int64), tuple(names.tolist()), faces.failed)


def _batches(paths: Sequence[Path | None]) -> Iterator[list[tuple[int, Image]]]:
    """Photos with their positions, a few at a time, fewer where they are large."""
    batch: list[tuple[int, Image]] = []
    pixels = 0
    for position, path in enumerate(paths):
        image = _EMPTY
        try:
            image = read_photo(path) if path else image
        except SourceError as error:
            _log.warning("photo_unreadable", problem=str(error))
        batch.append((position, image))
        pixels += image.shape[0] * image.shape[1]
        if len(batch) == BATCH_PHOTOS or pixels >= _BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch
