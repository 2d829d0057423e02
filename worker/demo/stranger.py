"""Somebody whom nobody has enrolled: a drawn man with a beard, so that the demo needs no photo of a second person."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.demo.footage import cut_out, make_visits_clip

_SIDE: Final = 512
FACE_CENTRE: Final = (256.0, 232.0)

_SKIN, _SHADE, _LIGHT = (186, 134, 102), (112, 70, 50), (226, 178, 144)
_HAIR, _LIPS, _LINE = (40, 30, 28), (150, 78, 70), (46, 28, 24)
_Colour = tuple[int, int, int]
_Stroke = tuple[tuple[tuple[float, float], ...], _Colour, float, float]
# What he is made of, from back to front: points, colour, blur in px, opacity. Two points are the centre and the half
# axes of an ellipse, more are a polygon.
_FIGURE: Final[tuple[_Stroke, ...]] = (
    (((60, 512), (84, 428), (184, 384), (328, 384), (428, 428), (452, 512)), (52, 82, 62), 2, 1),
    (((206, 310), (306, 310), (320, 402), (256, 432), (192, 402)), (164, 112, 84), 2, 1),
    (((256, 182), (124, 134)), _HAIR, 2, 1),
    (((141, 228), (15, 31)), (172, 118, 90), 2, 1),
    (((371, 228), (15, 31)), (172, 118, 90), 2, 1),
    (((256, 222), (108, 134)), _SKIN, 1.5, 1),
    (((256, 318), (78, 54)), _SKIN, 3, 1),
)
_FEATURES: Final[tuple[_Stroke, ...]] = (
    (((256, 132), (60, 24)), _LIGHT, 16, 0.6),
    (((154, 240), (22, 96)), _SHADE, 15, 0.6),
    (((150, 250), (164, 318), (206, 362), (256, 376), (306, 362), (348, 318), (362, 250), (338, 292), (304, 318),
      (256, 322), (208, 318), (174, 292)), _HAIR, 5, 0.85),
    (((214, 304), (236, 292), (256, 296), (276, 292), (298, 304), (256, 306)), _HAIR, 3, 0.85),
    (((204, 264), (22, 14)), (206, 136, 110), 11, 0.5),
    (((206, 206), (33, 18)), _SHADE, 9, 0.5),
    (((170, 190), (204, 175), (240, 190), (240, 198), (204, 187), (170, 199)), _HAIR, 2, 0.95),
    (((206, 210), (22, 12)), _LINE, 1, 0.9),
    (((206, 212), (21, 9)), (234, 228, 222), 1, 1),
    (((206, 210), (9, 9)), (66, 46, 32), 0.8, 1),
    (((206, 210), (4.5, 4.5)), (12, 10, 10), 0.6, 1),
    (((203, 207), (2, 2)), (255, 255, 255), 0.5, 1),
    (((234, 214), (245, 206), (243, 254), (228, 270)), _SHADE, 6, 0.45),
    (((242, 276), (8, 4)), (66, 34, 28), 1.6, 0.9),
)  # fmt: skip
"""Those of his right half, which is on the left of the picture; the other half is the same."""
_MIDDLE: Final[tuple[_Stroke, ...]] = (
    (((244, 204), (268, 204), (274, 262), (238, 262)), _LIGHT, 7, 0.6),
    (((256, 266), (24, 13)), (198, 142, 112), 4, 0.8),
    (((256, 260), (10, 7)), _LIGHT, 4, 0.8),
    (((214, 312), (256, 307), (298, 312), (278, 328), (256, 331), (234, 328)), _LIPS, 1.5, 0.95),
    (((214, 312), (256, 316), (298, 312), (256, 320)), (66, 28, 28), 1, 0.9),
    (((140, 212), (136, 150), (162, 92), (214, 56), (276, 54), (338, 78), (370, 130), (374, 212), (358, 178),
      (346, 134), (318, 104), (276, 96), (226, 100), (182, 118), (160, 150), (152, 190)), _HAIR, 2, 1),
)  # fmt: skip


def make_stranger_clip(folder: Path) -> Path:
    """Writes ``visitors.mp4`` to ``folder``: the stranger walks by, and then the enrolled person.

    Raises:
        SourceError: ``folder`` cannot be written.
    """
    return make_visits_clip(folder / "visitors.mp4", _stranger(), FACE_CENTRE)


def _stranger() -> NDArray[np.uint8]:
    """uint8 (512, 512, 4): RGB times alpha, and alpha."""
    picture = np.full((_SIDE, _SIDE, 3), 128, np.float32)
    outline = np.zeros((_SIDE, _SIDE), np.uint8)
    for stroke in _FIGURE:
        picture = _painted(picture, stroke)
        outline |= _shape(stroke[0])
    for points, colour, blur_px, opacity in _FEATURES:
        is_ellipse = len(points) == 2
        mirrored = tuple((_SIDE - x, y) if not (is_ellipse and at) else (x, y) for at, (x, y) in enumerate(points))
        for side in (points, mirrored):
            picture = _painted(picture, (side, colour, blur_px, opacity))
    for stroke in _MIDDLE:
        picture = _painted(picture, stroke)
    return cut_out(picture.clip(0, 255).astype(np.uint8), outline, feather_px=1.5)


def _painted(picture: NDArray[np.float32], stroke: _Stroke) -> NDArray[np.float32]:
    points, colour, blur_px, opacity = stroke
    cover = cv2.GaussianBlur(_shape(points).astype(np.float32) * (opacity / 255), (0, 0), blur_px)[:, :, None]
    painted: NDArray[np.float32] = picture * (1 - cover) + np.array(colour, np.float32) * cover
    return painted


def _shape(points: tuple[tuple[float, float], ...]) -> NDArray[np.uint8]:
    drawn = np.zeros((_SIDE, _SIDE), np.uint8)
    if len(points) == 2:
        (x, y), (width, height) = points
        cv2.ellipse(drawn, ((x, y), (2 * width, 2 * height), 0.0), 255, -1, cv2.LINE_AA)
    else:
        cv2.fillPoly(drawn, [np.array(points, np.int32)], 255, cv2.LINE_AA)
    return drawn
