"""Cut out and embed faces with dlib."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelError

try:
    import dlib
except ImportError:
    raise ModelError(
        "dlib is not installed: pip install 'facestream[dlib]', or choose another model (--model)"
    ) from None


class DlibAligner:
    """dlib's own landmarks inside a detector's box, and the chip that its network was trained on.

    The landmarks are not the detector's: dlib's are the corners of the eyes and the base of the nose.
    """

    def __init__(self, predictor: Path, side: int, padding: float, border: int = 0) -> None:
        self._predict = dlib.shape_predictor(str(predictor))
        # dlib fits the face into side / (1 + 2 * padding) px: a border at the same scale is a larger padding.
        self._side = side + 2 * border
        self._padding = ((1 + 2 * padding) * self._side / side - 1) / 2

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Chips uint8 RGB (n, side, side, 3), ``border`` px more on each side, of the boxes (n, 4), px."""
        if len(boxes) == 0:
            return np.empty((0, self._side, self._side, 3), np.uint8)
        image = np.ascontiguousarray(image)
        shapes = dlib.full_object_detections()
        for left, top, right, bottom in np.rint(boxes).astype(int).tolist():
            shapes.append(self._predict(image, dlib.rectangle(left, top, right, bottom)))
        return np.stack(dlib.get_face_chips(image, shapes, size=self._side, padding=self._padding))


class DlibNetwork:
    """dlib's face recognition ResNet: call it with uint8 RGB chips (n, 150, 150, 3)."""

    def __init__(self, path: Path) -> None:
        try:
            self._network = dlib.face_recognition_model_v1(str(path))
        except RuntimeError as error:
            raise ModelError(f"dlib cannot load {path}: {' '.join(str(error).split())}") from None
        self.device = "GPU" if dlib.DLIB_USE_CUDA else "CPU"

    def __call__(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
        """Vectors float32 (n, 128), not of unit length, as the only member of a tuple."""
        vectors = self._network.compute_face_descriptor(list(np.ascontiguousarray(batch)))
        return (np.array(vectors, np.float32).reshape(len(batch), -1),)


class DlibFaces:
    """dlib's frontal face detector (HOG, built into the library) and its 68 landmarks inside each box."""

    def __init__(self, predictor: Path, threshold: float) -> None:
        self._detector = dlib.get_frontal_face_detector()
        try:
            self._predict = dlib.shape_predictor(str(predictor))
        except RuntimeError as error:
            raise ModelError(f"dlib cannot load {predictor}: {' '.join(str(error).split())}") from None
        self._threshold = threshold

    def __call__(
        self, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Boxes (n, 4), margins of the classifier (n,) and landmarks (n, 68, 2), px, of faces of at least 80 px."""
        found, margins, _ = self._detector.run(image, 0, self._threshold)
        boxes = np.array([(f.left(), f.top(), f.right() + 1, f.bottom() + 1) for f in found], np.float32)
        points = [[(point.x, point.y) for point in self._predict(image, face).parts()] for face in found]
        count = len(found)
        return (
            boxes.reshape(count, 4), np.array(margins, np.float32), np.array(points, np.float32).reshape(count, 68, 2)
        )  # fmt: skip
