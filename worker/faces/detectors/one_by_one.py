"""Makes a detector of a search that takes one picture at a time."""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from worker import boxes as box
from worker.config import DetectionConfig
from worker.observer import Observer
from worker.types import Detections, Image

SURE_SCORE: Final = 0.9
"""The score at which MTCNN is sure of a face. Thresholds all over the configuration are made for its scale. So each
detector brings its own scores to that scale: at its customary operating point the score is this."""
_LOOK_SIDES: Final = 2.0
_SMALLEST_SHARE: Final = 0.3
_SAME_FACE: Final = 0.3
_MOVED_IOU: Final = 0.2


class Search(Protocol):
    """Finds the faces of one picture."""

    def __call__(self, image: Image, min_face_px: float, /) -> Detections:
        """Faces of at least about ``min_face_px`` in a uint8 RGB picture, in its px, with scores of MTCNN's scale."""
        ...


class OneByOneDetector:
    """Finds faces in batches of pictures of any sizes with a :class:`Search`. Not safe for concurrent calls."""

    def __init__(self, search: Search, config: DetectionConfig, *, observer: Observer | None = None) -> None:
        self._search = search
        self._min_face_px = config.min_face_px
        self._observer = observer or Observer()

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """See :class:`worker.faces.detection.FaceDetector`."""
        require_images(images)
        if not images:
            return []
        self._observer.batch("detect", len(images))
        with self._observer.stage("detect"):
            return [self._faces(image, self._min_face_px) for image in images]

    def follow(self, images: Sequence[Image], expected: Sequence[NDArray[np.float32]]) -> list[Detections]:
        """See :class:`worker.faces.detection.FaceDetector`: the search, on cut-outs around the expected boxes."""
        if not any(map(len, expected)):
            return [Detections.empty() for _ in images]
        with self._observer.stage("follow"):
            return [self._look_around(image, boxes) for image, boxes in zip(images, expected, strict=True)]

    def _look_around(self, image: Image, expected: NDArray[np.float32]) -> Detections:
        found = [self._look_at(image, wanted) for wanted in expected]
        return _distinct([face for face in found if len(face)])

    def _look_at(self, image: Image, wanted: NDArray[np.float32]) -> Detections:
        """The face that overlaps the box ``wanted`` most; none if no face does."""
        height, width = image.shape[:2]
        around = box.clip(box.expand(box.square(wanted[None]), _LOOK_SIDES), width, height)[0]
        x1, y1, x2, y2 = np.rint(around).astype(int).tolist()
        if x2 <= x1 or y2 <= y1:
            return Detections.empty()
        side = float((wanted[2:] - wanted[:2]).max())
        found = self._faces(image[y1:y2, x1:x2], max(1.0, side * _SMALLEST_SHARE))
        if not len(found):
            return found
        corner = np.array([x1, y1], np.float32)
        found = Detections(found.boxes + np.tile(corner, 2), found.scores, found.landmarks + corner)
        overlap = box.iou_matrix(found.boxes, wanted[None])[:, 0]
        best = int(overlap.argmax())
        return found.take(np.array([best] if overlap[best] >= _MOVED_IOU else [], np.int64))

    def _faces(self, image: Image, min_face_px: float) -> Detections:
        """Best score first; none in a picture smaller than the smallest face."""
        if min(image.shape[:2]) < min_face_px:
            return Detections.empty()
        found = self._search(np.ascontiguousarray(image), min_face_px)
        return found.take(np.argsort(-found.scores, kind="stable"))


def require_images(images: Sequence[Image]) -> None:
    """Refuses what is not a picture.

    Raises:
        ValueError: an image is not uint8 (H, W, 3); the message says which.
    """
    for index, image in enumerate(images):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"image {index} must be uint8 (H, W, 3), not {found}")


def _distinct(faces: Sequence[Detections]) -> Detections:
    """All ``faces`` together, each only once: neighbours' cut-outs overlap."""
    if not faces:
        return Detections.empty()
    together = Detections(
        np.concatenate([face.boxes for face in faces]),
        np.concatenate([face.scores for face in faces]),
        np.concatenate([face.landmarks for face in faces]),
    )
    return together.take(box.nms(together.boxes, together.scores, _SAME_FACE))
