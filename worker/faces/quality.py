"""How fit a face is for recognition, and what makes it unfit: size, sharpness, pose, exposure, detection score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.types import Detections, Image, LazyImage, Picture

Floats = NDArray[np.float32]

REJECT_BELOW: Final = 0.2
"""A face whose weakest property scores less is refused, unless another limit is given."""
_CROP_PX: Final = 32  # smaller than a face that is large enough, so that no small one passes for blurred


_SPECTRUM_PX: Final = 64
_ENLARGED_FROM_PX: Final = 40
_LEAST_DETAIL: Final = (((16, 24), 0.012**2), ((18, 28), 0.0082**2))
"""Waves across a face, and the share of the power of coarse waves below which a face has been enlarged."""


@dataclass(frozen=True, slots=True)
class Quality:
    """``scores`` float32 (n,) 0..1, that of the face's weakest property; ``reasons``: ``""`` where the face is
    fit, else that property: ``too_small``, ``blurred``, ``pose``, ``exposure`` or ``low_score``."""

    scores: Floats
    reasons: list[str]

    def __len__(self) -> int:
        return len(self.reasons)


@dataclass(frozen=True, slots=True)
class Measures:
    """What the score is made of, float32 (n,) each.

    ``size_px``: shorter side of the box. ``sharpness``: variance of the Laplacian over the variance of the grey
    values, of the face at 32 px. ``yaw``: how far the nose is off the middle of the eyes, 0 frontal, 1 above an eye.
    ``pitch``: how far down the nose is between eyes (0) and mouth (1). ``eye_distance``: in sizes of the box.
    ``roll_degrees``: tilt of the line through the eyes. ``brightness``: mean grey value 0..255; ``contrast``: their
    standard deviation. ``score``: the detector's.
    """

    size_px: Floats
    sharpness: Floats
    yaw: Floats
    pitch: Floats
    eye_distance: Floats
    roll_degrees: Floats
    brightness: Floats
    contrast: Floats
    score: Floats


# Where a property makes a face worthless (0) and where it is as good as it needs to be (1), linear between.
# A face is refused by default if it is less than REJECT_BELOW of the way.
_RAMPS: Final[dict[str, tuple[float, float]]] = {
    "size_px": (12.0, 80.0),
    "sharpness": (0.0, 1.0),
    # To 1.3: all of 24 such faces in Labeled Faces in the Wild matched another photo of the person.
    "yaw": (1.6, 0.3),
    "eye_distance": (0.05, 0.25),
    "roll_degrees": (75.0, 25.0),
    "pitch_up": (-0.2, 0.3),
    "pitch_down": (1.3, 0.85),
    "contrast": (4.0, 30.0),
    "dark": (8.0, 60.0),
    "bright": (252.0, 225.0),
    "score": (0.4, 0.98),
}


def assess(image: Picture, detections: Detections, reject_below: float = REJECT_BELOW) -> Quality:
    """The quality of each face of ``detections`` in ``image`` (uint8 (H, W, 3) RGB).

    Faces that score less than ``reject_below`` (0..1) have a reason; at 0 none has.
    """
    return assess_each([image] * len(detections), detections, reject_below)


def assess_each(images: Sequence[Picture], detections: Detections, reject_below: float = REJECT_BELOW) -> Quality:
    """As :func:`assess`, of faces of many pictures: ``images`` has that of each face."""
    n = len(detections)
    if n == 0:
        return Quality(np.empty(0, np.float32), [])
    m = measure(images, detections)
    properties = {
        "too_small": _ramp(m.size_px, *_RAMPS["size_px"]),
        "blurred": _ramp(m.sharpness, *_RAMPS["sharpness"]),
        "pose": np.minimum.reduce(
            [
                _ramp(m.yaw, *_RAMPS["yaw"]),
                _ramp(m.roll_degrees, *_RAMPS["roll_degrees"]),
                _ramp(m.eye_distance, *_RAMPS["eye_distance"]),
                _ramp(m.pitch, *_RAMPS["pitch_up"]),
                _ramp(m.pitch, *_RAMPS["pitch_down"]),
            ]
        ),
        "exposure": np.minimum.reduce(
            [
                _ramp(m.contrast, *_RAMPS["contrast"]),
                _ramp(m.brightness, *_RAMPS["dark"]),
                _ramp(m.brightness, *_RAMPS["bright"]),
            ]
        ),
        "low_score": _ramp(m.score, *_RAMPS["score"]),
    }
    table = np.stack(list(properties.values()))
    weakest = table.argmin(axis=0)
    scores = table[weakest, np.arange(n)].astype(np.float32)
    names = list(properties)
    reasons = [names[row] if score < reject_below else "" for row, score in zip(weakest, scores, strict=True)]
    return Quality(scores, reasons)


def looks_enlarged(image: Image, box: Floats) -> bool:
    """Whether the face in ``box`` (float32 (4,) xyxy px) of ``image`` is a tiny one that was enlarged.

    Enlarging makes no detail. Beside what a tiny face shows too (3 to 6 waves across the face), finer waves are missing
    far more than lenses, motion and compression leave them out. A face of less than 40 px is small as it is.
    """
    crop = _cut(image, box)
    if min(crop.shape[:2]) < _ENLARGED_FROM_PX:
        return False
    scaling = cv2.INTER_AREA if min(crop.shape[:2]) > _SPECTRUM_PX else cv2.INTER_LINEAR
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (_SPECTRUM_PX, _SPECTRUM_PX), interpolation=scaling)
    window = np.hanning(_SPECTRUM_PX)
    spectrum = np.abs(np.fft.fft2((grey - grey.mean()) * np.outer(window, window))) ** 2
    waves = np.fft.fftfreq(_SPECTRUM_PX) * _SPECTRUM_PX
    across = np.hypot(waves[:, None], waves[None, :])

    def power(low: int, high: int) -> float:
        return float(spectrum[(across >= low) & (across < high)].mean())

    coarse = power(3, 6)
    return coarse > 0 and any(power(*band) < least * coarse for band, least in _LEAST_DETAIL)


def smallest_face_px(reject_below: float = REJECT_BELOW) -> float:
    """The shorter side in px below which a face is ``too_small``."""
    worst, best = _RAMPS["size_px"]
    return worst + reject_below * (best - worst)


def measure(images: Sequence[Picture], detections: Detections) -> Measures:
    """The single properties that :func:`assess_each` judges."""
    sharpness, brightness, contrast = _texture(images, detections.boxes)
    left_eye, right_eye, nose, left_mouth, right_mouth = detections.landmarks.transpose(1, 0, 2)
    across = right_eye - left_eye
    eye_distance = np.maximum(np.linalg.norm(across, axis=1), 1e-3)
    along = across / eye_distance[:, None]
    down = np.stack([-along[:, 1], along[:, 0]], axis=1)
    eyes, mouth = (left_eye + right_eye) / 2, (left_mouth + right_mouth) / 2
    to_nose = nose - eyes
    mouth_depth = np.maximum(_dot(mouth - eyes, down), 1e-3)
    sizes = detections.boxes[:, 2:] - detections.boxes[:, :2]
    return Measures(
        size_px=sizes.min(axis=1),
        sharpness=sharpness,
        yaw=np.abs(2 * _dot(to_nose, along) / eye_distance).astype(np.float32),
        pitch=(_dot(to_nose, down) / mouth_depth).astype(np.float32),
        eye_distance=(eye_distance / np.maximum(sizes.min(axis=1), 1.0)).astype(np.float32),
        roll_degrees=np.degrees(np.abs(np.arctan2(across[:, 1], across[:, 0]))),
        brightness=brightness,
        contrast=contrast,
        score=detections.scores,
    )


def _texture(images: Sequence[Picture], boxes: Floats) -> tuple[Floats, Floats, Floats]:
    """Sharpness, brightness and contrast of each box; a box beyond its image has none of them."""
    texture = np.zeros((len(boxes), 3), np.float32)
    for row, (image, box) in enumerate(zip(images, boxes, strict=True)):  # each is resized by its own factor
        face = _cut(image, box)
        if face.size:
            crop = cv2.resize(face, (_CROP_PX, _CROP_PX), interpolation=cv2.INTER_LINEAR)
            grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
            _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
            mean, contrast = cv2.meanStdDev(grey)
            texture[row] = edges.item(), mean.item(), contrast.item()
    # Over the variance of the grey values, so that a dark or hazy face is not taken for a blurred one.
    sharpness: Floats = np.square(texture[:, 0] / np.maximum(texture[:, 2], np.float32(1.0)))
    return sharpness, texture[:, 1], texture[:, 2]


def _cut(image: Picture, box: Floats) -> Image:
    """What ``box`` covers of ``image``; empty for a box beyond the image."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = np.rint(box).astype(int).clip(0, [width, height, width, height]).tolist()
    return image.cut(x1, y1, x2, y2) if isinstance(image, LazyImage) else image[y1:y2, x1:x2]


def _dot(a: Floats, b: Floats) -> Floats:
    product: Floats = np.sum(a * b, axis=1)
    return product


def _ramp(values: Floats, worst: float, best: float) -> Floats:
    ramp: Floats = np.clip((values - worst) / (best - worst), 0.0, 1.0)
    return ramp
