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

    def __init__(self, predictor: Path, side: int, padding: float) -> None:
        self._predict = dlib.shape_predictor(str(predictor))
        self._side, self._padding = side, padding

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Chips uint8 RGB (n, side, side, 3) of the boxes (n, 4), px."""
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
