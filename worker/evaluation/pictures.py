"""One photo against others: is this the same person? The answers are pictures for people to look at, and data."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from worker import boxes as box
from worker.errors import SourceError
from worker.faces.detection import FaceDetector, only_central
from worker.faces.embedding import FaceEmbedder, embed_faces
from worker.files import writing
from worker.types import Detections, Embeddings, Image
from worker.video.drawing import FaceKind, Tile, contact_sheet, draw_faces, save_picture
from worker.video.photos import read_photo

SUMMARY_NAME: Final = "summary.png"
DATA_NAME: Final = "report.jsonl"
_PICTURE_PX: Final = 480
_THUMBNAIL_PX: Final = 240
_AROUND: Final = 1.9
_STEM_LENGTH: Final = 80


@dataclass(frozen=True, slots=True)
class Probe:
    """The face with which others are compared: in its photo, the one nearest the centre."""

    path: Path
    image: Image
    face: Detections
    embedding: Embeddings


@dataclass(frozen=True, slots=True)
class ComparedFace:
    """One face of a photo and how similar it is to the probe, or a photo without a face.

    ``reason`` is empty for a face. For a photo without one it is ``no_face`` or ``unreadable``, ``detail`` explains it
    for people to read, and ``similarity`` and ``same`` mean nothing. ``number`` counts the faces of a photo from 1.
    """

    path: Path
    image: Image
    face: Detections
    number: int = 0
    similarity: float = -1.0
    same: bool = False
    reason: str = ""
    detail: str = ""

    @property
    def kind(self) -> FaceKind:
        return "rejected" if self.reason else "known" if self.same else "unknown"

    @property
    def caption(self) -> str:
        if self.reason:
            return self.reason.replace("_", " ")
        similarity = round(self.similarity, 2) + 0.0  # no minus before a zero
        return f"{'same person' if self.same else 'different'} {similarity:.2f}"


class FaceComparer:
    """Compares the faces of photos with the probe.

    Args:
        threshold: cosine from which two faces are one person.
    """

    def __init__(self, detector: FaceDetector, embedder: FaceEmbedder, threshold: float) -> None:
        self._detector, self._embedder, self.threshold = detector, embedder, threshold

    def probe(self, path: Path, image: Image) -> Probe:
        """The probe in a photo.

        Raises:
            SourceError: the photo shows no face.
        """
        face = only_central(self._detector.detect([image])[0], image)
        if not len(face):
            raise SourceError(f"{path}: no face found; use a photo in which the face is larger or turned to the camera")
        return Probe(path, image, face, self._embedder.embed(self._embedder.align(image, face)))

    def compare(self, probe: Probe, paths: Iterable[Path]) -> Iterator[ComparedFace]:
        """Each face of each photo, compared with the probe. A photo without a face gives one entry with the reason."""
        for path in paths:
            try:
                image = read_photo(path)
            except SourceError as error:
                blank = np.full((8, 8, 3), 225, np.uint8)
                yield ComparedFace(path, blank, Detections.empty(), reason="unreadable", detail=str(error))
                continue
            faces, embeddings = embed_faces(image, self._detector, self._embedder)
            if not len(faces):
                yield ComparedFace(path, image, faces, reason="no_face", detail=f"{path}: no face found")
            similarities = (embeddings.vectors @ probe.embedding.vectors[0]).tolist()
            for row, similarity in enumerate(similarities):
                face = faces.take(np.array([row]))
                yield ComparedFace(path, image, face, row + 1, similarity, similarity >= self.threshold)


class PictureWriter:
    """Writes a picture of each face to a folder. At the end, :meth:`summarise` writes a sheet of all of them.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, probe: Probe) -> None:
        self._folder, self._probe = folder, probe
        picture = _portrait(probe.image, probe.face, "probe", "plain")
        self._tiles = [Tile(_shrunk(picture, _THUMBNAIL_PX), f"{probe.path.name} probe", "plain")]
        self._faces = self._same = 0
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        save_picture(picture, folder / "probe.png")

    def add(self, compared: ComparedFace) -> Path | None:
        """Writes the picture of a face; returns its path, or None if there is no face."""
        if compared.reason:
            self._tiles.append(
                Tile(_shrunk(compared.image, _THUMBNAIL_PX), f"{compared.path.name} {compared.caption}", compared.kind)
            )
            return None
        self._faces, self._same = self._faces + 1, self._same + compared.same
        picture = _portrait(compared.image, compared.face, compared.caption, compared.kind)
        name = f"{self._faces:03}-{compared.path.stem[:_STEM_LENGTH]}-{compared.number}.png"
        save_picture(picture, self._folder / name)
        self._tiles.append(
            Tile(_shrunk(picture, _THUMBNAIL_PX), f"{compared.path.name} {compared.caption}", compared.kind)
        )
        return self._folder / name

    def summarise(self, model_id: str, threshold: float) -> Path:
        """Writes the sheet of the probe and all faces; returns its path."""
        path = self._folder / SUMMARY_NAME
        title = f"{self._same} of {self._faces} faces are the person of {self._probe.path.name}"
        contact_sheet(self._tiles, path, title=f"{title} (cosine from {threshold:.2f}, {model_id})")
        return path


def face_document(compared: ComparedFace, picture: Path | None, threshold: float, model_id: str) -> dict[str, Any]:
    """``compared`` in JSON types. Without a face ``box``, ``score``, ``similarity`` and the like are None."""
    seen = not compared.reason
    return {
        "path": str(compared.path),
        "face": compared.number if seen else None,
        "box": _rounded(compared.face.boxes[0].tolist()) if seen else None,
        "landmarks": [_rounded(point) for point in compared.face.landmarks[0].tolist()] if seen else None,
        "score": round(float(compared.face.scores[0]), 4) if seen else None,
        "similarity": round(compared.similarity, 6) if seen else None,
        "threshold": threshold,
        "same": compared.same if seen else None,
        "reason": compared.reason,
        "model_id": model_id,
        "picture": picture.name if picture else None,
    }


def _portrait(image: Image, face: Detections, label: str, kind: FaceKind) -> Image:
    """The face and its surroundings, always at the same size, with box, landmarks and ``label``."""
    height, width = image.shape[:2]
    around = box.clip(box.expand(box.square(face.boxes), _AROUND), width, height)[0]
    x1, y1, x2, y2 = np.rint(around).astype(int).tolist()
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    scale = _PICTURE_PX / max(x2 - x1, y2 - y1)
    size = (max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture = np.asarray(cv2.resize(image[y1:y2, x1:x2], size, interpolation=method), np.uint8)
    corner = np.array([x1, y1], np.float32)
    boxes = (face.boxes - np.tile(corner, 2)) * scale
    return draw_faces(picture, boxes, [label], (face.landmarks - corner) * scale, kinds=[kind])


def _shrunk(image: Image, side_px: int) -> Image:
    """``image`` with sides of at most ``side_px``, because the sheet holds many pictures."""
    scale = side_px / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]
