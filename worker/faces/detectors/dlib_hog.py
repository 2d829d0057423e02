"""dlib's frontal face detector: histograms of oriented gradients and a sliding window (Dalal and Triggs 2005)."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.faces.detectors.one_by_one import SURE_SCORE
from worker.faces.engines.dlib import DlibFaces
from worker.types import Detections, Image

WINDOW_PX: Final = 80
_THRESHOLD: Final = -0.3
_SHARPNESS: Final = 2.0
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)
_NOSE, _LEFT_MOUTH, _RIGHT_MOUTH = 30, 48, 54


class DlibHog:
    """Finds the faces of one picture; see :class:`worker.faces.detectors.one_by_one.Search`.

    The window has a fixed size, so the picture is scaled until the smallest face wanted fills it: small faces cost
    a large picture, and ``max_side_px`` limits both.

    Args:
        predictor: file of dlib's 68-point shape predictor.
        max_side_px: the scaled picture is no larger than this.
    """

    def __init__(self, predictor: Path, max_side_px: int) -> None:
        self._faces = DlibFaces(predictor, _THRESHOLD)
        self._max_side_px = max_side_px

    def __call__(self, image: Image, min_face_px: float, /) -> Detections:
        height, width = image.shape[:2]
        scale = min(WINDOW_PX / min_face_px, self._max_side_px / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        scaled = image if size == (width, height) else cv2.resize(image, size, interpolation=method)
        boxes, margins, points = self._faces(np.asarray(scaled, np.uint8))
        back = np.array([width / size[0], height / size[1]], np.float32)
        return Detections(boxes * np.tile(back, 2), _of_our_scale(margins), _five_of_68(points) * back)


def _of_our_scale(margins: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of MTCNN's scale: ``SURE_SCORE`` at the margin 0 at which dlib itself calls something a face."""
    scores: NDArray[np.float32] = 1 - (1 - SURE_SCORE) * np.exp(-_SHARPNESS * margins)
    return scores


def _five_of_68(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Eyes, tip of the nose and corners of the mouth (n, 5, 2), left and right as seen in the picture."""
    eyes = [points[:, eye].mean(axis=1) for eye in (_LEFT_EYE, _RIGHT_EYE)]
    five: NDArray[np.float32] = np.stack([*eyes, *(points[:, i] for i in (_NOSE, _LEFT_MOUTH, _RIGHT_MOUTH))], axis=1)
    return five
