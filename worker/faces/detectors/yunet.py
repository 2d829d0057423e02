"""YuNet (Wu et al. 2023) as OpenCV runs it: a small network that finds faces and their five landmarks at once."""

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker import boxes as box
from worker.errors import ModelError
from worker.faces.detectors.one_by_one import SURE_SCORE
from worker.types import Detections, Image

SMALLEST_PX: Final = 20
"""The smallest face wanted is brought to this size, px of the network's input. It finds faces of 12 px too, but then
takes hands and clocks for faces, and its landmarks are half as far off again."""
_LARGEST_PX: Final = 192
"""Larger faces are found twice or badly placed: they are taken from a look at a smaller picture."""
_STEP: Final = 4
_RAW_THRESHOLD: Final = 0.5
_RAW_SURE: Final = 0.7
_NMS: Final = 0.3
_SAME_FACE: Final = 0.5
_CANDIDATES: Final = 5000
_MULTIPLE: Final = 32


class YuNet:
    """Finds the faces of one picture; see :class:`worker.faces.detectors.one_by_one.Search`.

    The picture is scaled so that the smallest face wanted is ``SMALLEST_PX`` wide, then looked at again at a quarter
    of that size for faces that are large there.

    Args:
        path: the ONNX file.
        max_side_px: larger pictures are scaled down to this.

    Raises:
        ModelError: OpenCV cannot read the file.
    """

    def __init__(self, path: Path, max_side_px: int) -> None:
        self._max_side_px = max_side_px
        level = cv2.utils.logging.getLogLevel()
        # OpenCV's new engine warns on standard error about a default of its own.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._network: Any = cv2.FaceDetectorYN.create(
                str(path), "", (_MULTIPLE, _MULTIPLE), _RAW_THRESHOLD, _NMS, _CANDIDATES
            )
        except cv2.error as error:
            problem = " ".join(str(error).split())[-200:]
            raise ModelError(f"OpenCV cannot load {path}: {problem}; is it the YuNet file?") from None
        finally:
            cv2.utils.logging.setLogLevel(level)

    def __call__(self, image: Image, min_face_px: float, /) -> Detections:
        longest = max(image.shape[:2])
        scale = min(1.0, SMALLEST_PX / min_face_px, self._max_side_px / longest)
        rows = []
        while True:
            last = longest * scale <= _LARGEST_PX
            seen = self._look(image, scale)
            rows.append(seen if last else seen[seen[:, 2:4].max(axis=1, initial=0) * scale <= _LARGEST_PX])
            if last:
                break
            scale /= _STEP
        faces = np.concatenate(rows)
        boxes = np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4]], axis=1)
        wide = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= min_face_px * 0.8
        faces, boxes = faces[wide], boxes[wide]
        kept = box.nms(boxes, faces[:, 14], _SAME_FACE, overlap="min")
        # OpenCV names the sides after the person: their right eye, which comes first, is the left one in the picture.
        landmarks = faces[kept, 4:14].reshape(-1, 5, 2)
        return Detections(boxes[kept], _of_our_scale(faces[kept, 14]), landmarks)

    def _look(self, image: Image, scale: float) -> NDArray[np.float32]:
        """Faces float32 (n, 15) px of ``image``: x, y, width, height, five landmarks, score."""
        width, height = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        padded = np.zeros((-(-height // _MULTIPLE) * _MULTIPLE, -(-width // _MULTIPLE) * _MULTIPLE, 3), np.uint8)
        small = image if scale == 1 else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        padded[:height, :width] = small[..., ::-1]
        self._network.setInputSize(padded.shape[1::-1])
        _, found = self._network.detect(padded)
        if found is None:
            return np.empty((0, 15), np.float32)
        found[:, 0:14:2] *= image.shape[1] / width
        found[:, 1:14:2] *= image.shape[0] / height
        return np.asarray(found, np.float32)


def _of_our_scale(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of MTCNN's scale: linear, ``SURE_SCORE`` at the score from which YuNet is right."""
    slope = (1 - SURE_SCORE) / (1 - _RAW_SURE)
    return (SURE_SCORE + (raw - _RAW_SURE) * slope).astype(np.float32)
